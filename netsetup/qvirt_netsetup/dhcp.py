"""The responder that the launcher runs on the packet socket of each of its guest's interfaces.

Imports nothing but the standard library, msgspec and the contract: it lives as long as the VM. The socket's filter
(`qvirt_netsetup.packet`) lets through only what is answered here; whatever a guest sends, nothing raises.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final, Literal

from qvirt_crds.model import Model
from qvirt_crds.report import Lease
from qvirt_netsetup import dhcp4, dhcp6, frames, ra

_log = logging.getLogger(__name__)

#: Frames answered before other tasks get their turn: a flooding guest slows down nobody but itself.
_BATCH: Final = 16
_FRAME: Final = 65536
#: Seconds between unsolicited advertisements; guests forget a router after `ra.ROUTER_LIFETIME`, five times as long.
_ADVERTISE_EVERY: Final = ra.ROUTER_LIFETIME / 5


class LeaseEvent(Model, frozen=True, kw_only=True):
    """The guest took, renewed, gave back or rejected its address."""

    mac: str
    protocol: Literal["dhcp4", "dhcp6"]
    #: Without prefix length.
    address: str
    leased: bool


class Answer(Model, frozen=True, kw_only=True):
    """Frames to send, and what they mean for the lease."""

    frames: tuple[bytes, ...] = ()
    event: LeaseEvent | None = None


def _event(lease: Lease, protocol: Literal["dhcp4", "dhcp6"], *, leased: bool) -> LeaseEvent:
    address = lease.address if protocol == "dhcp4" else lease.address6
    return LeaseEvent(
        mac=lease.mac, protocol=protocol, address=address.partition("/")[0], leased=leased
    )


def _answer4(datagram: frames.Datagram, lease: Lease) -> Answer:
    request = dhcp4.decode(datagram.payload)
    own = request is not None and request.chaddr == frames.mac_bytes(lease.mac)
    if request is not None and own and request.type in (dhcp4.RELEASE, dhcp4.DECLINE):
        return Answer(event=_event(lease, "dhcp4", leased=False))
    reply = dhcp4.answer(datagram.payload, lease)
    if reply is None:
        return Answer()
    taken = request is not None and request.type == dhcp4.REQUEST and reply.type == dhcp4.ACK
    event = _event(lease, "dhcp4", leased=True) if taken else None
    return Answer(frames=(dhcp4.frame(reply, lease),), event=event)


def _answer6(datagram: frames.Datagram, lease: Lease) -> Answer:
    answered = dhcp6.answer(datagram.payload, lease)
    if answered is None:
        return Answer()
    request, reply = answered
    frame = dhcp6.frame(reply, lease, mac=datagram.mac, target=datagram.source)
    event = None
    if request.type in (dhcp6.RELEASE, dhcp6.DECLINE):
        event = _event(lease, "dhcp6", leased=False)
    elif reply.type == dhcp6.REPLY and reply.first(dhcp6.IA_NA) is not None:
        event = _event(lease, "dhcp6", leased=True)
    return Answer(frames=(frame,), event=event)


def respond(frame: bytes, lease: Lease) -> Answer:
    """The answer to one frame of the guest. Pure; frames that deserve none get an empty answer."""
    datagram = frames.parse(frame)
    if datagram is None:
        return Answer()
    if len(datagram.source) == 4:
        if datagram.destination_port != dhcp4.SERVER_PORT or not lease.address:
            return Answer()
        return _answer4(datagram, lease)
    # DHCPv6 and solicitations carry no hardware address that had to be true: the frame's sender is what counts.
    if not lease.address6 or datagram.mac != frames.mac_bytes(lease.mac):
        return Answer()
    if datagram.protocol == frames.ICMPV6:
        if not ra.is_solicitation(datagram.payload):
            return Answer()
        return Answer(frames=(ra.frame(lease, mac=datagram.mac, target=datagram.source),))
    if datagram.destination_port != dhcp6.SERVER_PORT:
        return Answer()
    return _answer6(datagram, lease)


def _ignore(_: LeaseEvent) -> None:
    pass


class Responder:
    """Answers one guest's DHCP, DHCPv6 and router solicitations.

    :param fd: the packet socket (`Attachment.dhcp_fd`); it belongs to the responder from now on.
    :param lease: what the guest is told.
    :param on_lease: called in the loop whenever the guest takes or gives up its address.
    """

    def __init__(
        self, fd: int, lease: Lease, *, on_lease: Callable[[LeaseEvent], None] = _ignore
    ) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._lease = lease
        self._on_lease = on_lease
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to answer, and to repeat router advertisements when the lease has IPv6."""
        self._loop = loop
        loop.add_reader(self._socket.fileno(), self._readable)
        if self._lease.address6:
            self._timer = loop.call_later(_ADVERTISE_EVERY, self._advertise)

    def close(self) -> None:
        """Stop, and close the socket. Closing twice is fine."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._loop = None
        self._socket.close()

    def _readable(self) -> None:
        for _ in range(_BATCH):
            try:
                frame = self._socket.recv(_FRAME)
            except BlockingIOError:
                return
            except OSError as error:  # once, when the tap goes down or away
                _log.debug("DHCP for %s: %s", self._lease.mac, error)
                return
            answer = respond(frame, self._lease)
            for reply in answer.frames:
                self._send(reply)
            if answer.event is not None:
                self._on_lease(answer.event)

    def _advertise(self) -> None:
        self._send(ra.frame(self._lease))
        if self._loop is not None:
            self._timer = self._loop.call_later(_ADVERTISE_EVERY, self._advertise)

    def _send(self, frame: bytes) -> None:
        try:
            self._socket.send(frame)
        except OSError as error:  # the guest asks again
            _log.debug("DHCP for %s: not sent: %s", self._lease.mac, error)
