"""Run directories of VMs without a cluster: where they are, who holds one, and what a dead holder left.

Beside each run directory, and not in it because the guest's user may write there, lies ``.<name>.json``: a `Record`, locked
by the supervisor and, through inheritance, by its launcher (an open file description lock, fcntl(2): it ends with the last
process that has the descriptor, and can be looked at without being taken). The lock says who lives; no pid is trusted for that.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import stat
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal

import msgspec

from qvirt_launcher.account import Account
from qvirt_launcher.errors import AlreadyRunning, HostError, NotRunning

#: QEMU's own sockets need paths within sun_path (108 bytes with the NUL); the longest name there is launcher.sock.
_LONGEST: Final = 107 - len("/launcher.sock")
_PAUSE: Final = 0.1
#: struct flock: type, whence, start, length, pid.
_FLOCK: Final = struct.Struct("hhqqi4x")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What other commands may know of a VM without asking its launcher."""

    namespace: str
    name: str
    #: Pid and kernel start time (clock ticks since boot) of the supervisor, then of its launcher.
    supervisor: int = 0
    supervisor_start: int = 0
    launcher: int = 0
    launcher_start: int = 0
    #: Seconds that the guest is given when it is told to stop.
    grace: int = 30
    user: str = ""
    network: str = ""
    manifest: str = ""
    log: str = ""


State = Literal["alive", "orphan", "dead"]


class Vm(msgspec.Struct, frozen=True, kw_only=True):
    """One VM of this machine. ``state``: its lock is held; its supervisor died and its launcher winds up; both are dead."""

    record: Record
    path: Path
    state: State


def runtime_root() -> Path:
    """``/run/qvirt`` for root, else below ``$XDG_RUNTIME_DIR``, else ``/tmp/qvirt-<uid>``."""
    if os.geteuid() == 0:
        return Path("/run/qvirt")
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    if base and os.access(base, os.W_OK):
        return Path(base) / "qvirt"
    return Path(f"/tmp/qvirt-{os.geteuid()}")


def cache_root() -> Path:
    """``/var/cache/qvirt`` for root, else below ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if os.geteuid() == 0:
        return Path("/var/cache/qvirt")
    base = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(os.path.expanduser("~"))
    if base or os.access(home, os.W_OK):
        return Path(base or home / ".cache") / "qvirt"
    return runtime_root() / ".cache"


def disk_root() -> Path | None:
    """Where disks lie that end with their VM: ``/var/lib/qvirt/disks`` for root, else below ``$XDG_STATE_HOME`` or
    ``~/.local/state``. Not with the sockets: ``/run`` is memory on most machines, and a guest may fill its disks.

    None: this user has no such place; they lie in the run directory then.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/qvirt/disks")
    base = os.environ.get("XDG_STATE_HOME", "")
    home = Path(os.path.expanduser("~"))
    if base or os.access(home, os.W_OK):
        return Path(base or home / ".local/state") / "qvirt/disks"
    return None


class RunDir:
    """A run directory that we hold, and the directory of its VM's passing disks."""

    def __init__(self, path: Path, disks: Path, lock: int, note: Path) -> None:
        self.path = path
        self.disks = disks
        self._note = note
        self._lock = lock

    @property
    def lock(self) -> int:
        """The descriptor that the launcher inherits, so that the name stays taken until it has ended."""
        return self._lock

    def write(self, record: Record) -> None:
        """Replace the record."""
        content = msgspec.json.encode(record)
        os.pwrite(self._lock, content, 0)
        os.ftruncate(self._lock, len(content))

    def make(self) -> None:
        """Make the directory itself, for ourselves alone yet: root writes into it before others may."""
        self.path.mkdir(mode=0o700)
        self.disks.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.disks.mkdir(mode=0o700)

    def hand_over(self, account: Account) -> None:
        """Give the directory and what is in it to the account; it is not to be written to by root from then on."""
        if os.geteuid() != 0:
            return
        for _, folders, files, handle in os.fwalk(self.path, topdown=False):
            for name in (*folders, *files):
                os.chown(name, account.uid, account.gid, dir_fd=handle, follow_symlinks=False)
        os.chown(self.path, account.uid, account.gid)
        os.chown(self.disks, account.uid, account.gid)

    def remove(self) -> None:
        """Remove everything and let the name go. Once more does no harm."""
        if self._lock < 0:
            return
        _remove_tree(self.disks)
        _remove_tree(self.path)
        self._note.unlink(missing_ok=True)
        for folder in (self.disks.parent, self._note.parent, self._note.parent.parent):
            with contextlib.suppress(OSError):
                folder.rmdir()  # only if it is empty
        os.close(self._lock)
        self._lock = -1

    def forget(self) -> None:
        """Close our copy of the lock and remove nothing: for a process that only passes the VM on to its child."""
        os.close(self._lock)
        self._lock = -1


def claim(
    root: Path,
    namespace: str,
    name: str,
    notify: Callable[[str], None] = lambda _: None,
    disks: Path | None = None,
) -> RunDir:
    """Take a VM's name on this machine; what a dead holder left is removed first.

    A launcher whose supervisor was killed is on its way out: it is waited for.

    :param disks: `disk_root`.
    :raise AlreadyRunning: the name is held by a living supervisor, or by a launcher that doesn't end.
    :raise HostError: the directory can't be made.
    """
    path, note = _places(root, namespace, name)
    own = path / "disks" if disks is None else disks / path.relative_to(root)
    try:
        lock = _lock_in(root, note, f"{namespace}/{name}", notify)
        _remove_tree(own)
        _remove_tree(path)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}; make room for run directories there") from error
    held = RunDir(path, own, lock, note)
    us = os.getpid()
    held.write(
        Record(namespace=namespace, name=name, supervisor=us, supervisor_start=start_time(us))
    )
    return held


def list_vms(root: Path) -> list[Vm]:
    """Every VM that this user (or root) runs, and what dead ones left, by namespace and name."""
    return sorted(
        _scan(root), key=lambda vm: (vm.record.namespace, vm.record.name, vm.state == "dead")
    )


def state_of(root: Path, namespace: str, name: str) -> State | None:
    """Whether a VM lives; None: nothing of it is left."""
    _, note = _places(root, namespace, name)
    if not note.exists():
        return None
    # A record that is being written just now is somebody's who lives.
    record = _read(note)
    return "alive" if record is None else _state(note, record)


def find(root: Path, namespace: str, name: str) -> Vm:
    """The VM of that name.

    :param namespace: empty: any, if there is just one of that name.
    :raise NotRunning: there is none that lives, or there are several.
    """
    living = [vm for vm in list_vms(root) if vm.state != "dead" and vm.record.name == name]
    fitting = [vm for vm in living if namespace in {"", vm.record.namespace}]
    if len(fitting) == 1:
        return fitting[0]
    where = ", ".join(vm.record.namespace for vm in living)
    if fitting:
        raise NotRunning(f"{name}: runs in several namespaces ({where}); say which with -n")
    full = f"{namespace}/{name}" if namespace else name
    if living:
        raise NotRunning(f"{full}: doesn't run; a VM of that name runs in namespace {where}")
    raise NotRunning(f"{full}: doesn't run; `qvirt list` shows what does")


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot (proc(5), stat); 0 if there is none, or a zombie."""
    try:
        content = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    fields = content.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def _alive(pid: int, started: int) -> bool:
    return pid > 0 and started > 0 and start_time(pid) == started


def _places(root: Path, namespace: str, name: str) -> tuple[Path, Path]:
    """Long names are shortened to stay within sun_path, with a digest so that they stay apart."""
    path = root / namespace / name
    if len(os.fsencode(path)) > _LONGEST:
        path = root / _short(namespace) / _short(name)
    if len(os.fsencode(path)) > _LONGEST:
        raise HostError(
            f"{path}: is too long for sockets in it; set XDG_RUNTIME_DIR to a shorter path"
        )
    return path, path.parent / f".{path.name}.json"


def _short(part: str) -> str:
    return f"{part[:11]}~{hashlib.sha256(part.encode()).hexdigest()[:8]}"


def _make_root(root: Path) -> None:
    private = os.geteuid() != 0
    root.mkdir(mode=0o700 if private else 0o755, parents=True, exist_ok=True)
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise HostError(
            f"{root}: is not a directory of ours alone; remove it, or set XDG_RUNTIME_DIR"
        )


def _lock_in(root: Path, note: Path, full: str, notify: Callable[[str], None]) -> int:
    while True:
        _make_root(root)
        try:
            note.parent.mkdir(mode=0o755, exist_ok=True)
            return _lock_note(note, full, notify)
        except FileNotFoundError:
            continue  # another VM's end removed the empty directories in between


def _lock_note(note: Path, full: str, notify: Callable[[str], None]) -> int:
    deadline = 0.0
    while True:
        lock = os.open(note, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.fcntl(lock, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
            if _same(lock, note):
                return lock
        except BlockingIOError:
            record = _read(note)
            if record is None or _alive(record.supervisor, record.supervisor_start):
                os.close(lock)
                raise AlreadyRunning(
                    f"{full}: is already running; stop it with `qvirt stop {full}`"
                ) from None
            if not deadline:
                deadline = time.monotonic() + record.grace + 20
                notify("an earlier run was killed; its guest is being shut down first")
                _terminate(record)
            if time.monotonic() > deadline:
                os.close(lock)
                raise AlreadyRunning(
                    f"{full}: its launcher (pid {record.launcher}) outlives its supervisor and doesn't end; kill it"
                ) from None
        os.close(lock)
        time.sleep(_PAUSE)


def _same(lock: int, note: Path) -> bool:
    """Whether what we locked is still what the name means (its last holder may have removed it meanwhile)."""
    try:
        named = note.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(lock), named)


def _terminate(record: Record) -> None:
    if _alive(record.launcher, record.launcher_start):
        os.kill(record.launcher, signal.SIGTERM)


def _read(note: Path) -> Record | None:
    """The record; None while it is being written, or if it isn't one."""
    try:
        return msgspec.json.decode(note.read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError):
        return None


def _scan(root: Path) -> Iterator[Vm]:
    try:
        notes = sorted(root.glob("*/.*.json"))
    except OSError:
        return
    for note in notes:
        record = _read(note)
        if record is None:
            continue
        path = note.parent / note.name.removeprefix(".").removesuffix(".json")
        yield Vm(record=record, path=path, state=_state(note, record))


def _state(note: Path, record: Record) -> State:
    try:
        handle = os.open(note, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return "dead"
    try:
        found = fcntl.fcntl(handle, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_WRLCK))
    finally:
        os.close(handle)
    if _FLOCK.unpack(found)[0] == fcntl.F_UNLCK:
        return "dead"
    return "alive" if _alive(record.supervisor, record.supervisor_start) else "orphan"


def _whole_file(kind: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0)


def _remove_tree(path: Path) -> None:
    """Never through a link: the directory belongs to an unprivileged user."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
