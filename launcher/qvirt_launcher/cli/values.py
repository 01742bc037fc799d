"""What an option's value must be."""

from __future__ import annotations


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


# argparse names the type in its message: "invalid seconds value: 'x'".
whole_seconds.__name__ = "seconds"
