"""What an option's value must be."""

from __future__ import annotations

from typing import Literal, NamedTuple


def seconds(text: str) -> float:
    """A positive number.

    :raise ValueError: something else.
    """
    value = float(text)
    if not 0 < value < 1e9:
        raise ValueError
    return value


def whole_seconds(text: str) -> int:
    """A number of seconds, 0 among them.

    :raise ValueError: something else.
    """
    value = int(text)
    if not 0 <= value < 10**9:
        raise ValueError
    return value


def port(text: str) -> int:
    """A TCP or UDP port.

    :raise ValueError: something else.
    """
    value = int(text)
    if not 0 < value < 65536:
        raise ValueError
    return value


class Forward(NamedTuple):
    """A port of this machine (0: any free one) for one of the guest."""

    here: int
    guest: int
    protocol: Literal["tcp", "udp"] = "tcp"


def forward(text: str) -> Forward:
    """``[udp/]HERE[:GUEST]``; HERE alone is the same on both sides.

    :raise ValueError: something else.
    """
    protocol, slash, ports = text.rpartition("/")
    here, colon, guest = ports.partition(":")
    if slash and protocol not in ("tcp", "udp"):
        raise ValueError
    return Forward(
        here=0 if here in ("", "0") and colon else port(here),
        guest=port(guest if colon else here),
        protocol="udp" if protocol == "udp" else "tcp",
    )


# argparse names the type in its message: "invalid seconds value: 'x'".
whole_seconds.__name__ = "seconds"
