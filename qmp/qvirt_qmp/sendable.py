"""What QEMU's JSON parser would choke on. Pure.

QEMU answers a message that it can't parse with an error that has no ``id``: nobody can tell whose command it was, and
that command is never answered. So such a message must not be sent, least of all on a monitor that many clients share.
Tried against QEMU 7.2: Unicode noncharacters and lone surrogates are refused in any string, and NaN and infinities are
no JSON at all; NUL, nesting below 1024 and integers of any length are fine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

#: As deep as our own server lets a message be; far from QEMU's 1024.
DEEPEST: Final = 256


def objection(value: object, depth: int = 0) -> str | None:
    """Why ``value`` can't be part of a message to QEMU; None: it can."""
    if isinstance(value, str):
        return "a string holds a character that QEMU refuses" if _unparsable(value) else None
    if isinstance(value, float):
        return None if math.isfinite(value) else "a number is not finite"
    if depth > DEEPEST:
        return f"nested deeper than {DEEPEST}"
    if isinstance(value, Mapping):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple)):
        parts = [*value]
    else:
        return None
    return next((why for part in parts if (why := objection(part, depth + 1))), None)


def _unparsable(text: str) -> bool:
    """Surrogates, U+FDD0..U+FDEF, and the last two code points of each plane. (A pattern of them would take 200 KiB.)"""
    return not text.isascii() and any(
        0xD800 <= code <= 0xDFFF or 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
        for code in map(ord, text)
    )
