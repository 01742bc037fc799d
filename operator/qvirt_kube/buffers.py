"""How much asyncio sets aside for a connection."""

from __future__ import annotations

from asyncio import selector_events, sslproto
from typing import Final

#: Bytes that are read at once: less than what malloc takes from the kernel for itself (`MALLOC_MMAP_THRESHOLD_` of the operator's
#: image). Half as much costs a forwarded port a fifth of its speed.
SIZE: Final = 120 * 1024


def shrink() -> None:
    """Have every connection from now on read by `SIZE` bytes.

    asyncio has 256 KiB (3.11 to 3.13): a TLS connection keeps such a buffer for as long as it lives, and every read begins with
    another one, which malloc takes from the kernel and gives back each time; page faults then cost more than the copying.
    """
    sslproto.SSLProtocol.max_size = SIZE
    selector_events._SelectorTransport.max_size = SIZE  # type: ignore[attr-defined]
