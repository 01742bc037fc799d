"""The packet socket on which the launcher answers DHCP, DHCPv6 and router solicitations.

Opened while we have CAP_NET_RAW; afterwards the descriptor alone is enough. The attached filter (classic BPF, locked so that the
holder can't replace it) lets through only what a guest asks of such a server, so the launcher can neither read other traffic
of its guest nor forge any beyond the guest's own wire: what is sent here leaves through the tap, towards the guest.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct

from qvirt_netsetup.errors import from_errno

_SO_ATTACH_FILTER = 26
_SO_LOCK_FILTER = 44
_SOL_PACKET = 263
_PACKET_IGNORE_OUTGOING = 23
#: A port of a bridge (or the source of a tc redirect) shows its frames only to listeners for all protocols.
_ETH_P_ALL = 0x0003

_LDH, _LDB, _LDXB, _LDH_IND = 0x28, 0x30, 0xB1, 0x48
_JEQ, _JSET, _RET = 0x15, 0x45, 0x06

#: Opcode, offset when true, offset when false, operand. Accepts
#: IPv4 UDP to port 67 (no later fragments), IPv6 UDP to port 547, and ICMPv6 router solicitations (type 133).
_PROGRAM: tuple[tuple[int, int, int, int], ...] = (
    (_LDH, 0, 0, 12),  # 0: ethertype
    (_JEQ, 0, 7, 0x0800),  # 1: not IPv4 -> 9
    (_LDB, 0, 0, 23),
    (_JEQ, 0, 14, 17),  # 3: not UDP -> 18
    (_LDH, 0, 0, 20),
    (_JSET, 12, 0, 0x1FFF),  # 5: a later fragment -> 18
    (_LDXB, 0, 0, 14),  # 6: length of the IP header
    (_LDH_IND, 0, 0, 16),
    (_JEQ, 8, 9, 67),  # 8: -> 17 or 18
    (_JEQ, 0, 8, 0x86DD),  # 9: not IPv6 either -> 18
    (_LDB, 0, 0, 20),
    (_JEQ, 0, 2, 17),  # 11: not UDP -> 14
    (_LDH, 0, 0, 56),
    (_JEQ, 3, 4, 547),  # 13: -> 17 or 18
    (_JEQ, 0, 3, 58),  # 14: not ICMPv6 -> 18
    (_LDB, 0, 0, 54),
    (_JEQ, 0, 1, 133),  # 16: -> 17 or 18
    (_RET, 0, 0, 0xFFFF),  # 17: accept
    (_RET, 0, 0, 0),  # 18: drop
)


def open_dhcp(link: str) -> int:
    """A packet socket on `link` (a tap) that sees nothing but its guest's DHCP, DHCPv6 and router solicitations.

    :return: the descriptor, non-blocking and close-on-exec.
    :raises NotPermitted: CAP_NET_RAW is missing.
    :raises KernelRefused: there is no such link.
    """
    # Protocol 0: nothing arrives before filter and bind are in place.
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    except OSError as error:
        raise from_errno(f"packet socket on {link}", error.errno or errno.EIO) from error
    try:
        code = b"".join(struct.pack("HBBI", *step) for step in _PROGRAM)
        buffer = ctypes.create_string_buffer(code)
        program = struct.pack("HL", len(_PROGRAM), ctypes.addressof(buffer))
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        sock.setsockopt(socket.SOL_SOCKET, _SO_LOCK_FILTER, 1)
        sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        sock.bind((link, _ETH_P_ALL))
    except OSError as error:
        sock.close()
        raise from_errno(f"packet socket on {link}", error.errno or errno.EIO) from error
    return sock.detach()
