"""PodSecurity `restricted` as a check of a pod's spec: Kubernetes before 1.23 does not enforce it.

The rules are those of the Pod Security Standards (kubernetes.io/docs/concepts/security/pod-security-standards), profile
`restricted`, which contains `baseline`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def breaches(spec: Object) -> list[str]:
    """What the profile does not allow of a pod; empty: nothing."""
    return [*_pod(spec), *(breach for one in _containers(spec) for breach in _container(spec, one))]


def _containers(spec: Object) -> Iterator[Object]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(kind, ())


def _pod(spec: Object) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(name):
            yield name
    for volume in spec.get("volumes", ()):
        if not volume.keys() & _VOLUMES:
            yield f"volume {volume['name']}: {sorted(volume)}"
    security = spec.get("securityContext", {})
    if security.get("sysctls"):
        yield "sysctls"
    if security.get("runAsUser") == 0:
        yield "the pod's user is root"


def _container(spec: Object, container: Object) -> Iterator[str]:
    pod, own, name = (
        spec.get("securityContext", {}),
        container.get("securityContext", {}),
        container["name"],
    )
    capabilities = own.get("capabilities", {})
    profile = (own.get("seccompProfile") or pod.get("seccompProfile") or {}).get("type")
    rules = {
        "privileged": not own.get("privileged"),
        "allowPrivilegeEscalation is not false": own.get("allowPrivilegeEscalation") is False,
        "runAsNonRoot is not true": own.get("runAsNonRoot", pod.get("runAsNonRoot")) is True,
        "runs as root": own.get("runAsUser") != 0,
        "capabilities are not all dropped": "ALL" in capabilities.get("drop", ()),
        "adds capabilities": set(capabilities.get("add", ())) <= {"NET_BIND_SERVICE"},
        "no seccomp profile": profile in ("RuntimeDefault", "Localhost"),
        "procMount": own.get("procMount", "Default") == "Default",
        "host ports": not any(port.get("hostPort") for port in container.get("ports", ())),
    }
    for breach, kept in rules.items():
        if not kept:
            yield f"{name}: {breach}"
