"""What the launcher itself reads of ``vm-sync``: of the VM's object next to nothing, as it hands that on to the worker as it came.

The types of a whole spec would cost every launcher 0.5 MiB for as long as its guest lives (docs/adr/0007). Field by field these
are those of `qvirt_crds.sync.SyncArguments` and of what is below it; a test holds them together.
"""

from __future__ import annotations

import msgspec

from qvirt_crds.model import Model
from qvirt_crds.report import AccelChoice, Attachment, KernelFiles, LocalVolume


class View(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A part of an object; other fields are somebody else's to look at."""


class Metadata(View, frozen=True, kw_only=True):
    """Which guest it is."""

    name: str = ""
    namespace: str = ""
    uid: str = ""


class Acpi(View, frozen=True, kw_only=True):
    """Whether there is a power button."""

    enabled: bool | None = None


class Features(View, frozen=True, kw_only=True):
    """Of the machine."""

    acpi: Acpi | None = None


class Domain(View, frozen=True, kw_only=True):
    """The machine."""

    features: Features | None = None
    reboot_policy: str = ""


class Spec(View, frozen=True, kw_only=True):
    """How it is to start and to end."""

    domain: Domain
    termination_grace_period_seconds: int | None = None
    start_strategy: str = ""


class Vmi(View, frozen=True, kw_only=True):
    """The VM's object."""

    spec: Spec
    metadata: Metadata = Metadata()

    @property
    def has_acpi(self) -> bool:
        """Whether the guest can be asked to shut down."""
        features = self.spec.domain.features
        acpi = features.acpi if features is not None else None
        return acpi is None or acpi.enabled is not False


class Taken(Model, frozen=True, kw_only=True):
    """A guest that this launcher takes on."""

    vmi: Vmi
    attachments: tuple[Attachment, ...] = ()
    volumes: tuple[LocalVolume, ...] = ()
    kernel: KernelFiles | None = None
    accel: AccelChoice = "auto"
