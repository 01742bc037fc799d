"""What can keep a measurement from being made; every message says what to do about it."""

from __future__ import annotations


class BenchError(Exception):
    """A measurement that can't be made here; the message is for the user and complete."""
