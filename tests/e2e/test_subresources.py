"""What virtctl does, against the real API server, virt-api, virt-handler and a real guest."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.api.virtctl import Refused, Stream, Virtctl, from_kubeconfig
from tests.e2e import screen
from tests.e2e.conftest import Cluster
from tests.e2e.guests import Guest, instance, machine

from qvirt_api.subresources.table import ENDPOINTS, GROUP

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.slow, pytest.mark.timeout(900)]

_MEGABYTES = 200


@pytest.fixture
async def virtctl(cluster: Cluster) -> AsyncIterator[Virtctl]:
    """As the cluster's administrator."""
    async with from_kubeconfig(cluster.kubeconfig, cluster.namespace) as client:
        yield client


async def running(cluster: Cluster, name: str) -> Guest:
    return await asyncio.to_thread(cluster.running, name)


async def until(cluster: Cluster, vm: str, shown: str) -> None:
    def is_so() -> bool:
        return cluster.printable(vm) == shown

    await asyncio.to_thread(cluster.until, f"{vm} is {shown}", is_so)


async def test_power(cluster: Cluster, virtctl: Virtctl) -> None:
    cluster.apply(machine("vm", "Manual"))
    await until(cluster, "vm", "Stopped")

    assert (await virtctl.start("vm", paused=True)).status == 202
    await until(cluster, "vm", "Paused")
    answer = await virtctl.start("vm")
    assert (answer.status, "VM is already running" in answer.message) == (409, True)
    assert (await virtctl.press("vm", "unpause")).status == 200
    guest = await running(cluster, "vm")
    first = cluster.get("vmi", "vm")["metadata"]["uid"]
    boot = guest.run("cat /proc/sys/kernel/random/boot_id")

    assert (await virtctl.press("vm", "reset")).status == 200
    await asyncio.to_thread(cluster.until, "it boots again", lambda: _boot(guest) not in ("", boot))
    assert cluster.get("vmi", "vm")["metadata"]["uid"] == first

    answer = await virtctl.restart("vm")
    assert answer.status == 202, answer
    await asyncio.to_thread(
        cluster.until, "another instance", lambda: _uid(cluster) not in ("", first)
    )
    await running(cluster, "vm")

    answer = await virtctl.stop("vm", gracePeriod=0)
    assert answer.status == 202, answer
    await until(cluster, "vm", "Stopped")
    answer = await virtctl.stop("vm")
    assert (answer.status, "VM is not running" in answer.message) == (409, True)


def _uid(cluster: Cluster) -> str:
    return str(cluster.get("vmi", "vm").get("metadata", {}).get("uid", ""))


def _boot(guest: Guest) -> str:
    try:
        return guest.page("/cgi-bin/sh", body="cat /proc/sys/kernel/random/boot_id").strip()
    except OSError:
        return ""


async def test_console(cluster: Cluster, virtctl: Virtctl) -> None:
    """Log in and run a command; a second session takes over, and 50 more leave nothing behind."""
    cluster.apply(instance("vm"))
    await _console_opens(virtctl)
    await running(cluster, "vm")
    async with virtctl.console("vm") as console:
        await console.send(b"\r")
        await console.until("login:")
        await console.send(b"root\r")
        await console.until("# ")
        await console.send(b"echo $((6 * 7)) is the answer\r")
        await console.until("42 is the answer")
        async with virtctl.console("vm") as second:
            # What was on the console before comes first.
            await second.until("42 is the answer")
            await console.rest()
            assert console.code == 1006
            await second.send(b"echo $((6 * 9))\r")
            await second.until("54")
    await asyncio.sleep(2)
    before = _descriptors()
    assert set(before) == {"qvirt_api", "qvirt_handler"}
    for _ in range(50):
        async with virtctl.console("vm") as console:
            await console.receive()
    await asyncio.to_thread(
        cluster.until,
        f"as many descriptors as before ({before})",
        lambda: all(count <= before[name] for name, count in _descriptors().items()),
    )


async def _console_opens(virtctl: Virtctl) -> None:
    """As virtctl does: once more each second while the answer is 400 (404: the instance is just being made)."""
    while True:
        try:
            async with virtctl.console("vm") as console:
                await console.receive()
                return
        except Refused as error:
            if error.answer.status not in (400, 404):
                raise
        await asyncio.sleep(1)


def _descriptors() -> dict[str, int]:
    """Of all processes of a component on this machine, which is the node; each at its lowest of a second."""
    lowest: dict[str, int] = {}
    for _ in range(5):
        found: dict[str, int] = {}
        for path in Path("/proc").iterdir():
            if path.name.isdecimal():
                words = _words(path)
                for name in ("qvirt_api", "qvirt_handler"):
                    if words[1:3] == ["-m", name]:
                        found[name] = found.get(name, 0) + len(list((path / "fd").iterdir()))
        lowest = {name: min(count, lowest.get(name, count)) for name, count in found.items()}
        time.sleep(0.2)
    return lowest


def _words(process: Path) -> list[str]:
    try:
        return (process / "cmdline").read_bytes().decode().split("\0")
    except OSError:
        return []


async def test_a_paused_guest_has_no_time(cluster: Cluster, virtctl: Virtctl) -> None:
    cluster.apply(machine("vm"))
    guest = await running(cluster, "vm")

    def uptime() -> float:
        return float(guest.run("cat /proc/uptime").split()[0])

    before, started = uptime(), time.monotonic()
    assert (await virtctl.press("vm", "pause")).status == 200
    await until(cluster, "vm", "Paused")
    answer = await virtctl.press("vm", "pause")
    assert (answer.status, "VMI is already paused" in answer.message) == (409, True)
    path = virtctl.path("virtualmachineinstances", "vm", "portforward/80")
    answer = await virtctl.refusal(path)
    assert (answer.status, "VMI is paused" in answer.message) == (409, True)
    await asyncio.sleep(15)
    paused = time.monotonic()
    assert (await virtctl.press("vm", "unpause")).status == 200
    await until(cluster, "vm", "Running")
    gone, passed = uptime() - before, time.monotonic() - started
    assert gone < passed - 10, (gone, passed, paused - started)


async def test_port_forward(cluster: Cluster, virtctl: Virtctl) -> None:
    cluster.apply(machine("vm", binding="masquerade"))
    guest = await running(cluster, "vm")
    # Its start script, which makes the shell, comes later than its web server, and ssh (port 0x16) after that.
    listens = "until grep -q ':0016 .* 0A ' /proc/net/tcp /proc/net/tcp6; do sleep 1; done"
    await asyncio.to_thread(guest.run, listens, 300)
    for kind in ("vm", "vmi"):
        async with virtctl.port_forward(kind, "vm", 80) as stream:
            await stream.send(b"GET /hostname HTTP/1.0\r\n\r\n")
            page = await stream.rest()
            assert stream.code == 1000
        assert page.startswith(b"HTTP/1.")
        assert page.rstrip().endswith(b"vm")
    async with virtctl.port_forward("vmi", "vm", 7, "udp") as stream:
        assert await _echoed(stream, b"datagram") == b"datagram"
    async with virtctl.port_forward("vmi", "vm", 22) as stream:
        await stream.until("SSH-2.0-")
    answer = await virtctl.refusal(virtctl.path("virtualmachines", "vm", "portforward/4/tcp"))
    assert (answer.status, answer.message.startswith("dialing VM: ")) == (500, True)

    script = f"#!/bin/sh\nprintf '\\r\\n'\ndd if=/dev/zero bs=1M count={_MEGABYTES} 2>/dev/null"
    guest.run(f"cat >/run/www/cgi-bin/much <<'X'\n{script}\nX\nchmod 755 /run/www/cgi-bin/much")
    wanted = hashlib.sha256()
    for _ in range(_MEGABYTES):
        wanted.update(bytes(1 << 20))
    seen, length = hashlib.sha256(), -1
    async with virtctl.port_forward("vm", "vm", 80) as stream:
        await stream.send(b"GET /cgi-bin/much HTTP/1.0\r\n\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive()
        rest = head.partition(b"\r\n\r\n")[2]
        length = len(rest)
        seen.update(rest)
        while chunk := await stream.receive():
            seen.update(chunk)
            length += len(chunk)
    assert length == _MEGABYTES << 20
    assert seen.digest() == wanted.digest()


async def _echoed(stream: Stream, data: bytes) -> bytes:
    """Asked again and again: datagrams get lost, most of all while nobody listens yet."""
    for _ in range(30):
        await stream.send(data)
        with contextlib.suppress(TimeoutError):
            return await stream.receive(2)
    raise AssertionError("no answer")


async def test_screen(cluster: Cluster, virtctl: Virtctl) -> None:
    cluster.apply(instance("vm"))
    await running(cluster, "vm")
    async with asyncio.timeout(180):
        while True:
            answer = await virtctl.screenshot("vm")
            assert (answer.status, answer.content_type) == (200, "image/png"), answer
            text = screen.text(answer.body)
            if "login:" in text:
                break
            await asyncio.sleep(2)
    async with virtctl.vnc("vm") as rfb:
        await rfb.until("RFB 003.00")
        async with virtctl.vnc("vm") as second:
            await second.until("RFB 003.00")
            await rfb.rest()
            assert rfb.code == 1006
            path = virtctl.path("virtualmachineinstances", "vm", "vnc?preserveSession=true")
            answer = await virtctl.refusal(path)
            assert answer.status == 500
            assert "Active VNC connection. Request denied." in answer.message


async def test_the_qvirt_command(cluster: Cluster, tmp_path: Path) -> None:
    """The same for people without virtctl."""
    key = tmp_path / "key"
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    public = Path(f"{key}.pub").read_text().strip()
    script = f"mkdir -p /root/.ssh; echo '{public}' >>/root/.ssh/authorized_keys\n"
    cluster.apply(machine("vm", "Halted", script=script))
    where = ("--kubeconfig", cluster.kubeconfig, "-n", cluster.namespace)

    def qvirt(*words: str) -> str:
        environment = {**os.environ, "HOME": str(tmp_path)}
        return _run(
            sys.executable, "-m", "qvirt_launcher.cli.main", *words, environment=environment
        )

    (tmp_path / ".ssh").mkdir(mode=0o700)

    def life() -> None:
        qvirt("start", "vm", *where)
        for line in ("login:", "ssh: ready"):
            assert line in qvirt("console", "vm", "--until", line, "--timeout", "240", *where)
        cluster.running("vm")
        hosted = qvirt("ssh", "root@vm", "-i", str(key), "-c", "hostname", *where)
        assert hosted.strip().endswith("vm")
        qvirt("pause", "vm", *where)
        cluster.until("it is paused", lambda: cluster.printable("vm") == "Paused")
        qvirt("unpause", "vm", *where)
        assert "has ended" in qvirt("stop", "vm", *where)

    await asyncio.to_thread(life)


def _run(*words: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        words,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, f"{words}: {done.stdout[-1000:]} {done.stderr[-1000:]}"
    return done.stdout


async def test_who_may_do_nothing(cluster: Cluster) -> None:
    """Denied for every subresource; the API server says so itself."""
    cluster.apply(machine("vm", "Manual"))
    async with from_kubeconfig(cluster.kubeconfig, cluster.namespace, user="nobody") as nobody:
        for version in ("v1", "v1alpha3"):
            for endpoint in ENDPOINTS:
                for path in endpoint.paths:
                    if endpoint.resource == "cluster" and endpoint.name in ("version", "guestfs"):
                        continue  # for everybody who is known
                    filled = path.format(
                        namespace=cluster.namespace,
                        name="vm",
                        port=80,
                        protocol="tcp",
                        file="screen.js",
                    )
                    url = f"{nobody.server}/apis/{GROUP}/{version}{filled}"
                    answer = await nobody.request(endpoint.method, url)
                    assert answer.status == 403, (url, answer)
    assert not cluster.get("vm", "vm").get("status", {}).get("stateChangeRequests")


async def test_what_is_missing_says_so(cluster: Cluster, virtctl: Virtctl) -> None:
    cluster.apply(machine("vm", "Manual"))
    for endpoint in ENDPOINTS:
        if endpoint.missing:
            (path,) = endpoint.paths
            filled = path.format(namespace=cluster.namespace, name="vm")
            url = f"{virtctl.server}/apis/{GROUP}/v1{filled}"
            answer = await virtctl.request(endpoint.method, url)
            assert (answer.status, endpoint.missing in answer.message) == (501, True), answer


async def test_kubectl_knows_the_api(cluster: Cluster, virtctl: Virtctl) -> None:
    assert "subresources.kubevirt.io/v1" in cluster.kubectl("api-versions").split()
    assert (await virtctl.version()).json()["gitVersion"].startswith("v")
    cluster.apply(machine("vm", "Manual"))
    path = f"/apis/{GROUP}/v1/namespaces/{cluster.namespace}/virtualmachines/vm/expand-spec"
    assert '"VirtualMachine"' in cluster.kubectl("get", "--raw", path)
