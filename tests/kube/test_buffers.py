"""How much a connection reads at once."""

from __future__ import annotations

import asyncio
import socket
from asyncio import selector_events, sslproto

import pytest

from qvirt_kube import buffers


class Taking(asyncio.Protocol):
    """Notes how much came at a time."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.sizes.append(len(data))

    def connection_lost(self, _exc: Exception | None) -> None:
        self.ended.set()


async def test_what_waits_is_read_in_pieces_that_malloc_keeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for kind in (sslproto.SSLProtocol, selector_events._SelectorTransport):  # type: ignore[attr-defined]
        monkeypatch.setattr(kind, "max_size", kind.max_size)
    buffers.shrink()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    sent = theirs.send(bytes(1 << 20))
    theirs.close()
    _, taking = await asyncio.get_running_loop().create_connection(Taking, sock=ours)
    async with asyncio.timeout(10):
        await taking.ended.wait()
    assert sum(taking.sizes) == sent > buffers.SIZE
    assert max(taking.sizes) == buffers.SIZE
    assert sslproto.SSLProtocol.max_size == buffers.SIZE
