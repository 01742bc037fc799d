"""Semantic refusals of v1alpha1 VirtualMachines: v1's rules on what they mean, in v1alpha1's words, and a few of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from qvirt_crds import v1alpha1
from qvirt_crds.convert_to_v1 import spec_to_v1
from qvirt_crds.errors import Cause
from qvirt_crds.validate import validate_spec

#: A v1 disk has its volume's name; in v1alpha1 the rules below look after both names.
_DISK_NAME: Final = re.compile(r".*\.domain\.devices\.disks\[[0-9]+\]\.name")


def validate_v1alpha1(vm: v1alpha1.VirtualMachine) -> tuple[Cause, ...]:
    """Every reason why this VirtualMachine can't run, with v1alpha1's paths."""
    return validate_v1alpha1_spec(vm.spec, "spec")


def validate_v1alpha1_spec(spec: v1alpha1.VirtualMachineSpec, path: str) -> tuple[Cause, ...]:
    """`validate_v1alpha1` for a spec that stands at `path`."""
    as_v1 = spec_to_v1(spec, keep_unused_volumes=True)
    return (
        *_names(spec.domain.devices.disks, spec.volumes, f"{path}.domain.devices.disks"),
        *(
            _in_old_words(cause)
            for cause in validate_spec(as_v1, path)
            if not _DISK_NAME.fullmatch(cause.path)
        ),
    )


def _names(
    disks: tuple[v1alpha1.Disk, ...], volumes: tuple[v1alpha1.Volume, ...], path: str
) -> Iterator[Cause]:
    there = {v.name for v in volumes}
    names = [d.name for d in disks]
    used = [d.volume_name for d in disks]
    for index, disk in enumerate(disks):
        inner = f"{path}[{index}]"
        if disk.volume_name not in there:
            message = f"{inner}.volumeName '{disk.volume_name}' not found."
            yield Cause(path=f"{inner}.volumeName", message=message)
        first = used.index(disk.volume_name)
        if first < index:
            message = f"{path}[{first}] and {inner} reference the same volumeName."
            yield Cause(path=f"{inner}.volumeName", message=message)
        first = names.index(disk.name)
        if first < index:
            message = f"{path}[{first}] and {inner} must not have the same Name."
            yield Cause(path=f"{inner}.name", message=message)


def _in_old_words(cause: Cause) -> Cause:
    return Cause(
        path=cause.path.replace("containerDisk", "registryDisk"),
        message=cause.message.replace("containerDisk", "registryDisk"),
    )
