"""The last bytes of a stream, in bounded memory."""

from __future__ import annotations

from collections import deque


class Ring:
    """Keeps ``size`` bytes of what is added."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._chunks: deque[bytes] = deque()
        self._held = 0

    def add(self, chunk: bytes) -> None:
        """Keep a chunk, and give up what is too old."""
        self._chunks.append(chunk)
        self._held += len(chunk)
        while self._held - len(self._chunks[0]) >= self._size:
            self._held -= len(self._chunks.popleft())

    def content(self) -> bytes:
        """What is kept."""
        return b"".join(self._chunks)[-self._size :]
