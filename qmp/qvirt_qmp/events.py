"""QEMU's events as types: those that we act on, and `Unknown` for the rest.

Fields and their names: QEMU's QAPI schema (``run-state.json``, ``block-core.json``, ``char.json`` ...). A field that older
or newer QEMUs lack has a default. Fields that we have no use for are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", rename="kebab"):
    """Base: the event's name is the tag; ``data`` is flattened into fields."""


class Shutdown(_Event, frozen=True, kw_only=True, tag="SHUTDOWN"):
    """The guest or the host ended the run; QEMU exits next, unless started with ``-no-shutdown``.

    ``reason`` is what tells a guest's power-off (``guest-shutdown``) from its reboot under ``-no-reboot`` (``guest-reset``),
    a panic (``guest-panic``), ``quit`` (``host-qmp-quit``) and a signal (``host-signal``): QEMU's exit code is 0 for nearly all.
    """

    guest: bool = False
    reason: str = ""


class Powerdown(_Event, frozen=True, kw_only=True, tag="POWERDOWN"):
    """The power button was pressed for the guest. It may ignore it."""


class Reset(_Event, frozen=True, kw_only=True, tag="RESET"):
    """The machine was reset, by the guest or by the host (``system_reset``)."""

    guest: bool = False
    reason: str = ""


class Stop(_Event, frozen=True, kw_only=True, tag="STOP"):
    """The virtual CPUs stand still."""


class Resume(_Event, frozen=True, kw_only=True, tag="RESUME"):
    """The virtual CPUs run."""


class Suspend(_Event, frozen=True, kw_only=True, tag="SUSPEND"):
    """The guest went to sleep (S3); it is woken by a device or ``system_wakeup``."""


class SuspendDisk(_Event, frozen=True, kw_only=True, tag="SUSPEND_DISK"):
    """The guest hibernated (S4); a shutdown follows."""


class Wakeup(_Event, frozen=True, kw_only=True, tag="WAKEUP"):
    """The guest woke up from S3."""


class GuestPanicked(_Event, frozen=True, kw_only=True, tag="GUEST_PANICKED"):
    """The guest's kernel said through pvpanic (or Hyper-V's crash registers) that it panicked.

    :param action: what QEMU does about it: ``pause``, ``poweroff``, ``run`` ...
    """

    action: str = ""
    info: dict[str, object] | None = None


class GuestCrashloaded(_Event, frozen=True, kw_only=True, tag="GUEST_CRASHLOADED"):
    """The guest panicked and runs its crash kernel."""

    action: str = ""
    info: dict[str, object] | None = None


class Watchdog(_Event, frozen=True, kw_only=True, tag="WATCHDOG"):
    """The watchdog's timer expired; ``action`` is what QEMU does about it."""

    action: str


class DeviceDeleted(_Event, frozen=True, kw_only=True, tag="DEVICE_DELETED"):
    """A device is gone. One unplug can give several of these; only the device that was named has ``device``."""

    device: str | None = None
    path: str


class DeviceUnplugGuestError(_Event, frozen=True, kw_only=True, tag="DEVICE_UNPLUG_GUEST_ERROR"):
    """The guest refused to give a device back."""

    device: str | None = None
    path: str


class BlockIoError(_Event, frozen=True, kw_only=True, tag="BLOCK_IO_ERROR"):
    """A disk's backend failed. ``device`` is empty for nodes made by ``-blockdev``: look at ``node_name``.

    :param action: ``ignore``, ``report`` or ``stop`` (then a `Stop` follows).
    :param nospace: whether the cause is a full disk.
    """

    device: str = ""
    node_name: str | None = None
    operation: str = ""
    action: str
    nospace: bool = False
    reason: str = ""


class VserportChange(_Event, frozen=True, kw_only=True, tag="VSERPORT_CHANGE"):
    """Somebody in the guest opened or closed a virtio-serial port: the agent came or went."""

    id: str
    open: bool


class BalloonChange(_Event, frozen=True, kw_only=True, tag="BALLOON_CHANGE"):
    """The guest's memory, balloon taken off, in bytes."""

    actual: int


class NicRxFilterChanged(_Event, frozen=True, kw_only=True, tag="NIC_RX_FILTER_CHANGED"):
    """The guest changed a NIC's addresses. Not sent again until ``query-rx-filter`` was called."""

    name: str | None = None
    path: str


class RtcChange(_Event, frozen=True, kw_only=True, tag="RTC_CHANGE"):
    """The guest set its clock; ``offset`` in seconds against the clock it was given."""

    offset: int


class JobStatusChange(_Event, frozen=True, kw_only=True, tag="JOB_STATUS_CHANGE"):
    """A background job moved on (``created``, ``running``, ``concluded`` ...)."""

    id: str
    status: str


class BlockJobCompleted(_Event, frozen=True, kw_only=True, tag="BLOCK_JOB_COMPLETED"):
    """A block job ended, well unless there is an ``error``."""

    type: str
    device: str
    error: str | None = None


class Migration(_Event, frozen=True, kw_only=True, tag="MIGRATION"):
    """Migration's state."""

    status: str


Known = (
    Shutdown
    | Powerdown
    | Reset
    | Stop
    | Resume
    | Suspend
    | SuspendDisk
    | Wakeup
    | GuestPanicked
    | GuestCrashloaded
    | Watchdog
    | DeviceDeleted
    | DeviceUnplugGuestError
    | BlockIoError
    | VserportChange
    | BalloonChange
    | NicRxFilterChanged
    | RtcChange
    | JobStatusChange
    | BlockJobCompleted
    | Migration
)


class Unknown(msgspec.Struct, frozen=True, kw_only=True):
    """An event that we have no type for, or one of a known name whose data is not what it should be."""

    name: str
    data: object = None


Event = Known | Unknown

#: Events that change what the machine is doing: lost last when a listener is slow (`backlog`).
STATE: Final = (
    Reset,
    Stop,
    Resume,
    Suspend,
    SuspendDisk,
    Wakeup,
    Powerdown,
    Watchdog,
    DeviceDeleted,
    BlockIoError,
)
#: Events that say how the guest ended: never given up for another event.
TERMINAL: Final = (Shutdown, GuestPanicked)


def decode_event(message: Mapping[str, object]) -> Event:
    """The event in a QMP message ``{"event": name, "data": {...}, ...}``. Total: the strangest message gives `Unknown`."""
    name = message.get("event")
    data = message.get("data")
    if not isinstance(name, str):
        return Unknown(name=repr(name), data=data)
    if data is not None and not isinstance(data, dict):
        return Unknown(name=name, data=data)
    try:
        event: Event = msgspec.convert({**(data or {}), "event": name}, Known)
    except (msgspec.ValidationError, RecursionError):
        return Unknown(name=name, data=data)
    return event
