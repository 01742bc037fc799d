"""Where a VM is: on this machine, or on a cluster.

With --kubeconfig or --context it is on a cluster; otherwise it is the one of that name on this machine, and if there is
none, the one on the cluster of the current context, if there is a kubeconfig.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from typing import Final, Literal, NoReturn

from msgspec import Struct

from qvirt_launcher.cli.cluster import api, kubeconfig, websocket
from qvirt_launcher.cli.cluster.errors import ClusterError, ClusterRefused
from qvirt_launcher.cli.cluster.kubeconfig import Target
from qvirt_launcher.cli.cluster.websocket import WebSocket
from qvirt_launcher.cli.reach import find_vm
from qvirt_launcher.errors import NotRunning
from qvirt_launcher.rundir import Vm

Kind = Literal["virtualmachines", "virtualmachineinstances"]
_INSTANCES: Final = "virtualmachineinstances"


class Remote(Struct, frozen=True, kw_only=True):
    """A VM of a cluster; whether it is there, the first request says."""

    target: Target
    namespace: str
    name: str

    @property
    def title(self) -> str:
        return f"{self.namespace}/{self.name}"

    def put(self, kind: Kind, verb: str, options: Mapping[str, object] | None = None) -> None:
        """One of the verbs.

        :raise ClusterError: refused, or the cluster can't be reached.
        """
        try:
            api.request(self.target, "PUT", self._path(kind, verb), options)
        except ClusterRefused as error:
            self._explain(error)

    def instance(self) -> dict[str, object] | None:
        """The running instance as the API server has it; None: there is none, or we may not see it.

        :raise ClusterError: the cluster can't be reached.
        """
        where = f"/apis/kubevirt.io/v1/namespaces/{self.namespace}/{_INSTANCES}/{self.name}"
        try:
            found = json.loads(api.request(self.target, "GET", where))
        except ClusterRefused as error:
            if error.status in (403, 404):
                return None
            self._explain(error)
        return found if isinstance(found, dict) else None

    def read_page(self) -> None:
        """Find out whether the cluster shows us the page of the screen.

        :raise ClusterError: no, and why.
        """
        try:
            api.request(self.target, "GET", self._path(_INSTANCES, "vnc/page"))
        except ClusterRefused as error:
            self._explain(error)

    async def stream(self, verb: str) -> WebSocket:
        """console, vnc or portforward/... of the instance.

        :raise ClusterError: refused, or the cluster can't be reached.
        """
        url = self.target.server + self._path(_INSTANCES, verb)
        try:
            return await websocket.connect(url, self.target.tls, self.target.headers)
        except ClusterRefused as error:
            self._explain(error)

    def _path(self, kind: Kind, verb: str) -> str:
        return api.path(self.namespace, kind, self.name, verb)

    def _explain(self, error: ClusterRefused) -> NoReturn:
        message = f"{self.title} on {self.target.server}: {error}"
        raise ClusterRefused(error.status, message) from error


def locate(arguments: argparse.Namespace) -> Vm | Remote:
    """The VM that the command line names.

    :raise NotRunning: it is not on this machine, and there is no cluster to ask.
    :raise ClusterError: the kubeconfig makes no sense.
    """
    if arguments.kubeconfig or arguments.context:
        return _remote(arguments)
    try:
        return find_vm(arguments)
    except NotRunning as error:
        if not kubeconfig.files("", os.environ):
            raise
        try:
            return _remote(arguments)
        except ClusterError as second:
            raise NotRunning(f"{error}; nor can a cluster be asked: {second}") from second


def _remote(arguments: argparse.Namespace) -> Remote:
    paths = kubeconfig.files(arguments.kubeconfig, os.environ)
    if not paths:
        raise ClusterError("there is no kubeconfig; name one with --kubeconfig")
    before, slash, name = arguments.vm.rpartition("/")
    namespace = before if slash else arguments.namespace
    target = kubeconfig.load(paths, arguments.context, namespace)
    return Remote(target=target, namespace=target.namespace, name=name)
