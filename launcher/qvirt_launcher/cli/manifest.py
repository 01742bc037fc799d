"""Manifests from files and standard input, and which of their VMs is meant."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from qvirt_crds.defaults import apply_defaults
from qvirt_crds.errors import Cause, SpecError
from qvirt_crds.load import Manifests, load_manifests
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_launcher.errors import UsageError

#: Kubernetes itself refuses objects of more than 1.5 MiB or so; a file may hold several.
_MAX_SIZE = 64 * 1024 * 1024


def read_manifests(file: str) -> Manifests:
    """Everything in one file.

    :param file: a path; ``-`` is standard input.
    :raise UsageError: it can't be read.
    :raise SpecError: it can't be accepted.
    """
    source = "standard input" if file == "-" else file
    try:
        if file == "-":
            content = sys.stdin.buffer.read(_MAX_SIZE + 1)
        else:
            with Path(file).open("rb") as opened:
                content = opened.read(_MAX_SIZE + 1)
        text = content.decode()
    except OSError as error:
        raise UsageError(f"{source}: {error.strerror}; name a manifest that can be read") from error
    except UnicodeDecodeError as error:
        raise SpecError(
            (Cause(path=source, message=f"is not UTF-8 text ({error}); is it a manifest?"),)
        ) from error
    if len(content) > _MAX_SIZE:
        raise UsageError(f"{source}: is over 64 MiB; name a manifest")
    return load_manifests(text, source)


def merge(read: Sequence[Manifests]) -> Manifests:
    """The first file's VMs, with the Secrets and ConfigMaps of all files; later ones win."""
    secrets: dict[tuple[str, str], dict[str, bytes]] = {}
    config_maps: dict[tuple[str, str], dict[str, bytes]] = {}
    for manifests in read:
        secrets |= manifests.secrets
        config_maps |= manifests.config_maps
    return replace(read[0], secrets=secrets, config_maps=config_maps)


def choose_instance(
    manifests: Manifests, name: str, file: str, *, uuids: uuid.UUID | None = None
) -> VirtualMachineInstance:
    """The VM that ``--name`` means, with every default written out.

    :param uuids: namespace of UUIDs that are the same each time, derived from the VM's name; None: a random one.
    :raise UsageError: there is none of that name, there are several, or none at all.
    """
    instances = manifests.instances
    names = ", ".join(instance.metadata.name for instance in instances)
    if not instances:
        raise UsageError(f"{file}: has no VirtualMachine or VirtualMachineInstance; add one")
    if name:
        instances = tuple(i for i in instances if i.metadata.name == name)
        if not instances:
            raise UsageError(f"{file}: has no VM named {name}; it has {names}")
    if len(instances) > 1:
        raise UsageError(f"{file}: has several VMs; say which with --name: {names}")
    found = instances[0]
    new = uuid.uuid4() if uuids is None else uuid.uuid5(uuids, found.metadata.name)
    return apply_defaults(found, new_uuid=lambda: str(new))
