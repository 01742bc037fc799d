"""Guests on the real QEMU, always emulated, driven through their serial console and QMP."""

from __future__ import annotations

import json
import os
import re
import select
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "images" / "build.py"
BUILT = ROOT / "build" / "guest"
sys.path.insert(0, str(ROOT / "images"))  # the builder is no installed package: it runs before any

# The seed's "64M" as QEMU takes it: 64,000,000 bytes are 62500 KiB.
SEED_MEMORY = "62500k"


class Guest:
    """One QEMU with its console on a pipe and its monitor on a socket."""

    def __init__(self, directory: Path, arguments: list[str]) -> None:
        ours, theirs = socket.socketpair()
        fd = theirs.fileno()
        common = ["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"]
        monitor = ["-chardev", f"socket,id=monitor,fd={fd}", "-mon", "chardev=monitor,mode=control"]
        self.errors = directory / "qemu.err"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                ["qemu-system-x86_64", "-accel", "tcg", *common, *monitor, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                pass_fds=(fd,),
            )
        theirs.close()
        ours.settimeout(30)
        self._socket = ours
        self._monitor = ours.makefile("rwb")
        self.console = ""

    def greet(self) -> None:
        """Open the monitor; fails with what QEMU said if it did not start."""
        try:
            assert "QMP" in json.loads(self._monitor.readline())
            self.qmp("qmp_capabilities")
        except (OSError, ValueError):
            pytest.fail(f"QEMU does not start: {self.errors.read_text()}")

    def qmp(self, command: str, **arguments: Any) -> Any:
        """Run one command; events in between are passed over."""
        request = {"execute": command, "arguments": arguments}
        self._monitor.write(json.dumps(request).encode() + b"\n")
        self._monitor.flush()
        while True:
            reply = json.loads(self._monitor.readline())
            if "event" not in reply:
                return reply["return"]

    def event(self, name: str) -> dict[str, Any]:
        """Wait for an event of QEMU's."""
        while True:
            message: dict[str, Any] = json.loads(self._monitor.readline())
            if message.get("event") == name:
                return message

    def wait_for(self, pattern: str, deadline: float = 90, start: int = 0) -> re.Match[str]:
        """Read the console until something after `start` matches; fails with the whole console."""
        end = time.monotonic() + deadline
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        while True:
            match = re.compile(pattern).search(self.console, start)
            if match:
                return match
            left = end - time.monotonic()
            readable = select.select([fd], [], [], max(left, 0))[0]
            chunk = os.read(fd, 65536) if readable else b""
            if not chunk:
                pytest.fail(
                    f"no {pattern!r} on the console within {deadline} s:\n{self.console}\n"
                    f"{self.errors.read_text()}"
                )
            self.console += chunk.decode(errors="replace").replace("\r", "")

    def type(self, line: str) -> None:
        """Type a line on the console."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def login(self) -> None:
        """Log in as root."""
        prompt = self.wait_for("login: ").end()
        self.type("root")
        self.wait_for(r":\S+# ", start=prompt)

    def command(self, line: str) -> str:
        """Output of a command typed at the prompt of a console that is logged in."""
        before = len(self.console)
        # The echo of the line has the marks in two pieces, the output has them whole.
        self.type(f"echo 'be''gin'; {line}; echo 'e''nd' $?")
        return self.wait_for(r"(?s)begin\n(.*?)end \d+\n", start=before)[1]

    def port(self, inside: int) -> int:
        """The port of this machine that leads to the guest's port (see `FORWARD`)."""
        table = self.qmp("human-monitor-command", **{"command-line": "info usernet"})
        match = re.search(rf"127\.0\.0\.1\s+(\d+)\s+\S+\s+{inside}\s", table)
        assert match, table
        return int(match[1])

    def http(self, path: str) -> str:
        """Body of the guest's answer."""
        url = f"http://127.0.0.1:{self.port(80)}{path}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            body: bytes = answer.read()
        return body.decode()

    def ended(self, deadline: float = 60) -> int:
        """QEMU's exit status, once it ends by itself."""
        return self.process.wait(deadline)

    def close(self) -> None:
        """End QEMU whatever it does."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._monitor, self._socket):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                continue


FORWARD = "hostfwd=tcp:127.0.0.1:0-:80,hostfwd=tcp:127.0.0.1:0-:22,hostfwd=tcp:127.0.0.1:0-:7"

Boot = Callable[..., Guest]


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Boot]:
    """Start a guest from QEMU arguments; every guest is ended with the test."""
    guests: list[Guest] = []

    def start(*arguments: str) -> Guest:
        guest = Guest(tmp_path, list(arguments))
        guests.append(guest)
        guest.greet()
        return guest

    yield start
    for guest in guests:
        guest.close()


def _built(name: str) -> Path:
    """Output directory with an up to date build of the target."""
    done = subprocess.run(
        [sys.executable, BUILD, name, "--output", BUILT],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return BUILT


@pytest.fixture(scope="session")
def demo_guest() -> Path:
    """Directory of the finished i386 demo guest."""
    return _built("demo-guest")


@pytest.fixture(scope="session")
def demo_guest_amd64() -> Path:
    """Directory of the finished amd64 demo guest."""
    return _built("demo-guest-amd64")


@pytest.fixture(scope="session")
def cloud_guest() -> Path:
    """Directory of the finished cloud guest."""
    return _built("cloud-guest")


def disk(file: Path, device: str = "virtio-blk-pci", name: str = "disk") -> list[str]:
    """Arguments for a qcow2 disk whose changes are thrown away."""
    drive = f"file={file},format=qcow2,if=none,id={name},snapshot=on"
    return ["-drive", drive, "-device", f"{device},drive={name}"]


def seed(file: Path, device: str = "virtio-blk-pci") -> list[str]:
    """Arguments for a raw read-only disk."""
    drive = f"file={file},format=raw,if=none,id=seed,readonly=on"
    return ["-drive", drive, "-device", f"{device},drive=seed"]


def nic(device: str = "virtio-net-pci", options: str = "") -> list[str]:
    """Arguments for a NIC on QEMU's own network, with the guest's ports forwarded."""
    return ["-netdev", f"user,id=net,{FORWARD}{options}", "-device", f"{device},netdev=net"]


def iso(directory: Path, label: str, files: dict[str, str]) -> Path:
    """A seed as the launcher makes it: ISO 9660 with Joliet and Rock Ridge."""
    tree = directory / f"{label}-files"
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    image = directory / f"{label}.iso"
    command = ["xorriso", "-as", "mkisofs", "-quiet", "-J", "-r", "-V", label]
    subprocess.run([*command, "-o", image, tree], check=True, capture_output=True)
    return image
