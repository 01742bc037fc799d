"""What can keep a measurement from being made; every message says what to do about it."""

from __future__ import annotations


class BenchError(Exception):
    """A measurement that can't be made here; the message is for the user and complete."""


def first(error: BaseException) -> BaseException:
    """What went wrong first, of a group in groups; an error by itself is it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
