"""Ethernet, IPv4, IPv6 and UDP: as much as a DHCP server needs. Pure; no bytes make it raise.

Checksums of what arrives are not looked at: a guest with checksum offload leaves them unfinished on a tap. Those
of what is sent are complete.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final, NamedTuple

ETHERTYPE4: Final = 0x0800
ETHERTYPE6: Final = 0x86DD
UDP: Final = 17
ICMPV6: Final = 58
BROADCAST: Final = b"\xff" * 6
#: Sender of our frames; locally administered, the same for all guests, each of which sees only its own wire.
SERVER_MAC: Final = bytes.fromhex("027176697274")


class Datagram(NamedTuple):
    """A UDP datagram or ICMPv6 message that arrived. Ports are 0 for ICMPv6; addresses are packed."""

    mac: bytes
    source: bytes
    destination: bytes
    protocol: int
    source_port: int
    destination_port: int
    payload: bytes


def _udp(mac: bytes, source: bytes, destination: bytes, body: bytes) -> Datagram | None:
    if len(body) < 8:
        return None
    sport, dport, length, _ = struct.unpack_from("!HHHH", body)
    if not 8 <= length <= len(body):
        return None
    return Datagram(mac, source, destination, UDP, sport, dport, body[8:length])


def _parse4(mac: bytes, packet: bytes) -> Datagram | None:
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    header = (packet[0] & 15) * 4
    total, _, fragment = struct.unpack_from("!HHH", packet, 2)
    # Fragments are never put together: no DHCP client sends any.
    if header < 20 or not header <= total <= len(packet) or fragment & 0x3FFF or packet[9] != UDP:
        return None
    return _udp(mac, packet[12:16], packet[16:20], packet[header:total])


def _parse6(mac: bytes, packet: bytes) -> Datagram | None:
    if len(packet) < 40 or packet[0] >> 4 != 6:
        return None
    (length,) = struct.unpack_from("!H", packet, 4)
    body = packet[40 : 40 + length]
    if len(body) != length:
        return None
    source, destination = packet[8:24], packet[24:40]
    if packet[6] == UDP:
        return _udp(mac, source, destination, body)
    # Neighbour discovery that went through a router is forged (RFC 4861, 6.1.1).
    if packet[6] == ICMPV6 and packet[7] == 255:
        return Datagram(mac, source, destination, ICMPV6, 0, 0, body)
    return None


def parse(frame: bytes) -> Datagram | None:
    """What a frame carries; None: nothing for us, or damaged."""
    if len(frame) < 14:
        return None
    (ethertype,) = struct.unpack_from("!H", frame, 12)
    mac = frame[6:12]
    if ethertype == ETHERTYPE4:
        return _parse4(mac, frame[14:])
    if ethertype == ETHERTYPE6:
        return _parse6(mac, frame[14:])
    return None


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _pseudo(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    if len(source) == 4:
        return source + destination + struct.pack("!BBH", 0, protocol, length)
    return source + destination + struct.pack("!IHBB", length, 0, 0, protocol)


def udp(source: bytes, destination: bytes, sport: int, dport: int, payload: bytes) -> bytes:
    """A UDP datagram with its checksum, between packed addresses of one family."""
    length = 8 + len(payload)
    header = struct.pack("!HHH", sport, dport, length)
    pseudo = _pseudo(source, destination, UDP, length)
    total = checksum(pseudo + header + b"\0\0" + payload) or 0xFFFF
    return header + struct.pack("!H", total) + payload


def icmpv6(source: bytes, destination: bytes, message: bytes) -> bytes:
    """An ICMPv6 message with its checksum filled in at offset 2."""
    pseudo = _pseudo(source, destination, ICMPV6, len(message))
    total = checksum(pseudo + message[:2] + b"\0\0" + message[4:])
    return message[:2] + struct.pack("!H", total) + message[4:]


def ethernet4(mac: bytes, source: bytes, destination: bytes, body: bytes) -> bytes:
    """A whole frame with a UDP datagram in IPv4."""
    start = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(body), 0, 0x4000, 64, UDP)
    total = checksum(start + b"\0\0" + source + destination)
    header = start + struct.pack("!H", total) + source + destination
    return mac + SERVER_MAC + struct.pack("!H", ETHERTYPE4) + header + body


def ethernet6(mac: bytes, source: bytes, destination: bytes, protocol: int, body: bytes) -> bytes:
    """A whole frame with a message in IPv6; hop limit 255, as neighbour discovery wants it."""
    header = struct.pack("!IHBB", 6 << 28, len(body), protocol, 255) + source + destination
    return mac + SERVER_MAC + struct.pack("!H", ETHERTYPE6) + header + body


def mac_bytes(text: str) -> bytes:
    """``02:00:00:00:00:01`` as six bytes."""
    return bytes.fromhex(text.replace(":", "").replace("-", ""))


def link_local(mac: bytes) -> bytes:
    """The packed link-local IPv6 address made of a MAC (RFC 4291, appendix A)."""
    return b"\xfe\x80" + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:6]


def packed(address: str) -> bytes:
    """An address, with or without prefix length, as bytes.

    :raises ValueError: it isn't one.
    """
    return ipaddress.ip_address(address.partition("/")[0]).packed


def domain(name: str) -> bytes:
    """A domain name as labels (RFC 1035, 3.1); empty: it can't be written so."""
    try:
        labels = [label.encode("ascii") for label in name.strip(".").split(".")]
    except UnicodeEncodeError:
        return b""
    if any(not 0 < len(label) < 64 for label in labels):
        return b""
    encoded = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return encoded if len(encoded) <= 255 else b""
