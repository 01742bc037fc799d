"""Which of QEMU's commands a client may send. Pure."""

from __future__ import annotations

from typing import Literal

Grade = Literal["read", "operate", "admin"]
