"""``vm-sync``: the message by which handler (or `qvirt run`) brings a guest up in a launcher.

Apart from `qvirt_crds.report`, which the launcher loads for its whole life: the types of a VM's spec cost it 0.5 MiB, and it
hands the object on as it came (`qvirt_launcher.taken`).
"""

from __future__ import annotations

from qvirt_crds.model import Model
from qvirt_crds.report import AccelChoice, Attachment, KernelFiles, LocalVolume
from qvirt_crds.vm import VirtualMachineInstance


class SyncArguments(Model, frozen=True, kw_only=True):
    """Arguments of ``vm-sync``: bring this guest up. A second call with the same uid changes nothing."""

    vmi: VirtualMachineInstance
    attachments: tuple[Attachment, ...] = ()
    volumes: tuple[LocalVolume, ...] = ()
    kernel: KernelFiles | None = None
    accel: AccelChoice = "auto"
