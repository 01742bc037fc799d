"""The worker: a short-lived child that makes disks, tries KVM and renders the command line, so that the launcher stays small.

It is split off (`forked`) before it is needed, while the launcher may still have privileges and Python's files can be read; it
imports everything, beside the launcher, becomes the ordinary user, and then waits on its standard input, a socket, for one
`job.Request`. It ends with its answer, or when the launcher ends.
"""

from __future__ import annotations

import logging
import socket
import sys
from typing import Final

import msgspec
from msgspec.structs import replace

from qvirt_crds.errors import QvirtError
from qvirt_crds.model import Model
from qvirt_crds.sync import SyncArguments
from qvirt_launcher import accel, access, host, podvolumes, privileges
from qvirt_launcher.disks import plan_disks
from qvirt_launcher.facts import QEMU_BINARY
from qvirt_launcher.job import Answer, Birth, NotReady, QmpCommand, Ready
from qvirt_launcher.machine import build_machine
from qvirt_launcher.prepare import carry_out, make
from qvirt_launcher.render import render

_log = logging.getLogger(__name__)

#: From the first byte of a request to its last, in seconds.
_REQUEST_SECONDS: Final = 10.0
_LONGEST_REQUEST: Final = 16 << 20


class Order(Model, frozen=True, kw_only=True):
    """`job.Request` with its contents."""

    sync: SyncArguments
    #: In a pod the volumes are looked for where the kubelet put them (`podvolumes`); what came with vm-sync isn't used.
    pod: bool = False
    #: Where QEMU makes its sockets.
    run_dir: str
    #: Where images are made that vanish with the guest.
    disk_dir: str


#: Made when this is imported, as all that decoding needs is looked up then.
_ORDERS: Final[msgspec.json.Decoder[Order]] = msgspec.json.Decoder(Order)


def main(birth: Birth) -> None:
    """Serve one request on descriptor 0."""
    logging.basicConfig(format="virt-launcher worker: %(message)s", stream=sys.stderr, force=True)
    memory = accel.open_memory(birth.cache_dir) if birth.cache_dir else None
    privileges.drop(birth.user)
    with socket.socket(fileno=0) as sock:
        text = _receive(sock)
        if text:
            sock.sendall(msgspec.json.encode(_answer(text, memory)))


def prepare(order: Order, memory: int | None) -> Ready:
    """Make what the guest needs.

    :param memory: descriptor of what is remembered about KVM, or None.
    :raise QvirtError: it can't be made; the message is for the user.
    """
    sync = order.sync
    accelerator, why = accel.choose(sync.accel, lambda: accel.try_kvm_once(QEMU_BINARY, memory))
    if order.pod:
        found = podvolumes.find(sync.vmi, order.disk_dir)
        sync = replace(sync, volumes=found.volumes, kernel=found.kernel)
    plan = carry_out(plan_disks(sync.vmi, sync.volumes, order.disk_dir))
    facts = host.gather_host_facts(
        sync.vmi,
        accel=accelerator,
        run_dir=order.run_dir,
        attachments=sync.attachments,
        backings=plan.backings,
        kernel=sync.kernel,
    )
    machine = build_machine(sync.vmi, facts)
    for step in machine.steps:
        make(step)
    return Ready(
        argv=render(machine),
        accel=accelerator,
        accel_message=why,
        commands=tuple(
            QmpCommand(execute=command.execute, arguments=dict(command.arguments))
            for command in machine.commands
        ),
        notes=machine.notes,
        made=tuple(step.path for step in (*plan.steps, *machine.steps)),
        credentials=access.by_agent(sync.vmi, sync.volumes),
    )


def _answer(text: bytes, memory: int | None) -> Answer:
    try:
        return prepare(_ORDERS.decode(text), memory)
    except msgspec.ValidationError as error:
        return NotReady(reason="Invalid", message=f"the VM's object can't be understood: {error}")
    except QvirtError as error:
        return NotReady(reason=error.reason, message=str(error))
    except Exception as error:  # noqa: BLE001  a bug becomes an answer, with its traceback in the log
        _log.exception("this is a bug")
        return NotReady(
            reason="InternalError",
            message=f"internal error while preparing ({type(error).__name__}: {error}); the log has the rest",
        )


def _receive(sock: socket.socket) -> bytes:
    """The request; empty when the launcher has ended, or stopped in the middle."""
    received = bytearray()
    sock.settimeout(None)  # there may be none for as long as the launcher waits for its guest
    try:
        while chunk := sock.recv(1 << 16):
            received += chunk
            sock.settimeout(_REQUEST_SECONDS)
            if len(received) > _LONGEST_REQUEST:
                return b""
    except OSError as error:
        _log.warning("the request did not arrive whole: %s", error)
        return b""
    sock.settimeout(None)
    return bytes(received)
