"""A launcher that has its VM from the environment, and the console inside of its container."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from qvirt_launcher import alone
from qvirt_launcher.errors import HostError
from qvirt_launcher.removal import remove_tree

VM = {
    "vmi": {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "x", "namespace": "n"},
        "spec": {"domain": {"devices": {}}, "terminationGracePeriodSeconds": 7},
    },
    "attachments": [{"interface": "default", "backend": "user", "mac": "02:00:00:00:00:01"}],
}


def test_the_vm_is_taken_out_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QVIRT_VM", json.dumps(VM))
    order = alone.take("QVIRT_VM")
    assert order.taken.vmi.metadata.name == "x"
    assert order.taken.vmi.spec.termination_grace_period_seconds == 7
    assert order.message == VM
    assert "QVIRT_VM" not in os.environ


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"vmi": {"spec": {}}}'])
def test_a_vm_that_makes_no_sense_is_said_so(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("QVIRT_VM", text)
    with pytest.raises(HostError, match=r"^QVIRT_VM: .*qvirt pod"):
        alone.take("QVIRT_VM")


def test_the_launcher_ends_with_a_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "qvirt_launcher.main", "--run-dir", str(tmp_path / "run"), "--vm-from", "NOTHING"],
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 4
    assert "NOTHING: no VM is in the environment" in done.stderr


def test_a_restart_policy_is_one_of_kubernetes() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "qvirt_launcher.main", "--run-dir", "/x", "--restart-policy", "Maybe"],
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Maybe" in done.stderr


def test_a_tree_goes_whatever_is_in_it(tmp_path: Path) -> None:
    top = tmp_path / "top"
    (top / "a/b").mkdir(parents=True)
    (top / "a/file").touch()
    (top / "link").symlink_to(tmp_path)
    (tmp_path / "kept").touch()
    remove_tree(str(top))
    assert not top.exists()
    assert (tmp_path / "kept").exists()
    remove_tree(str(top))


@pytest.fixture
def console(tmp_path: Path) -> Iterator[str]:
    """A guest that echoes each line in capitals, greets, and hangs up at `bye`."""
    path = str(tmp_path / "console.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb") as stream:
            stream.write(b"qvirt login: ")
            stream.flush()
            for line in stream:
                if line == b"bye\n":
                    return
                stream.write(line.upper())
                stream.flush()

    guest = threading.Thread(target=serve, daemon=True)
    guest.start()
    yield path
    listener.close()
    guest.join(10)


def virt_console(*options: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-P", "-m", "qvirt_launcher.virt_console", *options]
    return subprocess.run(argv, input=typed, capture_output=True, text=True, timeout=60)


def test_what_is_typed_goes_to_the_guest_and_back(console: str) -> None:
    done = virt_console("--socket", console, typed="hello\nbye\n")
    assert (done.returncode, done.stdout) == (0, "qvirt login: HELLO\n")


def test_it_leaves_when_the_text_is_there(console: str) -> None:
    done = virt_console("--socket", console, "--until", "login:", "--timeout", "30")
    assert done.returncode == 0
    assert "login:" in done.stdout


def test_a_text_that_does_not_come_is_a_failure(console: str) -> None:
    done = virt_console("--socket", console, "--until", "never", "--timeout", "1")
    assert done.returncode == 1


@pytest.mark.parametrize("options", [["--bogus"], ["--until"], ["--timeout", "soon"]])
def test_nonsense_is_usage(options: list[str]) -> None:
    done = virt_console(*options)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: virt-console")


def test_nobody_there_is_one_line(tmp_path: Path) -> None:
    done = virt_console("--socket", str(tmp_path / "none"))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
