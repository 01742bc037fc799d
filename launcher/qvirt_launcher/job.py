"""What the launcher asks of its worker, and what the worker answers: one JSON document each way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from qvirt_crds.model import Model
from qvirt_crds.report import Accel
from qvirt_launcher.privileges import User
from qvirt_launcher.secretfiles import Credential


class Birth(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is started with."""

    #: Whom to become; None: stay.
    user: User | None
    #: Where the verdict on KVM is remembered; empty: nowhere.
    cache_dir: str = ""


class Request(Model, frozen=True, kw_only=True):
    """Make everything that this guest needs before QEMU can start."""

    #: Arguments of ``vm-sync`` as they came: only the worker knows what is in a spec (`worker.Order`).
    sync: Mapping[str, object]
    pod: bool = False
    run_dir: str
    disk_dir: str


class QmpCommand(Model, frozen=True, kw_only=True):
    """A command for QEMU itself, to be sent before the guest runs."""

    execute: str
    arguments: dict[str, object] = {}


class Ready(Model, frozen=True, kw_only=True, tag="ready", tag_field="answer"):
    """QEMU can be started."""

    argv: tuple[str, ...]
    accel: Accel
    accel_message: str = ""
    commands: tuple[QmpCommand, ...] = ()
    #: What this host does differently from what was asked, one sentence each.
    notes: tuple[str, ...] = ()
    #: Files that were made and are to vanish with the guest.
    made: tuple[str, ...] = ()
    #: What the guest's agent is to carry into the guest.
    credentials: tuple[Credential, ...] = ()


class NotReady(Model, frozen=True, kw_only=True, tag="not-ready", tag_field="answer"):
    """It can't be done, and why."""

    reason: str
    message: str


Answer = Ready | NotReady

#: Made when this is imported, as all that decoding needs is looked up then.
ANSWERS: Final[msgspec.json.Decoder[Answer]] = msgspec.json.Decoder(Answer)
