"""Which Kubernetes this is, and what differs between old and new ones. Pure.

Ran on 1.20 (built from Debian's source package); the words for newer ones are from the release notes:
dockershim's flag --container-runtime went in 1.27, --port in 1.24, failCgroupV1 came in 1.31,
PodSecurity is on from 1.23.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from qvirt_cluster.errors import UsageError


@dataclass(frozen=True, order=True)
class Version:
    """Major and minor number of a Kubernetes release."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    @property
    def runtime_endpoint_in_file(self) -> bool:
        """kubelet reads the runtime's socket from its file, and no longer knows --container-runtime."""
        return self >= Version(1, 27)

    @property
    def has_insecure_port_flag(self) -> bool:
        """controller-manager and scheduler listen without TLS too, unless told --port=0."""
        return self < Version(1, 24)

    @property
    def refuses_cgroup_v1(self) -> bool:
        """kubelet wants a word of consent (failCgroupV1: false) on a cgroup v1 machine."""
        return self >= Version(1, 31)

    @property
    def enforces_pod_security(self) -> bool:
        """The API server honours the labels pod-security.kubernetes.io/enforce of namespaces."""
        return self >= Version(1, 23)


def parse_version(text: str, program: str) -> Version:
    """Read what `kubelet --version` prints, e.g. ``Kubernetes v1.20.2``.

    :raise UsageError: there is no version in it.
    """
    found = re.search(r"\bv(\d+)\.(\d+)", text)
    if found is None:
        raise UsageError(
            f"{program} --version says {text.strip()!r}, which names no Kubernetes version; "
            f"put real Kubernetes binaries into K8S_BIN_DIR"
        )
    return Version(int(found[1]), int(found[2]))
