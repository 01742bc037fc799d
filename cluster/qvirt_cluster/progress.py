"""Progress lines for the one who waits, on standard error: standard output is for results."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Print one line at once."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
