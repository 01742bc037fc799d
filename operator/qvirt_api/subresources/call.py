"""One authorized call, as the verbs see it."""

from __future__ import annotations

from typing import Final, TypeVar

from aiohttp import web

from qvirt_api.subresources.authentication import FrontProxySource, User
from qvirt_api.subresources.errors import StatusError, internal, not_found
from qvirt_api.subresources.information import About
from qvirt_api.subresources.node import NodeAgents
from qvirt_api.subresources.options import Options, decode
from qvirt_api.subresources.page_files import PageFiles
from qvirt_api.subresources.streams import Sessions
from qvirt_api.subresources.table import Endpoint
from qvirt_api.subresources.views import Instance, Machine
from qvirt_kube.client import Kube, Object
from qvirt_kube.errors import KubeError, NotFound

_O = TypeVar("_O", bound=Options)
_API: Final = "/apis/kubevirt.io/v1/namespaces"
#: Of a body: more than any VirtualMachine that can be stored.
_LARGEST: Final = 3 * 2**20


class Services:
    """What the verbs work with, made once."""

    def __init__(
        self,
        kube: Kube,
        front: FrontProxySource,
        agents: NodeAgents,
        facts: About,
        files: PageFiles,
    ) -> None:
        self.kube = kube
        self.front = front
        self.agents = agents
        self.facts = facts
        self.files = files
        self.sessions = Sessions()


class Call:
    """:param user: who has been found allowed to do this."""

    def __init__(self, services: Services, request: web.Request, endpoint: Endpoint, user: User):
        self.services = services
        self.request = request
        self.endpoint = endpoint
        self.user = user
        self.namespace = request.match_info.get("namespace", "")
        self.name = request.match_info.get("name", "")

    async def options(self, kind: type[_O]) -> _O:
        """The body.

        :raise StatusError: 400.
        """
        return decode(await self.body(), kind)

    async def body(self) -> bytes:
        """What the client sent.

        :raise StatusError: 413, too much.
        """
        content = bytearray()
        async for chunk in self.request.content.iter_any():
            content += chunk
            if len(content) > _LARGEST:
                raise StatusError(413, "RequestEntityTooLarge", "the request's body is too large")
        return bytes(content)

    async def machine(self) -> Machine:
        """The VirtualMachine of the path.

        :raise StatusError: 404, or it can't be read.
        """
        try:
            return Machine(await self.services.kube.get(machine_path(self.namespace, self.name)))
        except NotFound as error:
            raise not_found("virtualmachine", self.name) from error
        except KubeError as error:
            raise internal(str(error)) from error

    async def instance(self) -> Instance:
        """The VirtualMachineInstance of the path.

        :raise StatusError: 404, or it can't be read.
        """
        found = await self.instance_if_any()
        if found is None:
            raise not_found("virtualmachineinstance", self.name)
        return found

    async def instance_if_any(self) -> Instance | None:
        """None: there is none.

        :raise StatusError: it can't be read.
        """
        try:
            found: Object = await self.services.kube.get(instance_path(self.namespace, self.name))
        except NotFound:
            return None
        except KubeError as error:
            raise internal(str(error)) from error
        return Instance(found)


def machine_path(namespace: str, name: str) -> str:
    """Of a VirtualMachine."""
    return f"{_API}/{namespace}/virtualmachines/{name}"


def instance_path(namespace: str, name: str) -> str:
    """Of a VirtualMachineInstance."""
    return f"{_API}/{namespace}/virtualmachineinstances/{name}"
