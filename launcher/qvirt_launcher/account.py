"""The ordinary user that launcher and QEMU run as, and what that user may open."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path
from typing import Final

import msgspec

from qvirt_launcher.errors import HostError, UsageError

#: Taken in this order when root starts a VM and names no user.
_DEFAULTS: Final = ("qvirt", "nobody")


class Account(msgspec.Struct, frozen=True):
    """A user of this machine, with the group that files are given to."""

    name: str
    uid: int
    gid: int


def current_account() -> Account:
    """Who we are, whether or not the password file knows it."""
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return Account(name, uid, os.getegid())


def launcher_account(user: str) -> Account:
    """The account for launcher and QEMU.

    :param user: of ``--user``: a name or uid; empty: `qvirt` or `nobody` for root, else ourselves.
    :raise UsageError: no such user, or another one than ourselves without being root.
    """
    if not user and os.geteuid() != 0:
        return current_account()
    for name in (user,) if user else _DEFAULTS:
        found = _look_up(name)
        if found is not None:
            break
    else:
        raise UsageError(f"--user {user or 'nobody'}: no such user; name one that exists")
    if os.geteuid() not in {0, found.uid}:
        raise UsageError(
            f"--user {user}: only root may start guests as somebody else; leave it out"
        )
    return found


def _look_up(user: str) -> Account | None:
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def check_access(what: str, path: Path, account: Account, write: bool) -> None:
    """Whether the account can open the file, tried as that account.

    :param what: the object that the message begins with.
    :raise HostError: it can't; the message has the directory that is in the way, and what to do.
    """
    code = _try(path, account, os.O_RDWR if write else os.O_RDONLY)
    if not code:
        return
    for folder in reversed(path.absolute().parents):
        if _try(folder, account, os.O_PATH | os.O_DIRECTORY, enter=True):
            raise HostError(
                f"{what}: {path}: user {account.name} can't enter {folder}; chmod o+x {folder},"
                " move the file, or choose another --user"
            )
    right = "rw" if write else "r"
    raise HostError(
        f"{what}: {path}: user {account.name} can't open it ({os.strerror(code)});"
        f" {_remedy(path, account, right)}, or choose another --user"
    )


def _remedy(path: Path, account: Account, right: str) -> str:
    if path.is_block_device():
        group = _group_name(path)
        return f"setfacl -m u:{account.name}:{right} {path}" + (
            f" or usermod -aG {group} {account.name}" if group else ""
        )
    return f"chown {account.name} {path}" if right == "rw" else f"chmod o+r {path}"


def _group_name(path: Path) -> str:
    try:
        return grp.getgrgid(path.stat().st_gid).gr_name
    except KeyError:
        return ""


def _try(path: Path, account: Account, flags: int, enter: bool = False) -> int:
    """errno of opening (or entering) as the account, in a child; 0 when it works."""
    child = os.fork()
    if child == 0:
        os._exit(_open_as(path, account, flags, enter))
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _open_as(path: Path, account: Account, flags: int, enter: bool) -> int:
    try:
        if os.geteuid() == 0:
            os.setgroups(os.getgrouplist(account.name, account.gid))
            os.setresgid(account.gid, account.gid, account.gid)
            os.setresuid(account.uid, account.uid, account.uid)
        if enter:
            os.chdir(path)
        else:
            os.close(os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        return error.errno or 1
    return 0
