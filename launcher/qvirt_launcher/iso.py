"""Small ISO 9660 discs with Joliet and Rock Ridge names: the door to pycdlib, loaded in the worker only.

pycdlib rather than xorriso: an image with a launcher in it then needs no other program for this, and the names are ours.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from typing import Final

import pycdlib
from pycdlib.pycdlibexception import PyCdlibException

from qvirt_launcher.errors import PrepareError

_JOLIET_LEVEL: Final = 3
_ROCK_RIDGE: Final = "1.09"
_INTERCHANGE_LEVEL: Final = 3


def write(path: str, volume_id: str, files: Mapping[str, bytes]) -> None:
    """Write a disc with these files (path in it, without a leading slash -> content), mode 0600, under its name only when complete.

    :raise PrepareError: it can't be made or written.
    """
    unfinished = f"{path}.new"
    try:
        data = image(volume_id, files)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(unfinished, flags, 0o600), "wb") as file:
            file.write(data)
        os.rename(unfinished, path)
    except PyCdlibException as error:
        raise PrepareError(f"{path} can't be made: {error}") from error
    except OSError as error:
        raise PrepareError(f"{path} can't be written: {error.strerror}") from error


def image(volume_id: str, files: Mapping[str, bytes]) -> bytes:
    """The disc's bytes."""
    disc = pycdlib.PyCdlib()
    disc.new(
        interchange_level=_INTERCHANGE_LEVEL,
        vol_ident=volume_id,
        joliet=_JOLIET_LEVEL,
        rock_ridge=_ROCK_RIDGE,
    )
    plain = {"": ""}
    for name in sorted(files):
        parts = name.split("/")
        for depth in range(1, len(parts)):
            _add_directory(disc, plain, parts[:depth])
        _add_file(disc, plain, parts, files[name])
    out = io.BytesIO()
    disc.write_fp(out)
    disc.close()
    return out.getvalue()


def _add_directory(disc: pycdlib.PyCdlib, plain: dict[str, str], parts: list[str]) -> None:
    name = "/".join(parts)
    if name in plain:
        return
    plain[name] = f"{plain['/'.join(parts[:-1])]}/D{len(plain)}"
    disc.add_directory(plain[name], rr_name=parts[-1], joliet_path=f"/{name}")


def _add_file(disc: pycdlib.PyCdlib, plain: dict[str, str], parts: list[str], data: bytes) -> None:
    # ISO 9660's own names are numbers; every reader of a seed prefers one of the other two, where the real names are.
    name = "/".join(parts)
    plain[name] = f"{plain['/'.join(parts[:-1])]}/F{len(plain)}"
    disc.add_fp(
        io.BytesIO(data),
        len(data),
        f"{plain[name]}.;1",
        rr_name=parts[-1],
        joliet_path=f"/{name}",
    )


# Python loads codecs when they are first used, and after privileges are dropped it can't: use them now.
image("warm", {"folder/name": b""})
