"""The two kinds of replica set, read alike: v1's VirtualMachineInstanceReplicaSet and the seed's VirtualMachineReplicaSet (pure)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from qvirt_crds import shape, unimplemented
from qvirt_crds.errors import SpecError
from qvirt_crds.model import Model
from qvirt_crds.names import API_V1, API_V1ALPHA1
from qvirt_crds.replicaset import (
    VirtualMachineInstanceReplicaSet,
    VirtualMachineInstanceReplicaSetSpec,
)
from qvirt_crds.v1alpha1_replicaset import VirtualMachineReplicaSet, replica_set_to_v1
from qvirt_operator import paths
from qvirt_operator.views import Object

_M = TypeVar("_M", bound=Model)


class ReplicaSetKind:
    """Where objects of a kind are, and how they are read.

    :param path: URL by namespace and name.
    :param read: an object as the API server has it -> what it asks for, in v1's words; raises `SpecError`.
    """

    def __init__(
        self,
        name: str,
        api_version: str,
        path: Callable[[str, str], str],
        read: Callable[[Object], VirtualMachineInstanceReplicaSetSpec],
    ) -> None:
        self.name = name
        self.api_version = api_version
        self.path = path
        self.read = read


def _read(data: Object) -> VirtualMachineInstanceReplicaSetSpec:
    known = unimplemented.of_instance("spec.template.spec")
    return _decoded(data, VirtualMachineInstanceReplicaSet, API_V1, known).spec


def _read_old(data: Object) -> VirtualMachineInstanceReplicaSetSpec:
    return replica_set_to_v1(_decoded(data, VirtualMachineReplicaSet, API_V1ALPHA1, {})).spec


def _decoded(data: Object, kind: type[_M], api_version: str, known: dict[str, str]) -> _M:
    bare = {
        "apiVersion": api_version,
        "kind": kind.__name__,
        "metadata": {"name": data["metadata"]["name"]},
        "spec": data.get("spec"),
    }
    clean, causes = shape.check(bare, kind, known)
    if causes:
        raise SpecError(causes)
    return msgspec.convert(clean, kind)


CURRENT: Final = ReplicaSetKind(
    "VirtualMachineInstanceReplicaSet", API_V1, paths.replica_sets, _read
)
SEEDS: Final = ReplicaSetKind(
    "VirtualMachineReplicaSet", API_V1ALPHA1, paths.old_replica_sets, _read_old
)
