"""Guest RAM: ``-m`` and, for huge pages, a memory backend."""

from __future__ import annotations

from typing import Final

from qvirt_crds.domain import Domain
from qvirt_crds.model import Model
from qvirt_crds.quantity import Quantity, parse_bytes
from qvirt_launcher.arguments import Options, Properties, refused

#: QEMU rounds -m up to this by itself (system/vl.c, set_memory_options); we do it, so that argv says what the guest has.
_GRANULE: Final = 8192
_BACKEND: Final = "ram"


class Memory(Model, frozen=True, kw_only=True):
    """RAM in bytes as the guest gets it, never less than was asked for."""

    size: int
    objects: tuple[Properties, ...] = ()
    #: What ``-machine`` must say about it.
    board: Options = {}


def plan_memory(domain: Domain) -> Memory:
    """64M is 64,000,000 bytes, rounded up to a multiple of 8 KiB (or of a huge page).

    :raise SpecError: no memory is given, or not as a quantity.
    """
    memory = domain.memory
    if memory is None or memory.guest is None:
        raise refused("spec.domain.memory.guest", "must be set")
    asked = _bytes(memory.guest, "spec.domain.memory.guest")
    if memory.hugepages is None:
        return Memory(size=_round_up(asked, _GRANULE))
    page = _bytes(memory.hugepages.page_size, "spec.domain.memory.hugepages.pageSize")
    size = _round_up(asked, page)
    backend: Properties = {
        "qom-type": "memory-backend-memfd",
        "id": _BACKEND,
        "size": size,
        "hugetlb": True,
        "hugetlbsize": page,
        # Take them all now: a page that is missing later would kill the guest with SIGBUS.
        "prealloc": True,
    }
    return Memory(size=size, objects=(backend,), board={"memory-backend": _BACKEND})


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _bytes(quantity: Quantity, path: str) -> int:
    try:
        value = parse_bytes(quantity)
    except ValueError as error:
        raise refused(path, str(error)) from None
    if value <= 0:
        raise refused(path, f"{quantity} is not more than 0")
    return value
