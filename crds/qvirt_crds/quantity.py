"""Kubernetes quantities, exactly: ``64M`` is 64,000,000 and ``64Mi`` is 67,108,864.

Grammar and rounding from the Kubernetes API machinery's resource.Quantity: a signed decimal number and one of
``n u m "" k M G T P E``, ``Ki Mi Gi Ti Pi Ei`` or a decimal exponent. Fractions are kept exact (no floats).
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

#: As manifests write it; numbers are allowed (``memory: 67108864``).
Quantity = str | int | float

_NUMBER: Final = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(.*)", re.DOTALL)
_EXPONENT: Final = re.compile(r"[eE]([+-]?[0-9]{1,3})")
_SUFFIX: Final[dict[str, Fraction]] = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 10**3),
    "": Fraction(1),
    **{s: Fraction(1000**i) for i, s in enumerate("kMGTPE", start=1)},
    **{f"{s}i": Fraction(1024**i) for i, s in enumerate("KMGTPE", start=1)},
}


def parse_quantity(text: Quantity) -> Fraction:
    """The exact value of a Kubernetes quantity, in its base unit (bytes, cores).

    >>> parse_quantity("64M"), parse_quantity("64Mi"), parse_quantity("1500m")
    (Fraction(64000000, 1), Fraction(67108864, 1), Fraction(3, 2))

    :raise ValueError: not a quantity; the message says what is expected.
    """
    match = _NUMBER.fullmatch(str(text))
    if match is None:
        raise ValueError(_expected(text))
    number, suffix = match.groups()
    factor = _SUFFIX.get(suffix)
    if factor is None:
        exponent = _EXPONENT.fullmatch(suffix)
        if exponent is None:
            raise ValueError(_expected(text))
        factor = Fraction(10) ** int(exponent.group(1))
    return Fraction(number) * factor


def parse_bytes(text: Quantity) -> int:
    """A quantity as whole bytes, rounded up as Kubernetes' ``Value()`` does.

    :raise ValueError: not a quantity.
    """
    value = parse_quantity(text)
    return -(-value.numerator // value.denominator)


def _expected(text: Quantity) -> str:
    return f"{text!r} is not a quantity: write a number with a unit, like 64M (64,000,000) or 64Mi (67,108,864)"
