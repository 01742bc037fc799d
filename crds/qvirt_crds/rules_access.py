"""Semantic refusals of access credentials and probes. Wording is KubeVirt's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qvirt_crds.credentials import AccessCredential, PasswordCredential, PublicKeyCredential
from qvirt_crds.errors import Cause
from qvirt_crds.meta import JsonObject
from qvirt_crds.rules_values import at_most, is_dns_subdomain
from qvirt_crds.vm import VirtualMachineInstanceSpec

_PROBES: Final = ("exec", "httpGet", "tcpSocket", "guestAgentPing")
#: Reach the guest at the pod's address.
_OUTSIDE: Final = ("httpGet", "tcpSocket")
_NUMBERS: Final = (
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
)


def check_credentials(spec: VirtualMachineInstanceSpec, path: str) -> Iterator[Cause]:
    """All that is wrong with an instance's access credentials."""
    yield from at_most(len(spec.access_credentials), f"{path}.accessCredentials")
    for index, entry in enumerate(spec.access_credentials):
        yield from _credential(entry, spec, f"{path}.accessCredentials[{index}]")


def _credential(
    entry: AccessCredential, spec: VirtualMachineInstanceSpec, path: str
) -> Iterator[Cause]:
    kinds = [kind for kind in (entry.ssh_public_key, entry.user_password) if kind is not None]
    if len(kinds) != 1:
        message = f"{path} must have exactly one access credential type set"
        yield Cause(path=path, message=message)
        return
    inner = f"{path}.{'sshPublicKey' if entry.ssh_public_key else 'userPassword'}"
    yield from _source(kinds[0], path, inner)
    if entry.ssh_public_key is not None:
        yield from _key_propagation(entry.ssh_public_key, spec, path, f"{inner}.propagationMethod")
    elif entry.user_password is not None and not (
        entry.user_password.propagation_method.qemu_guest_agent
    ):
        message = f"{path} must have exactly one propagationMethod set"
        yield Cause(path=f"{inner}.propagationMethod", message=message)


def _source(
    kind: PublicKeyCredential | PasswordCredential, path: str, inner: str
) -> Iterator[Cause]:
    if kind.source.secret is None:
        message = f"{path} must have exactly one source set"
        yield Cause(path=f"{inner}.source", message=message)
    elif not is_dns_subdomain(kind.source.secret.secret_name):
        where = f"{inner}.source.secret.secretName"
        message = f"{where}: {kind.source.secret.secret_name!r} is not a DNS-1123 subdomain"
        yield Cause(path=where, message=message)


def _key_propagation(
    kind: PublicKeyCredential, spec: VirtualMachineInstanceSpec, path: str, inner: str
) -> Iterator[Cause]:
    method = kind.propagation_method
    ways = {
        "noCloud": method.no_cloud,
        "configDrive": method.config_drive,
        "qemuGuestAgent": method.qemu_guest_agent,
    }
    chosen = [name for name, way in ways.items() if way is not None]
    if len(chosen) != 1:
        yield Cause(path=inner, message=f"{path} must have exactly one propagationMethod set")
        return
    if method.qemu_guest_agent is not None and not method.qemu_guest_agent.users:
        where = f"{inner}.qemuGuestAgent.users"
        yield Cause(
            path=where,
            message=f"{where} requires at least one user to be present in the users list",
        )
    present = {
        "noCloud": any(v.cloud_init_no_cloud for v in spec.volumes),
        "configDrive": any(v.cloud_init_config_drive for v in spec.volumes),
    }
    way = chosen[0]
    if not present.get(way, True):
        message = (
            f"{path} requires a {way} volume to exist when the {way} propagationMethod is in use."
        )
        yield Cause(path=inner, message=message)


def check_probes(spec: VirtualMachineInstanceSpec, path: str) -> Iterator[Cause]:
    """All that is wrong with an instance's probes; the rest of their fields is the API server's to check in the pod."""
    devices = spec.domain.devices
    bare = not spec.networks and not devices.interfaces
    by_default = bare and devices.autoattach_pod_interface is not False
    attached = by_default or any(network.pod is not None for network in spec.networks)
    for name, probe in (
        ("readinessProbe", spec.readiness_probe),
        ("livenessProbe", spec.liveness_probe),
    ):
        if probe is not None:
            yield from _probe(probe, attached, f"{path}.{name}")


def _probe(probe: JsonObject, attached: bool, path: str) -> Iterator[Cause]:
    kinds = [name for name in _PROBES if probe.get(name) is not None]
    if len(kinds) != 1:
        yield Cause(path=path, message=f"{path} must have exactly one probe type set")
        return
    kind = kinds[0]
    if kind in _OUTSIDE and not attached:
        message = f"{path}.{kind} is only allowed if the Pod Network is attached"
        yield Cause(path=f"{path}.{kind}", message=message)
    if kind == "exec" and not _is_command(probe["exec"]):
        where = f"{path}.exec.command"
        yield Cause(path=where, message=f"{where} must be a list of the program and its arguments")
    for name in _NUMBERS:
        number = probe.get(name, 0)
        if type(number) is not int or number < 0:
            where = f"{path}.{name}"
            yield Cause(path=where, message=f"{where} must be a whole number, 0 or more")


def _is_command(given: object) -> bool:
    command = given.get("command") if isinstance(given, dict) else None
    return isinstance(command, list) and bool(command) and all(isinstance(w, str) for w in command)
