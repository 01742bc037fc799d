"""Reads a text-mode screen: the characters of a screenshot, by the font that QEMU's VGA starts with."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

_ROMS = ("/usr/share/seabios/vgabios-stdvga.bin", "/usr/share/seabios/vgabios-virtio.bin")
_HEIGHT = 16
#: How the font draws "A" and "B", which finds its table in the ROM.
_A_AND_B = bytes.fromhex("000010386cc6c6fec6c6c6c6000000000000fc6666667c66666666fc00000000")


def text(png: bytes) -> str:
    """What is written on it, a line a row; characters that the font doesn't have are left out.

    :raise AssertionError: it is no PNG that QEMU or PIL writes, or there is no ROM with a font.
    """
    width, pixels = _lightness(png)
    glyphs = _glyphs()
    # In text mode a character is 9 pixels wide, of which the font has 8.
    cell = 9 if width % 9 == 0 and width % 80 == 0 else 8
    rows = []
    for top in range(0, len(pixels) - _HEIGHT + 1, _HEIGHT):
        row = ""
        for left in range(0, width - cell + 1, cell):
            box = [pixels[top + y][left : left + 8] for y in range(_HEIGHT)]
            row += _character(box, glyphs)
        rows.append(row.rstrip())
    return "\n".join(rows)


def _character(box: list[bytes], glyphs: dict[bytes, str]) -> str:
    ground = box[0][0]
    rows = bytes(sum((pixel != ground) << (7 - x) for x, pixel in enumerate(line)) for line in box)
    return glyphs.get(rows, "")


def _glyphs() -> dict[bytes, str]:
    for path in map(Path, _ROMS):
        found = path.read_bytes().find(_A_AND_B) if path.exists() else -1
        if found >= 0:
            rom, start = path.read_bytes(), found - ord("A") * _HEIGHT
            return {
                rom[start + code * _HEIGHT : start + (code + 1) * _HEIGHT]: chr(code)
                for code in range(32, 127)
            }
    raise AssertionError(f"no font in {_ROMS}; install seabios")


def _lightness(png: bytes) -> tuple[int, list[bytes]]:
    """Width, and the lines: one byte a pixel."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n"), png[:40]
    offset, data, header = 8, b"", b""
    while offset < len(png):
        (length,) = struct.unpack_from(">I", png, offset)
        kind = png[offset + 4 : offset + 8]
        body = png[offset + 8 : offset + 8 + length]
        header = body if kind == b"IHDR" else header
        data += body if kind == b"IDAT" else b""
        offset += length + 12
    width, height, depth, colour = struct.unpack_from(">IIBB", header)
    channels = {0: 1, 2: 3, 3: 1, 6: 4}[colour]
    assert depth == 8, depth
    lines = _unfiltered(zlib.decompress(data), width * channels, height, channels)
    if channels < 3:
        return width, lines
    return width, [
        bytes(sum(line[x * channels : x * channels + 3]) // 3 for x in range(width))
        for line in lines
    ]


def _unfiltered(raw: bytes, stride: int, height: int, pixel: int) -> list[bytes]:
    lines: list[bytes] = []
    before = bytearray(stride)
    for y in range(height):
        kind = raw[y * (stride + 1)]
        line = bytearray(raw[y * (stride + 1) + 1 : (y + 1) * (stride + 1)])
        for x in range(stride if kind else 0):
            left = line[x - pixel] if x >= pixel else 0
            corner = before[x - pixel] if x >= pixel else 0
            match kind:
                case 1:
                    add = left
                case 2:
                    add = before[x]
                case 3:
                    add = (left + before[x]) // 2
                case _:
                    add = _paeth(left, before[x], corner)
            line[x] = (line[x] + add) & 255
        lines.append(bytes(line))
        before = line
    return lines


def _paeth(a: int, b: int, c: int) -> int:
    p = a + b - c
    return min((a, b, c), key=lambda value: abs(p - value))
