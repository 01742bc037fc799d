"""Go's durations, as Kubernetes writes them in JSON: ``5m0s``, ``1.5h``, ``-3ms`` (time.ParseDuration)."""

from __future__ import annotations

import re
from typing import Final

_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_WHOLE: Final = re.compile(rf"[-+]?(0|({_PART.pattern})+)")


def seconds(text: str) -> float:
    """How long it is.

    :raises ValueError: it is no duration.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r} is no duration like 5m or 1h30m")
    total = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    return -total if text.startswith("-") else total
