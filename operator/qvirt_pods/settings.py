"""How launcher pods are made in this cluster: virt-controller's flags, and the settings of the KubeVirt object on top."""

from __future__ import annotations

from fractions import Fraction

from msgspec.structs import replace

from qvirt_crds.configuration import DEFAULT, Configuration
from qvirt_crds.model import Model


class Settings(Model, frozen=True, kw_only=True):
    """What a launcher pod is made with beside its instance."""

    launcher_image: str
    image_pull_policy: str = "IfNotPresent"
    #: Whether the cluster has OCI image volumes; else containerDisks run as sidecars.
    image_volumes: bool = False
    #: Never ask for KVM.
    use_emulation: bool = False
    #: Percent of the requested memory that a guest sees.
    memory_overcommit: int = DEFAULT.memory_overcommit
    #: vCPUs that share one CPU of the node when the user says nothing.
    cpu_allocation_ratio: int = DEFAULT.cpu_allocation_ratio
    #: Factor on the pod's overhead.
    overhead_ratio: Fraction = DEFAULT.overhead_ratio
    #: Whether guests' serial consoles are logged, where a VM says nothing of it.
    log_serial_console: bool = DEFAULT.log_serial_console

    def configured(self, configuration: Configuration) -> Settings:
        """With a KubeVirt object's settings on top; a flag that turns something on can't be taken back by it."""
        return replace(
            self,
            image_pull_policy=configuration.image_pull_policy or self.image_pull_policy,
            image_volumes=self.image_volumes or configuration.image_volumes,
            use_emulation=self.use_emulation or configuration.use_emulation,
            memory_overcommit=configuration.memory_overcommit,
            cpu_allocation_ratio=configuration.cpu_allocation_ratio,
            overhead_ratio=configuration.overhead_ratio,
            log_serial_console=configuration.log_serial_console,
        )
