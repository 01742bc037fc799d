"""qvirt's version, in one place: an image has our packages without the installer's metadata."""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"
