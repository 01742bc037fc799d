"""What a launcher gives back while nothing happens, which is nearly always: the pages of programs and libraries.

They are pages of files, mapped but not changed. The kernel could take them itself, and does when memory is short; until then
they count as in use, for the kubelet too. They are there again at the first touch (docs/adr/0007 has what this is worth).
"""

from __future__ import annotations

import gc
import logging
import re
import selectors
from collections.abc import Iterator
from typing import Final

from qvirt_launcher import native

_log = logging.getLogger(__name__)

#: Seconds in which nothing happens, before it is taken for rest.
QUIET: Final = 20.0
_SMAPS: Final = "/proc/self/smaps"
#: First line of a mapping (proc(5)): addresses, permissions, offset, device, inode, path; then fields, a line each.
_MAPPING: Final = re.compile(
    r"^([0-9a-f]+)-([0-9a-f]+) (r-[x-]p) [0-9a-f]+ \S+ [1-9]\d* +/.*\n((?:[A-Z]\w+: .*\n)+)", re.M
)
#: A mapping that has none but its file's pages. (Relocated data is read-only as well, and is not its file's any more.)
_UNCHANGED: Final = re.compile(r"^Anonymous: +0 kB$", re.M)


class Selector(selectors.EpollSelector):
    """asyncio's, which knows when there is nothing to do: pages are given back before a long wait, once in each."""

    def __init__(self) -> None:
        super().__init__()
        self._rested = False

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As its base's."""
        if timeout is not None and timeout <= QUIET:
            return super().select(timeout)
        events = super().select(QUIET)
        if events:
            return events
        if not self._rested:
            # What was made while starting lives as long as we do; no collection need look through it again.
            self._rested = True
            gc.collect()
            gc.freeze()
        give_back()
        return super().select(None if timeout is None else timeout - QUIET)


def give_back() -> None:
    """Let go of all unchanged pages; never fails, as nothing depends on it."""
    try:
        with open(_SMAPS, encoding="utf-8", errors="replace") as file:
            text = file.read()
        # The interpreter itself lies lowest and goes last: what runs after that comes back at once.
        for start, length in sorted(unchanged(text), reverse=True):
            native.give_back(start, length)
    except OSError as error:
        _log.debug("pages of files are kept: %s", error)


def unchanged(smaps: str) -> Iterator[tuple[int, int]]:
    """Start and length of the mappings in a text of proc(5)'s form that are files' and as the files have them. Pure."""
    for start, end, _, fields in _MAPPING.findall(smaps):
        if _UNCHANGED.search(fields):
            yield int(start, 16), int(end, 16) - int(start, 16)
