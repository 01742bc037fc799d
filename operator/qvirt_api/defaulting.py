"""What is written into objects on their way to the API server: defaults, and a status that nobody may forge (pure)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from qvirt_api import patching, users
from qvirt_api.decoding import decode
from qvirt_api.review import Request
from qvirt_crds.configuration import Configuration
from qvirt_crds.defaults import apply_defaults
from qvirt_crds.errors import SpecError
from qvirt_crds.first_status import first_status
from qvirt_crds.meta import JsonObject
from qvirt_crds.model import Model
from qvirt_crds.names import API_V1ALPHA1, FOREGROUND_DELETE
from qvirt_crds.vm import VirtualMachineInstance

Patch = list[JsonObject]

#: The layout of PCI devices that guests are started with, as KubeVirt tells it to clients.
_TOPOLOGY: Final = ("kubevirt.io/pci-topology-version", "v3")
_TEMPLATE: Final = "/spec/template"


def default_instance(
    request: Request, configuration: Configuration, new_uuid: Callable[[], str], now: str
) -> Patch:
    """A VirtualMachineInstance that is created: all defaults, the finalizer, its first status and no other but our own."""
    held = request.object or {}
    patch = _annotation(held, "")
    finalizers = held.get("metadata", {}).get("finalizers") or []
    if FOREGROUND_DELETE not in finalizers:
        value = [*finalizers, FOREGROUND_DELETE]
        patch.append({"op": "add", "path": "/metadata/finalizers", "value": value})
    trusted = users.is_ours(request.user_info)
    if held.get("status") and not trusted:
        patch.append({"op": "add", "path": "/status", "value": {}})
    try:
        before = decode(held, VirtualMachineInstance, {})
    except SpecError:
        return patch  # Validation says what is wrong with it.
    after = apply_defaults(before, new_uuid=new_uuid, configuration=configuration)
    said = (held.get("status") or {}) if trusted else {}
    patch.append({"op": "add", "path": "/status", "value": first_status(after, now) | said})
    return patch + patching.additions(_json(before.spec), _json(after.spec), "/spec")


def keep_status(request: Request) -> Patch:
    """A VirtualMachineInstance that is changed: its status is what it was, unless our own parts write it."""
    if users.is_ours(request.user_info):
        return []
    held, old = request.object or {}, request.old_object or {}
    if held.get("status") == old.get("status"):
        return []
    if "status" not in old:
        return [{"op": "remove", "path": "/status"}]
    return [{"op": "add", "path": "/status", "value": old["status"]}]


def default_machine(
    request: Request, configuration: Configuration, new_uuid: Callable[[], str]
) -> Patch:
    """A VirtualMachine that is created: what must stay the same over all its starts."""
    held = request.object or {}
    if held.get("apiVersion") == API_V1ALPHA1:
        domain = _inner(held, "spec", "domain")
        given = {"firmware": {"uuid": new_uuid()}}
        return _missing(domain, _with_machine(given, configuration), "/spec/domain")
    spec = _inner(held, "spec", "template", "spec")
    if spec is None:
        return []
    given = {"firmware": {"uuid": new_uuid(), "serial": new_uuid()}}
    wanted = {"architecture": "amd64", "domain": _with_machine(given, configuration)}
    template = _inner(held, "spec", "template") or {}
    return _missing(spec, wanted, f"{_TEMPLATE}/spec") + _annotation(template, _TEMPLATE)


def keep_identity(request: Request) -> Patch:
    """A VirtualMachine that is replaced by a manifest without the identity it was given keeps it: guests know it."""
    path: tuple[str, ...] = ("spec", "domain", "firmware")
    if (request.object or {}).get("apiVersion") != API_V1ALPHA1:
        path = ("spec", "template", *path)
    domain = _inner(request.object or {}, *path[:-1])
    old = _inner(request.old_object or {}, *path) or {}
    kept = {key: old[key] for key in ("uuid", "serial") if old.get(key)}
    return _missing(domain, {"firmware": kept}, "/" + "/".join(path[:-1])) if kept else []


def _with_machine(domain: JsonObject, configuration: Configuration) -> JsonObject:
    return {**domain, "machine": {"type": configuration.machine_type}}


def _missing(held: JsonObject | None, wanted: JsonObject, path: str) -> Patch:
    """Add what is wanted where nothing is; empty texts are nothing."""
    if held is None:
        return []
    patch = []
    for key, value in wanted.items():
        inner, there = f"{path}/{patching.escaped(key)}", held.get(key)
        if isinstance(there, dict) and isinstance(value, dict):
            patch += _missing(there, value, inner)
        elif there in (None, ""):
            patch.append({"op": "add", "path": inner, "value": value})
    return patch


def _annotation(held: JsonObject, path: str) -> Patch:
    key, value = _TOPOLOGY
    metadata = held.get("metadata")
    if not isinstance(metadata, dict):
        added = {"annotations": {key: value}}
        return [{"op": "add", "path": f"{path}/metadata", "value": added}]
    return _missing(metadata, {"annotations": {key: value}}, f"{path}/metadata")


def _inner(held: JsonObject, *keys: str) -> JsonObject | None:
    for key in keys:
        inner = held.get(key)
        if not isinstance(inner, dict):
            return None
        held = inner
    return held


def _json(part: Model) -> JsonObject:
    data: JsonObject = msgspec.json.decode(msgspec.json.encode(part))
    return data
