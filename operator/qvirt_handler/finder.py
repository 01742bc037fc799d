"""A pod's launcher among the node's processes: by the pod's UID in their cgroups, whatever kubelet and runtime call the rest.

Needs the host's process namespace. Everything of a process is opened below one descriptor of its /proc directory, so that a
number that is given to another process meanwhile shows as an error, never as that process.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, Self

from qvirt_crds.names import CONTROL_SOCKET
from qvirt_crds.pod_layout import RUN_DIR
from qvirt_handler.errors import LauncherMissing, LauncherStrange
from qvirt_handler.rooted import open_in
from qvirt_qmp.client import Monitor
from qvirt_qmp.errors import QmpError
from qvirt_qmp.sockets import connect_path, peer_of

PROC: Final = Path("/proc")
#: Between two looks at the processes of the node, at those that are young, and at all of them.
_GLANCE_SECONDS: Final = 0.05
_YOUNG_SECONDS: Final = 5.0
_WHOLE_SECONDS: Final = 10.0
#: Of what is read of a file in /proc.
_LONGEST: Final = 1 << 20

#: Whether a process is of a pod: the text of its cgroup file, the pod's UID.
Belongs = Callable[[str, str], bool]


def names_pod(cgroup: str, pod_uid: str) -> bool:
    """Whether a cgroup path is the pod's: kubelet writes the UID with dashes, or with underscores (systemd's driver)."""
    forms = {f"pod{pod_uid}", f"pod{pod_uid.replace('-', '_')}"}
    parts = [part for line in cgroup.splitlines() for part in line.split(":", 2)[-1].split("/")]
    return any(part.removesuffix(".slice").endswith(form) for part in parts for form in forms)


def is_launcher(cmdline: tuple[str, ...]) -> bool:
    """virt-launcher by its console script or as a module, in pod mode."""
    start = cmdline[:5]
    named = any(os.path.basename(word) == "virt-launcher" for word in start)
    return "--pod" in cmdline and (named or "qvirt_launcher.main" in start)


class Process:
    """One process of the node, held by its /proc directory. Close it after use (``with``)."""

    def __init__(self, pid: int) -> None:
        """:raises OSError: it is gone."""
        self.pid = pid
        self._handle = os.open(PROC / str(pid), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it."""
        os.close(self._handle)

    def cgroup(self) -> str:
        """The text of its cgroup file."""
        return self._read("cgroup").decode(errors="replace")

    def mountinfo(self) -> str:
        """Its mounts, as proc(5) has them."""
        return self._read("mountinfo").decode(errors="replace")

    def cmdline(self) -> tuple[str, ...]:
        """Its arguments."""
        words = self._read("cmdline").split(b"\0")[:-1]
        return tuple(word.decode(errors="replace") for word in words)

    def open_netns(self) -> int:
        """A descriptor of its network namespace."""
        return self.open("ns/net", os.O_RDONLY)

    def open_inside(self, path: str, flags: int) -> int:
        """A file of its root file system; links in it stay in it."""
        root = self.open("root", os.O_PATH | os.O_DIRECTORY)
        try:
            return open_in(root, path, flags)
        finally:
            os.close(root)

    def open(self, name: str, flags: int) -> int:
        """A file of its /proc directory.

        :raises OSError: the process is gone.
        """
        return os.open(name, flags | os.O_CLOEXEC, dir_fd=self._handle)

    def _read(self, name: str) -> bytes:
        with open(self.open(name, os.O_RDONLY), "rb") as file:
            return file.read(_LONGEST)


class Finder(Protocol):
    """Finds launchers."""

    def find(self, pod_uid: str) -> Process:
        """The launcher of a pod, for the caller to close.

        :raises LauncherMissing: there is none.
        """

    def belongs(self, process: Process, pod_uid: str) -> bool:
        """Whether the process is one of the pod's."""


class ProcFinder:
    """Looks through /proc. Many may look for their launcher at the same time and often: one look is for all of them.

    :param belongs: how a process is known to be of a pod.
    """

    def __init__(self, belongs: Belongs = names_pod) -> None:
        self._belongs = belongs
        self._glance = Glance()

    def find(self, pod_uid: str) -> Process:
        """See `Finder.find`."""
        for pid in self._glance.launchers():
            with contextlib.suppress(OSError):
                process = Process(pid)
                with contextlib.suppress(OSError):
                    if is_launcher(process.cmdline()) and self.belongs(process, pod_uid):
                        return process
                process.close()
        raise LauncherMissing(
            f"pod {pod_uid}: none of its processes on this node is virt-launcher; see the pod's events and log"
        )

    def belongs(self, process: Process, pod_uid: str) -> bool:
        """See `Finder.belongs`."""
        return self._belongs(process.cgroup(), pod_uid)


class Glance:
    """The node's launchers, known a moment ago.

    A container's process becomes its program soon after its start, or never: of those that have been looked at for a while
    only their number is looked at.

    :param now: in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last = float("-inf")
        self._whole = float("-inf")
        #: Process number -> when it was seen first.
        self._since: dict[int, float] = {}
        self._found: tuple[int, ...] = ()

    def launchers(self) -> tuple[int, ...]:
        """Their process numbers; each may have ended, and be another's."""
        now = self._now()
        if now - self._last >= _GLANCE_SECONDS:
            if now - self._whole >= _WHOLE_SECONDS:
                self._since.clear()
                self._whole = now
            self._last = now
            self._look(now)
        return self._found

    def _look(self, now: float) -> None:
        there = [int(name) for name in os.listdir(PROC) if name.isdecimal()]
        self._since = {pid: self._since.get(pid, now) for pid in there}
        young = (pid for pid, since in self._since.items() if now - since < _YOUNG_SECONDS)
        found = dict.fromkeys(pid for pid in self._found if pid in self._since)
        found |= dict.fromkeys(pid for pid in young if is_launcher(_cmdline(pid)))
        self._found = tuple(found)


def _cmdline(pid: int) -> tuple[str, ...]:
    try:
        with Process(pid) as process:
            return process.cmdline()
    except OSError:
        return ()


async def dial(finder: Finder, process: Process, pod_uid: str, name: str) -> socket.socket:
    """A connection to a socket in the launcher's run directory, after a look at who really listens: the pod's user can write there.

    :raises LauncherMissing: nobody listens (yet).
    :raises LauncherStrange: the listener isn't of this pod.
    """
    who = f"the launcher of pod {pod_uid}"
    try:
        handle = process.open_inside(f"{RUN_DIR}/{name}", os.O_PATH | os.O_NOFOLLOW)
        try:
            if not stat.S_ISSOCK(os.fstat(handle).st_mode):
                raise LauncherStrange(f"{who}: {RUN_DIR}/{name} is not a socket")
            sock = await connect_path(f"/proc/self/fd/{handle}")
        finally:
            os.close(handle)
    except OSError as error:
        raise LauncherMissing(f"{who}: doesn't listen on {name}: {error.strerror}") from error
    try:
        with Process(peer_of(sock).pid) as peer:
            if not finder.belongs(peer, pod_uid):
                raise LauncherStrange(f"{who}: process {peer.pid} of another pod listens on {name}")
    except OSError as error:
        sock.close()
        raise LauncherMissing(f"{who}: it has ended: {error.strerror}") from error
    except LauncherStrange:
        sock.close()
        raise
    return sock


async def connect(finder: Finder, process: Process, pod_uid: str) -> Monitor:
    """A session with the launcher.

    :raises LauncherMissing: nobody listens (yet).
    :raises LauncherStrange: the listener isn't of this pod.
    """
    name = f"the launcher of pod {pod_uid}"
    sock = await dial(finder, process, pod_uid, CONTROL_SOCKET)
    try:
        return await Monitor.connect(sock, name=name)
    except QmpError as error:
        raise LauncherMissing(f"{name}: {error}") from error
