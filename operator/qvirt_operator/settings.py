"""What virt-controller is told from outside: its flags."""

from __future__ import annotations

from qvirt_crds.model import Model


class Settings(Model, frozen=True, kw_only=True):
    """How launcher pods are made in this cluster."""

    launcher_image: str
    image_pull_policy: str = "IfNotPresent"
    #: Whether the cluster has OCI image volumes; else containerDisks run as sidecars.
    image_volumes: bool = False
    #: Never ask for KVM (KubeVirt.spec.configuration.developerConfiguration.useEmulation).
    use_emulation: bool = False
