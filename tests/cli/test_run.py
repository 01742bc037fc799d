"""`qvirt run` with the real launcher, the real QEMU and, where it says so, a real guest."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import termios
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import Command, Finished, manifest, seed_manifest

from qvirt_launcher.cli import exits
from qvirt_launcher.rundir import Vm, find, list_vms, runtime_root

pytestmark = [pytest.mark.qemu]

#: For a guest to boot under emulation on a busy machine; nothing waits that long when all is well.
PATIENCE = 90


@pytest.fixture(autouse=True)
def nothing_left(vm_name: str) -> Iterator[None]:
    """Every test here ends its VM; afterwards there is no trace of it, and this proves that it looks at the right things."""
    yield
    for vm in list_vms(runtime_root()):
        if vm.record.name == vm_name and vm.state != "dead":
            os.kill(vm.record.supervisor, signal.SIGKILL)
            os.kill(vm.record.launcher, signal.SIGKILL)
            pytest.fail("the VM still runs")
    assert not [p for p in runtime_root().rglob("*") if vm_name in str(p)]
    assert f"_{vm_name}" not in processes()
    if os.geteuid() == 0:
        links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True)
        from qvirt_netsetup.ipam import derive_link

        assert derive_link("qv", "default", vm_name, "default") not in links.stdout


def processes() -> str:
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def wait_until(what: object, limit: float = PATIENCE) -> None:
    until = time.monotonic() + limit
    while not what():  # type: ignore[operator]
        assert time.monotonic() < until, "it does not come to it"
        time.sleep(0.1)


def phase(qvirt: Command, name: str) -> str:
    rows = json.loads(qvirt.run("list", "-o", "json").out)
    return next((str(row["phase"]) for row in rows if row["name"] == name), "")


def start(
    qvirt: Command, tmp_path: Path, name: str, text: str, *options: str
) -> subprocess.Popen[str]:
    """In the foreground, until it runs."""
    file = tmp_path / "vm.yaml"
    file.write_text(text)
    process = qvirt.start("run", file, "--network", "none", "--accel", "tcg", *options)
    until = time.monotonic() + PATIENCE
    while phase(qvirt, name) != "Running":
        if process.poll() is not None or time.monotonic() > until:
            process.terminate()
            pytest.fail(f"it doesn't run: {process.communicate(timeout=PATIENCE)}")
        time.sleep(0.1)
    return process


def the_vm(name: str) -> Vm:
    return find(runtime_root(), "", name)


def launch(qvirt: Command, tmp_path: Path, name: str, *options: str, grace: int = 1) -> Finished:
    """A guest without a disk: its firmware finds nothing to boot and waits for ever."""
    file = tmp_path / "vm.yaml"
    file.write_text(manifest(name, grace=grace))
    return qvirt.run("run", file, "--detach", "--network", "none", "--accel", "tcg", *options)


def test_a_detached_life(qvirt: Command, tmp_path: Path, vm_name: str) -> None:
    """Run, list, ask, look at events, pause, stop: what a user does with a VM, in a user's own words."""
    started = launch(qvirt, tmp_path, vm_name)
    assert started.code == exits.OK, started.err
    assert f"qvirt: default/{vm_name}: the guest runs in emulation (TCG)" in started.err
    assert f"`qvirt stop {vm_name}` shuts down" in started.err

    table = qvirt.run("list").out.splitlines()
    assert table[0].split() == ["NAME", "NAMESPACE", "PHASE", "PID", "ACCEL", "ADDRESS", "UPTIME"]
    (line,) = [line.split() for line in table if line.startswith(vm_name)]
    assert (line[1], line[2], line[4], line[5]) == ("default", "Running", "tcg", "-")
    assert vm_name in qvirt.run("list", "-o", "name").out.split()

    status = qvirt.run("qmp", vm_name, "query-status")
    assert json.loads(status.out)["status"] == "running"
    named = qvirt.run("qmp", f"default/{vm_name}", "query-name")
    assert json.loads(named.out) == {"name": f"default_{vm_name}"}

    refused = qvirt.run("qmp", vm_name, "stop")
    assert refused.code == exits.FAILED
    assert "--operate" in refused.error
    assert qvirt.run("qmp", vm_name, "stop", "--operate").code == exits.OK
    assert phase(qvirt, vm_name) == "Paused"
    assert qvirt.run("qmp", vm_name, "cont", "--operate").code == exits.OK
    assert qvirt.run("qmp", vm_name, "no-such-command").code == exits.FAILED

    stopped = qvirt.run("stop", vm_name, "--force")
    assert (stopped.code, "the guest" in stopped.out) == (exits.OK, True)


def test_the_same_name_twice(qvirt: Command, tmp_path: Path, vm_name: str) -> None:
    assert launch(qvirt, tmp_path, vm_name).code == exits.OK
    second = launch(qvirt, tmp_path, vm_name)
    assert second.code == exits.HOST
    assert f"default/{vm_name}: is already running; stop it with `qvirt stop" in second.error
    assert phase(qvirt, vm_name) == "Running"
    qvirt.run("stop", vm_name, "--force")


def test_a_guest_that_ignores_the_power_button(
    qvirt: Command, tmp_path: Path, vm_name: str
) -> None:
    launch(qvirt, tmp_path, vm_name)
    stopped = qvirt.run("stop", vm_name, "--grace-period", "1")
    assert stopped.code == exits.KILLED
    assert "ignored the power button" in stopped.out


def test_the_log_of_a_detached_vm(qvirt: Command, tmp_path: Path, vm_name: str) -> None:
    """In the run directory it goes with the VM; where --log says, it stays."""
    log = tmp_path / "vm.log"
    launch(qvirt, tmp_path, vm_name, "--log", str(log))
    qvirt.run("stop", vm_name, "--force")
    assert "phase Running" in log.read_text()
    assert f"qvirt: default/{vm_name}: the guest" in log.read_text().splitlines()[-1]


def test_errors_before_the_guest_runs_are_the_foregrounds(
    qvirt: Command, tmp_path: Path, vm_name: str
) -> None:
    file = tmp_path / "vm.yaml"
    volume = {"name": "root", "containerDisk": {"image": "demo:v1"}}
    file.write_text(manifest(vm_name, volumes=[volume]))
    done = qvirt.run("run", file, "--detach", "--image", "demo:v1=gone.img")
    assert (done.code, "does not exist" in done.error) == (exits.HOST, True)


def test_a_milestone_that_is_not_reached_in_time(
    qvirt: Command, tmp_path: Path, vm_name: str
) -> None:
    done = launch(qvirt, tmp_path, vm_name, "--timeout", "0.01")
    assert done.code == exits.FAILED
    assert "was not running within 0.01 s and was stopped" in done.error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_guest_and_a_second_one_hurries(
    qvirt: Command, tmp_path: Path, vm_name: str, number: signal.Signals
) -> None:
    process = start(qvirt, tmp_path, vm_name, manifest(vm_name, grace=600))
    process.send_signal(number)
    wait_until(lambda: phase(qvirt, vm_name) == "Stopping")
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert "shutting down, 600 s at most; once more hurries" in err
    assert "hurrying" in err
    assert process.returncode == exits.OK


def test_a_signal_before_the_guest_runs(qvirt: Command, tmp_path: Path, vm_name: str) -> None:
    file = tmp_path / "vm.yaml"
    file.write_text(manifest(vm_name))
    process = qvirt.start("run", file, "--network", "none", "--accel", "tcg")
    wait_until(lambda: phase(qvirt, vm_name) != "")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    # As the case may be: before anything ran, or just after.
    assert process.returncode in {exits.OK, exits.FAILED, exits.KILLED}


def test_the_supervisor_has_one_thread(qvirt: Command, tmp_path: Path, vm_name: str) -> None:
    """Each further one would be a further SIGTERM for the launcher when the supervisor is killed."""
    launch(qvirt, tmp_path, vm_name)
    assert len(os.listdir(f"/proc/{the_vm(vm_name).record.supervisor}/task")) == 1
    qvirt.run("stop", vm_name, "--force")


def test_after_a_killed_supervisor_the_guest_is_shut_down_and_the_next_start_cleans_up(
    qvirt: Command, tmp_path: Path, vm_name: str
) -> None:
    launch(qvirt, tmp_path, vm_name, grace=3)
    record = the_vm(vm_name).record
    os.kill(record.supervisor, signal.SIGKILL)
    wait_until(lambda: phase(qvirt, vm_name) == "Stopping")
    again = launch(qvirt, tmp_path, vm_name)
    assert again.code == exits.OK, again.err
    assert "an earlier run was killed; its guest is being shut down first" in again.err
    assert the_vm(vm_name).record.launcher != record.launcher
    qvirt.run("stop", vm_name, "--force")


def test_a_killed_launcher_is_an_error_with_nothing_left(
    qvirt: Command, tmp_path: Path, vm_name: str
) -> None:
    process = start(qvirt, tmp_path, vm_name, manifest(vm_name))
    os.kill(the_vm(vm_name).record.launcher, signal.SIGKILL)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == exits.QEMU
    assert "its launcher ended without a word (SIGKILL)" in err


def test_a_killed_qemu_is_said(qvirt: Command, tmp_path: Path, vm_name: str) -> None:
    process = start(qvirt, tmp_path, vm_name, manifest(vm_name))
    rows = json.loads(qvirt.run("list", "-o", "json").out)
    (pid,) = [row["pid"] for row in rows if row["name"] == vm_name]
    os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == exits.QEMU
    assert err.splitlines()[-1].startswith(f"qvirt: error: default/{vm_name}: ")


def test_qmp_shell_and_the_stream_of_events(qvirt: Command, tmp_path: Path, vm_name: str) -> None:
    launch(qvirt, tmp_path, vm_name)
    path = qvirt.run("qmp", vm_name, "--socket").out.strip()
    shell = Path(qvirt.prefix[0]).parent / "qmp-shell"
    done = subprocess.run(
        [shell, path],
        input="query-status\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert '"running": true' in done.stdout

    stream = qvirt.start("qmp", vm_name, "--events")
    assert stream.stdout is not None
    time.sleep(1)  # nothing says when it listens
    qvirt.run("qmp", vm_name, "stop", "--operate")
    event = json.loads(stream.stdout.readline())
    while event["event"] != "STOP":
        event = json.loads(stream.stdout.readline())
    stream.send_signal(signal.SIGINT)
    stream.communicate(timeout=PATIENCE)
    assert stream.returncode == exits.OK
    qvirt.run("stop", vm_name, "--force")


def test_the_words_that_clusters_know(qvirt: Command, tmp_path: Path, vm_name: str) -> None:
    """They mean the VM of this machine when there is one of that name, kubeconfig or not."""
    launch(qvirt, tmp_path, vm_name)
    assert "is paused" in qvirt.run("pause", vm_name).out
    assert phase(qvirt, vm_name) == "Paused"
    assert "goes on" in qvirt.run("unpause", vm_name).out
    assert phase(qvirt, vm_name) == "Running"
    assert qvirt.run("restart", vm_name, "--force").code == exits.OK
    started = qvirt.run("start", vm_name)
    assert (started.code, "runs already" in started.error) == (exits.USAGE, True)
    nowhere = qvirt.run("port-forward", "--stdio", vm_name, "22")
    assert (nowhere.code, "--publish" in nowhere.error) == (exits.HOST, True)
    elsewhere = qvirt.run("pause", vm_name, "--kubeconfig", str(tmp_path / "none"))
    assert (elsewhere.code, "No such file" in elsewhere.error) == (exits.FAILED, True)
    qvirt.run("stop", vm_name, "--force")
    gone = qvirt.run("start", vm_name)
    assert (gone.code, "`qvirt run FILE`" in gone.error) == (exits.USAGE, True)


def test_vnc_through_the_proxy(qvirt: Command, tmp_path: Path, vm_name: str) -> None:
    launch(qvirt, tmp_path, vm_name)
    proxy = qvirt.start("vnc", vm_name, "--proxy-only")
    assert proxy.stdout is not None
    said = proxy.stdout.readline()
    found = re.search(r"127\.0\.0\.1:(\d+)", said)
    assert found, said
    for _ in range(2):  # one viewer after another
        with socket.create_connection(("127.0.0.1", int(found[1])), timeout=30) as viewer:
            assert viewer.recv(12).startswith(b"RFB 003.")
    proxy.send_signal(signal.SIGINT)
    proxy.communicate(timeout=PATIENCE)
    qvirt.run("stop", vm_name, "--force")


def fetch(address: str, page: str) -> str:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/{page}", timeout=10) as answer:
                return str(answer.read().decode())
        except OSError:
            assert time.monotonic() < until, "the guest's web server doesn't answer"
            time.sleep(0.5)


@pytest.mark.root
@pytest.mark.guest
def test_the_seeds_manifest_on_a_nat_bridge(
    qvirt: Command, tmp_path: Path, vm_name: str, demo_guest: str
) -> None:
    """From the manifest to an HTTP answer, and back to nothing."""
    file = tmp_path / "vm.yaml"
    file.write_text(seed_manifest(vm_name))
    done = qvirt.run("run", file, "--image", demo_guest, "--detach", "--wait", "ip")
    assert done.code == exits.OK, done.err
    boot = qvirt.run("console", vm_name, "--until", "login:", "--timeout", str(PATIENCE))
    assert (boot.code, f"{vm_name} login:" in boot.out) == (exits.OK, True), boot.err
    rows = json.loads(qvirt.run("list", "-o", "json").out)
    (row,) = [row for row in rows if row["name"] == vm_name]
    assert (row["network"], row["phase"]) == ("nat", "Running")
    assert row["user"] != "root"
    assert f"hostname: {vm_name}" in fetch(row["address"].split(",")[0], "")
    assert "test@test.com" in fetch(row["address"].split(",")[0], "authorized_keys")
    forwarding = qvirt.start("port-forward", vm_name, "0:80")
    assert forwarding.stdout is not None
    port = re.search(r"127\.0\.0\.1:(\d+)", forwarding.stdout.readline())
    assert port is not None
    assert fetch(f"127.0.0.1:{port[1]}", "hostname").strip() == vm_name
    forwarding.send_signal(signal.SIGINT)
    forwarding.communicate(timeout=PATIENCE)
    owner = Path(f"/proc/{row['pid']}").stat().st_uid
    assert owner != 0
    stopped = qvirt.run("stop", vm_name, "--grace-period", str(PATIENCE))
    assert stopped.code == exits.OK, stopped.out


@pytest.mark.root
@pytest.mark.guest
@pytest.mark.parametrize("network", ["user", "passt"])
def test_the_seeds_manifest_without_root(
    nobody: Command, vm_name: str, demo_guest: str, network: str
) -> None:
    file = nobody.cwd / "vm.yaml"
    file.write_text(seed_manifest(vm_name))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ("--network", network, "--publish", f"{port}:80", "--detach")
    done = nobody.run("run", file, "--image", demo_guest, *options)
    assert done.code == exits.OK, done.err
    assert "test@test.com" in fetch(f"127.0.0.1:{port}", "authorized_keys")
    assert f"127.0.0.1:{port}->80" in nobody.run("list").out
    stopped = nobody.run("stop", vm_name, "--grace-period", str(PATIENCE))
    assert stopped.code == exits.OK, stopped.err
    assert not Path("/tmp/qvirt-65534").exists()
    assert "passt -f" not in processes()


@pytest.mark.guest
def test_a_guest_that_powers_itself_off_ends_the_command(
    qvirt: Command, tmp_path: Path, vm_name: str, demo_guest: str
) -> None:
    process = start(qvirt, tmp_path, vm_name, seed_manifest(vm_name), "--image", demo_guest)
    assert (
        qvirt.run("console", vm_name, "--until", "login:", "--timeout", str(PATIENCE)).code
        == exits.OK
    )
    qvirt.run("console", vm_name, "--until", "# ", "--timeout", "30", stdin="root\n")
    qvirt.run("console", vm_name, "--timeout", str(PATIENCE), stdin="poweroff\n")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == exits.OK, err
    assert "the guest shut down" in err


@pytest.mark.guest
def test_the_console_in_the_foreground(
    qvirt: Command, tmp_path: Path, vm_name: str, demo_guest: str
) -> None:
    """On a terminal of its own: boot, log in, power off; the terminal is as before."""
    file = tmp_path / "vm.yaml"
    file.write_text(seed_manifest(vm_name))
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(
        qvirt.argv("run", file, "--image", demo_guest, "--network", "none", "--console"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=dict(qvirt.environment),
        start_new_session=True,
    )
    read_until(ours, b"login: ")
    os.write(ours, b"root\r")
    read_until(ours, b"# ")
    os.write(ours, b"poweroff\r")
    shown = read_until(ours, b"the guest shut down")
    assert b"qvirt: error" not in shown
    assert process.wait(timeout=PATIENCE) == exits.OK
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    os.close(theirs)


def read_until(handle: int, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        ready, _, _ = select.select([handle], [], [], PATIENCE)
        assert ready, f"{text!r} did not come, only {seen!r}"
        seen += os.read(handle, 4096)
    return seen
