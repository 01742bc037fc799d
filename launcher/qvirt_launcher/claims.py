"""Claims of a manifest on a machine without a cluster: files and block devices named by ``--pvc``."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final, Literal, get_args

import msgspec

from qvirt_crds.report import LocalVolume
from qvirt_launcher.account import Account, check_access
from qvirt_launcher.backing import Format
from qvirt_launcher.errors import ClaimError, HostError, UsageError

#: What a claim's file system holds, as in KubeVirt.
_DISK: Final = "disk.img"
_QCOW_MAGIC: Final = b"QFI\xfb"
_READ_ONLY: Final = "readonly"


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One ``--pvc``."""

    name: str
    path: Path
    format: Format = "raw"
    read_only: bool = False


def parse_claim(text: str) -> Claim:
    """``CLAIM=PATH[,format=raw|qcow2][,readonly]``; a path may have commas of its own.

    :raise UsageError: something is missing or unknown.
    """
    name, _, rest = text.partition("=")
    form: Format = "raw"
    read_only = False
    while True:
        path, comma, option = rest.rpartition(",")
        if comma and option == _READ_ONLY:
            read_only = True
        elif comma and option.startswith("format="):
            form = _format(text, option.removeprefix("format="))
        else:
            break
        rest = path
    if not name or not rest:
        raise UsageError(f"--pvc {text}: write it as CLAIM=PATH[,format=qcow2][,readonly]")
    return Claim(name=name, path=Path(rest), format=form, read_only=read_only)


def _format(text: str, word: str) -> Format:
    if word not in get_args(Format):
        raise UsageError(f"--pvc {text}: format {word!r} is unknown; raw and qcow2 are known")
    return "qcow2" if word == "qcow2" else "raw"


class LocalClaim(msgspec.Struct, frozen=True):
    """A claim as a volume, and a sentence if its content looks odd."""

    volume: LocalVolume
    warning: str = ""


def local_claim(volume: str, claim: Claim, account: Account, read_only: bool) -> LocalClaim:
    """The claim's file or device, checked for the account that will open it.

    The format is what the user said, never what the content says: a guest writes the content.

    :param read_only: the manifest asks for reading only (readOnly, or an ephemeral volume over it).
    :raise ClaimError: nothing there, neither file nor device, or the account can't open it.
    """
    what = f"volume {volume}: claim {claim.name}"
    path = claim.path
    try:
        if path.is_dir():
            path = path / _DISK
        mode = path.stat().st_mode
    except OSError as error:
        raise ClaimError(_missing(what, path, error)) from error
    kind = _kind(mode)
    if kind == "other":
        raise ClaimError(f"{what}: {path} is neither a file nor a block device; name one of them")
    reading = read_only or claim.read_only
    try:
        check_access(what, path, account, write=not reading)
    except HostError as error:
        raise ClaimError(str(error)) from error
    _check_size(what, path)
    return LocalClaim(
        LocalVolume(
            volume=volume, path=str(path.resolve()), format=claim.format, read_only=reading
        ),
        _doubt(what, path, claim),
    )


def _missing(what: str, path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{what}: {path} does not exist; make it, e.g. truncate -s 10G {path}"
    return f"{what}: {path}: {error.strerror}; check the path given to --pvc"


def _kind(mode: int) -> Literal["file", "device", "other"]:
    if stat.S_ISREG(mode):
        return "file"
    return "device" if stat.S_ISBLK(mode) else "other"


def _check_size(what: str, path: Path) -> None:
    with path.open("rb") as file:
        size = os.lseek(file.fileno(), 0, os.SEEK_END)
    if size == 0:
        raise ClaimError(f"{what}: {path} is empty; give it a size, e.g. truncate -s 10G {path}")


def _doubt(what: str, path: Path, claim: Claim) -> str:
    with path.open("rb") as file:
        qcow2 = file.read(4) == _QCOW_MAGIC
    if qcow2 and claim.format == "raw":
        return (
            f"{what}: {path} begins like a qcow2 image but is used as raw;"
            f" if it is one: --pvc {claim.name}={claim.path},format=qcow2"
        )
    if not qcow2 and claim.format == "qcow2":
        raise ClaimError(f"{what}: {path} is not a qcow2 image; leave out format=qcow2")
    return ""
