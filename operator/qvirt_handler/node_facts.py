"""What the launcher's image found out about this node: read from its report, and turned into labels and a verdict on KVM."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from qvirt_crds.node_report import KVM_DEVICE, NodeReport, kvm_identity

#: The node's own file system, as seen from a pod in the host's process namespace.
HOST_ROOT: Final = "/proc/1/root"

_MODEL: Final = "cpu-model.node.kubevirt.io/"
_FEATURE: Final = "cpu-feature.node.kubevirt.io/"
_VENDOR: Final = "cpu-vendor.node.kubevirt.io/"
_PREFIXES: Final = (_MODEL, _FEATURE, _VENDOR)
_LABEL: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
#: What users call them (libvirt's names), by what CPUID says.
_VENDORS: Final = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel", "HygonGenuine": "Hygon"}


def read(path: str) -> NodeReport | None:
    """The report; None: there is none that can be read."""
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=NodeReport)
    except (OSError, msgspec.MsgspecError):
        return None


def kvm_trouble(path: str, host_root: str = HOST_ROOT) -> str:
    """Why guests can't have KVM here, in one sentence; empty: they can."""
    report = read(path)
    if report is None:
        return f"it was not tried: no report at {path}"
    if not report.kvm_works:
        return report.kvm_message
    now = kvm_identity(host_root + KVM_DEVICE)
    if now == report.kvm_identity:
        return ""
    if not now:
        return f"{KVM_DEVICE} is gone"
    return f"{KVM_DEVICE} is not the one that was tried; delete this node's virt-handler pod to try again"


def labels(report: NodeReport | None) -> dict[str, str]:
    """KubeVirt's labels of a node for guests that name a CPU model or require a feature."""
    if report is None:
        return {}
    names = [_MODEL + name for name in report.cpu_models]
    names += [_FEATURE + name for name in report.cpu_features]
    if vendor := _VENDORS.get(report.cpu_vendor, report.cpu_vendor):
        names.append(_VENDOR + vendor)
    return {name: "true" for name in names if _LABEL.fullmatch(name.partition("/")[2])}


def changes(have: Mapping[str, str], want: Mapping[str, str]) -> dict[str, str | None]:
    """A merge patch of a node's labels; those of ours that it should not have any more become None."""
    patch: dict[str, str | None] = {
        name: None for name in have if name.startswith(_PREFIXES) and name not in want
    }
    return patch | {name: value for name, value in want.items() if have.get(name) != value}
