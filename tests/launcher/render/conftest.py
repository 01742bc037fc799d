"""The real QEMU for tests of rendering: started stopped (``-S``) under TCG, told what it must know before its guest runs, quit.

That realizes every device: wrong properties, full buses, bad addresses and missing nodes all show.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from qvirt_crds.defaults import apply_defaults
from qvirt_crds.devices import Disk
from qvirt_crds.report import Attachment
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_launcher.backing import Backing, Image
from qvirt_launcher.facts import HostFacts
from qvirt_launcher.host import gather_host_facts
from qvirt_launcher.machine import Machine, build_machine
from qvirt_launcher.render import render

DEADLINE_SECONDS: Final = 30
SIZE: Final = 8 << 20
#: What the emulator says about CPU models that it can't do whole.
KNOWN: Final = ("TCG doesn't support", "doesn't support hyperthreading", "configure -smp options")


class Started:
    """A stopped QEMU and its monitor."""

    def __init__(self, machine: Machine, taps: Mapping[int, int]) -> None:
        self._monitor, inherited = socket.socketpair()
        self._monitor.settimeout(DEADLINE_SECONDS)
        self._file = self._monitor.makefile("rwb")
        wanted = {machine.monitor_fd: inherited.fileno(), **taps}
        for number, fd in wanted.items():
            os.dup2(fd, number, inheritable=True)
        self.process = subprocess.Popen(
            render(machine),
            pass_fds=list(wanted),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        inherited.close()
        for number in wanted:
            os.close(number)

    def greeting(self) -> bool:
        try:
            return b"QMP" in self._file.readline()
        except (ConnectionError, TimeoutError):
            return False

    def prepare(self, machine: Machine) -> None:
        """Everything between the greeting and ``cont``."""
        self.command("qmp_capabilities")
        for command in machine.commands:
            self.command(command.execute, **command.arguments)

    def command(self, execute: str, **arguments: Any) -> Any:
        message = {"execute": execute, "arguments": arguments}
        self._file.write(json.dumps(message).encode() + b"\n")
        self._file.flush()
        while line := self._file.readline():
            reply = json.loads(line)
            if "event" not in reply:
                assert "return" in reply, f"{execute}: {reply}"
                return reply["return"]
        raise ConnectionResetError(f"{execute}: QEMU is gone")

    def wait_for_end(self) -> None:
        """Until QEMU hangs up, whatever it says until then."""
        while self._file.readline():
            pass

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *exception: object) -> None:
        """Let it end by itself after ``quit``; kill it otherwise."""
        self._monitor.close()
        self._file.close()
        if exception[0] is not None:
            self.process.kill()
        try:
            _, errors = self.process.communicate(timeout=DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, errors = self.process.communicate()
        #: Exit code and stderr.
        self.ended = self.process.returncode, errors.decode()


class Files:
    """A run directory with sparse images, and one small qcow2 that is copied."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._template = folder / "template.qcow2"
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", str(self._template), str(SIZE)],
            check=True,
            timeout=DEADLINE_SECONDS,
        )

    def raw(self, name: str) -> Image:
        path = self.folder / name
        with path.open("wb") as file:
            file.truncate(SIZE)
        return Image(path=str(path), format="raw")

    def qcow2(self, name: str) -> Image:
        path = self.folder / name
        shutil.copyfile(self._template, path)
        return Image(path=str(path), format="qcow2")

    def backing(self, disk: Disk) -> Backing:
        """Raw for what is shared, else an overlay; direct I/O as asked for (the file system has it or not)."""
        direct = disk.cache == "none" or bool(disk.shareable) or disk.io == "native"
        if disk.shareable:
            return Backing(volume=disk.name, image=self.raw(disk.name), direct=direct)
        return Backing(
            volume=disk.name,
            image=self.qcow2(f"{disk.name}.qcow2"),
            base=self.raw(f"{disk.name}.base"),
            direct=direct,
        )


class RealQemu:
    """Specs to machines on this host, and machines to the QEMU that is installed here."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def instance(
        self, domain: Mapping[str, Any], spec: Mapping[str, Any] | None = None
    ) -> VirtualMachineInstance:
        """A defaulted instance: 64Mi unless told otherwise, a claim for each disk."""
        domain = {"memory": {"guest": "64Mi"}, "devices": {}, **domain}
        disks = domain["devices"].get("disks", ())
        cards = domain["devices"].get("interfaces", ())
        networks = [
            {"name": c["name"], **({"multus": {"networkName": c["name"]}} if i else {"pod": {}})}
            for i, c in enumerate(cards)
        ]
        whole = {
            "apiVersion": "kubevirt.io/v1",
            "kind": "VirtualMachineInstance",
            "metadata": {"name": "a"},
            "spec": {
                "domain": domain,
                "volumes": [
                    {"name": d["name"], "persistentVolumeClaim": {"claimName": d["name"]}}
                    for d in disks
                ],
                "networks": networks,
                **(spec or {}),
            },
        }
        vmi = msgspec.convert(whole, VirtualMachineInstance)
        return apply_defaults(vmi, new_uuid=lambda: "5d307ca9-b3ef-428c-8861-06e72d69f223")

    def facts(self, vmi: VirtualMachineInstance) -> HostFacts:
        """The host as it is, with user-mode networking."""
        return gather_host_facts(
            vmi,
            accel="tcg",
            run_dir=str(self.files.folder),
            attachments=tuple(
                Attachment(interface=card.name, backend="user", mac=f"02:00:00:00:00:{i:02x}")
                for i, card in enumerate(vmi.spec.domain.devices.interfaces)
            ),
            backings=tuple(self.files.backing(disk) for disk in vmi.spec.domain.devices.disks),
        )

    def machine(self, vmi: VirtualMachineInstance) -> Machine:
        return build_machine(vmi, self.facts(vmi))

    def start(self, machine: Machine, taps: Mapping[int, int] | None = None) -> Started:
        """:param taps: QEMU's descriptor numbers -> descriptors here."""
        for step in machine.steps:
            shutil.copyfile(step.source, step.path)
        return Started(machine, taps or {})

    def accepts(
        self, machine: Machine, taps: Mapping[int, int] | None = None, ask: str = ""
    ) -> str:
        """Start, prepare, quit. Returns the answer to one HMP question.

        :raise AssertionError: QEMU refuses; the message is its own and the command line.
        """
        answer = ""
        # QEMU may refuse at any moment until it answers; then its exit code and stderr say why.
        with self.start(machine, taps) as qemu, contextlib.suppress(ConnectionError):
            if qemu.greeting():
                qemu.prepare(machine)
                assert qemu.command("query-status")["status"] == "prelaunch"
                if ask:
                    answer = qemu.command("human-monitor-command", **{"command-line": ask})
                qemu.command("quit")
        code, errors = qemu.ended
        complaints = [line for line in errors.splitlines() if not any(k in line for k in KNOWN)]
        assert (code, complaints) == (0, []), f"{errors}\n{' '.join(render(machine))}"
        return answer


@pytest.fixture(scope="session")
def qemu() -> Iterator[RealQemu]:
    """Skips where QEMU is not installed. Not pytest's tmp_path: sockets need short paths."""
    if shutil.which("qemu-system-x86_64") is None or shutil.which("qemu-img") is None:
        pytest.skip("needs QEMU: apt install qemu-system-x86 qemu-utils")
    with tempfile.TemporaryDirectory(prefix="qv") as folder:
        yield RealQemu(Files(Path(folder)))
