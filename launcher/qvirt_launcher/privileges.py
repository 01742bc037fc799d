"""How root becomes an ordinary user for good: resolve while everything can be read, drop in one go, look whether it worked.

After `drop` nothing may be imported: Python's own files may lie where the user can't read. Callers import first.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from typing import Final

import msgspec

from qvirt_launcher import native
from qvirt_launcher.errors import PrivilegeError

_KVM: Final = "/dev/kvm"
_CAP_SETPCAP: Final = 8


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to become."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def resolve(text: str) -> User:
    """``NAME``, ``UID`` or ``UID:GID`` as numbers, with the groups that the name has and the one that may open /dev/kvm.

    :raise PrivilegeError: nobody of that name; or it is root.
    """
    name, _, group = text.partition(":")
    entry = _entry(name)
    if entry is None and not name.isdecimal():
        raise PrivilegeError(
            f"user {name!r} does not exist on this machine; create it or name another with --user"
        )
    if group and not group.isdecimal():
        raise PrivilegeError(f"--user {text}: the group must be a number")
    uid = entry.pw_uid if entry is not None else int(name)
    gid = int(group) if group else entry.pw_gid if entry is not None else uid
    if uid == 0:
        raise PrivilegeError(
            "the launcher does not run a guest as root; name an ordinary user with --user"
        )
    own = set(os.getgrouplist(entry.pw_name, gid)) if entry is not None else set()
    return User(uid=uid, gid=gid, groups=tuple(sorted(own | _kvm_group() | {gid})))


def drop(user: User | None) -> None:
    """Become ``user`` (None: stay who we are) without a single capability, now and after any exec. Not reversible.

    A death signal asked for by whoever started us survives. A process that changed its uid is undumpable (prctl(2)) unless the
    administrator said otherwise, which is left so: it keeps other processes of that user out of our memory.

    :raise PrivilegeError: it did not work; the caller must not go on.
    """
    parent, wish = os.getppid(), native.death_signal()
    try:
        if user is not None and os.geteuid() == 0:
            _become(user)
        native.clear_capabilities()
        native.forbid_new_privileges()
    except OSError as error:
        raise PrivilegeError(
            f"can't become an ordinary user: {error.strerror}; start the launcher as that user"
        ) from error
    os.umask(0o077)
    if wish:
        native.set_death_signal(wish)
        if os.getppid() != parent:
            os.kill(os.getpid(), wish)
    _verify(user)


def _become(user: User) -> None:
    if _has_capability(_CAP_SETPCAP):
        native.drop_bounding_set()
    os.setgroups(user.groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)


def _verify(user: User | None) -> None:
    status = _status()
    wrong = [name for name in ("CapInh", "CapPrm", "CapEff", "CapAmb") if int(status[name], 16)]
    if status["NoNewPrivs"] != "1":
        wrong.append("NoNewPrivs")
    if user is not None and {*status["Uid"].split(), *status["Gid"].split()} != {
        str(user.uid),
        str(user.gid),
    }:
        wrong.append("Uid or Gid")
    if wrong:
        raise PrivilegeError(
            f"privileges were not given up: {', '.join(wrong)} in /proc/self/status"
        )


def _status() -> dict[str, str]:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


def _has_capability(number: int) -> bool:
    return bool(int(_status()["CapEff"], 16) >> number & 1)


def _entry(name: str) -> pwd.struct_passwd | None:
    with contextlib.suppress(KeyError, OverflowError):
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    return None


def _kvm_group() -> set[int]:
    """The group that may open /dev/kvm, whatever it is called here: containers often have no name for it."""
    try:
        found = os.stat(_KVM)
    except OSError:
        return set()
    return {found.st_gid} if found.st_gid and found.st_mode & 0o060 == 0o060 else set()
