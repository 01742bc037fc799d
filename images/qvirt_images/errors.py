"""What can go wrong in a build; every message says what failed and what to do about it."""

from __future__ import annotations


class BuildError(Exception):
    """A build that can't go on; the message is for the user and complete."""
