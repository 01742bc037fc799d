"""Manifests as users write them -> the objects that qvirt runs, or every reason why not.

One text may hold several documents: VirtualMachines and VirtualMachineInstances of any served version, with the
Secrets and ConfigMaps that they name beside them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace

from qvirt_crds import document, fieldpath, shape, unimplemented, v1alpha1
from qvirt_crds.convert import to_v1
from qvirt_crds.document import Document
from qvirt_crds.errors import Cause, SpecError
from qvirt_crds.instance import instance_of
from qvirt_crds.meta import ConfigMap, ObjectMeta, Secret
from qvirt_crds.model import Model
from qvirt_crds.names import API_V1, API_V1ALPHA1, API_V1ALPHA3, DEFAULT_NAMESPACE
from qvirt_crds.rules_v1alpha1 import validate_v1alpha1
from qvirt_crds.validate import validate_metadata, validate_vm, validate_vmi
from qvirt_crds.vm import VirtualMachine, VirtualMachineInstance

_T = TypeVar("_T", bound=Model)

#: (namespace, name); an object without a namespace is in ``default``.
Key = tuple[str, str]


class Manifests(Model, frozen=True, kw_only=True):
    """What a text asks for. Nothing is defaulted yet (`defaults.apply_defaults`), all of it is valid."""

    #: One for each VirtualMachine or VirtualMachineInstance, in the order of the text, as ``kubevirt.io/v1``.
    instances: tuple[VirtualMachineInstance, ...] = ()
    #: The VirtualMachines among them, as ``kubevirt.io/v1``.
    machines: tuple[VirtualMachine, ...] = ()
    #: Decoded values by key.
    secrets: dict[Key, dict[str, bytes]] = {}
    config_maps: dict[Key, dict[str, bytes]] = {}


def load_manifests(text: str, source: str) -> Manifests:
    """Every object of a YAML (or JSON) text.

    The text may hold no VirtualMachine at all (a file of Secrets); whether that will do is the caller's to say.

    :param source: the file's name, for messages.
    :raise SpecError: the text is not YAML, or some objects can't be accepted. One cause for each wrong field of all
        objects, with ``file:line`` and the path as the user wrote it.
    """
    manifests = Manifests()
    causes: list[Cause] = []
    for doc in document.parse(text, source):
        try:
            manifests = _add(manifests, doc)
        except SpecError as error:
            causes += (replace(c, where=doc.where(c.path)) for c in error.causes)
    if causes:
        raise SpecError(tuple(causes))
    return manifests


def _add(manifests: Manifests, doc: Document) -> Manifests:
    version, kind = doc.data.get("apiVersion"), doc.data.get("kind")
    accept = (
        _KINDS.get((version, kind)) if isinstance(version, str) and isinstance(kind, str) else None
    )
    if accept is None:
        raise SpecError((_unknown_kind(doc.data),))
    return accept(manifests, doc.data)


def _machine(manifests: Manifests, data: object) -> Manifests:
    vm = _decode(data, VirtualMachine, unimplemented.of_machine())
    _refuse(validate_metadata(vm.metadata) + validate_vm(vm))
    vm = replace(vm, api_version=API_V1)
    return _with_instance(manifests, instance_of(vm), vm)


def _old_machine(manifests: Manifests, data: object) -> Manifests:
    old = _decode(data, v1alpha1.VirtualMachine, unimplemented.V1_NAMES)
    _refuse(validate_metadata(old.metadata) + validate_v1alpha1(old))
    vm = to_v1(old)
    return _with_instance(manifests, instance_of(vm), vm)


def _instance(manifests: Manifests, data: object) -> Manifests:
    vmi = _decode(data, VirtualMachineInstance, unimplemented.of_instance())
    _refuse(validate_metadata(vmi.metadata) + validate_vmi(vmi))
    return _with_instance(manifests, replace(vmi, api_version=API_V1))


def _with_instance(
    manifests: Manifests, vmi: VirtualMachineInstance, vm: VirtualMachine | None = None
) -> Manifests:
    key = key_of(vmi.metadata)
    if any(key_of(other.metadata) == key for other in manifests.instances):
        _refuse(
            (
                Cause(
                    path="metadata.name",
                    message=f"there are two virtual machines named {'/'.join(key)}",
                ),
            )
        )
    return replace(
        manifests,
        instances=(*manifests.instances, vmi),
        machines=manifests.machines if vm is None else (*manifests.machines, vm),
    )


def _secret(manifests: Manifests, data: object) -> Manifests:
    secret = _decode(data, Secret, {})
    _refuse(validate_metadata(secret.metadata))
    values = _decoded(secret.data, "data") | _encoded(secret.string_data)
    return replace(manifests, secrets=_with_values(manifests.secrets, secret.metadata, values))


def _config_map(manifests: Manifests, data: object) -> Manifests:
    config = _decode(data, ConfigMap, {})
    _refuse(validate_metadata(config.metadata))
    values = _encoded(config.data) | _decoded(config.binary_data, "binaryData")
    return replace(
        manifests, config_maps=_with_values(manifests.config_maps, config.metadata, values)
    )


_KINDS: Final[dict[tuple[str, str], Callable[[Manifests, object], Manifests]]] = {
    (API_V1, "VirtualMachine"): _machine,
    (API_V1ALPHA3, "VirtualMachine"): _machine,
    (API_V1ALPHA1, "VirtualMachine"): _old_machine,
    (API_V1, "VirtualMachineInstance"): _instance,
    (API_V1ALPHA3, "VirtualMachineInstance"): _instance,
    ("v1", "Secret"): _secret,
    ("v1", "ConfigMap"): _config_map,
}


def key_of(metadata: ObjectMeta) -> Key:
    """Namespace and name, with Kubernetes' default namespace."""
    return (metadata.namespace or DEFAULT_NAMESPACE, metadata.name)


def _decode(data: object, kind: type[_T], known: Mapping[str, str]) -> _T:
    clean, causes = shape.check(data, kind, known)
    _refuse(causes)
    return msgspec.convert(clean, kind)


def _refuse(causes: tuple[Cause, ...]) -> None:
    if causes:
        raise SpecError(causes)


def _encoded(values: Mapping[str, str]) -> dict[str, bytes]:
    return {key: value.encode() for key, value in values.items()}


def _decoded(values: Mapping[str, str], path: str) -> dict[str, bytes]:
    decoded: dict[str, bytes] = {}
    for key, value in values.items():
        try:
            # YAML folds long values; Kubernetes' decoder skips line ends.
            decoded[key] = base64.b64decode(
                value.replace("\n", "").replace("\r", ""), validate=True
            )
        except (binascii.Error, ValueError) as error:
            message = f"not a valid base64 value ({error}); plain text belongs into {'stringData' if path == 'data' else 'data'}"
            raise SpecError((Cause(path=fieldpath.join(path, key), message=message),)) from error
    return decoded


def _with_values(
    table: Mapping[Key, dict[str, bytes]], metadata: ObjectMeta, values: dict[str, bytes]
) -> dict[Key, dict[str, bytes]]:
    key = key_of(metadata)
    if key in table:
        _refuse((Cause(path="metadata.name", message=f"{'/'.join(key)} is there twice"),))
    return {**table, key: values}


def _unknown_kind(data: Mapping[str, object]) -> Cause:
    version, kind = data.get("apiVersion"), data.get("kind")
    if not isinstance(version, str) or not isinstance(kind, str):
        missing = "kind" if isinstance(version, str) else "apiVersion"
        return Cause(
            path=missing,
            message=f"every object needs apiVersion and kind, like apiVersion: {API_V1}, kind: VirtualMachine",
        )
    kinds = tuple(dict.fromkeys(k for _, k in _KINDS))
    if kind not in kinds:
        hint = shape.suggestion(kind, kinds)
        return Cause(
            path="kind",
            message=f"qvirt has no use for a {kind} ({version}){hint}; it takes {_served()}",
        )
    versions = tuple(v for v, k in _KINDS if k == kind)
    return Cause(
        path="apiVersion", message=f"expected {' or '.join(versions)} for a {kind}, found {version}"
    )


def _served() -> str:
    return "VirtualMachine, VirtualMachineInstance (kubevirt.io), and Secret and ConfigMap (v1) beside them"
