"""Bytes through virt-api, as virtctl has them, in turns with a socket to the same place: throughput, echo, growth."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Final

from qvirt_bench import guests, keys, live, peer, pipes, smaps, subresources
from qvirt_bench.errors import BenchError
from qvirt_bench.figures import Curve, Figure, Measured, Plot
from qvirt_bench.soak.watch import processes_of_pods
from qvirt_bench.transfers import MB, Costs, Direction, Ends, Several, Way, dial, transfer

_NAMESPACE: Final = "qvirt-bench-streams"
_GUEST: Final = "streams"
_BYTES: Final = 200 * MB
_RUNS: Final = 3
#: A guest is slow to boot while others are at work.
_PATIENCE: Final = 240.0
#: Ports of the guest, by its start script; and of the peer in its pod, which the guest was given none of.
_GUEST_SOURCE, _GUEST_SINK = 5001, 5002
_PEER_SOURCE, _PEER_SINK = 5003, 5004
_AT_ONCE: Final = (1, 4, 16)
_OPEN: Final = (0, 32, 64, 128)
_REST_SECONDS: Final = 2.0

#: As peer.py has it: so many bytes are asked for by their number, and taken with one byte in return.
_SCRIPT: Final = f"""
cat >/run/source <<'END'
#!/bin/sh
dd of=/dev/null bs=1 count={peer.HEAD} 2>/dev/null
exec dd if=/dev/zero bs=100000 count={_BYTES // 100000} 2>/dev/null
END
cat >/run/sink <<'END'
#!/bin/sh
dd of=/dev/null bs=1 count={peer.HEAD} 2>/dev/null
dd of=/dev/null bs=100000 count={_BYTES // 100000} iflag=fullblock 2>/dev/null
printf '!'
END
chmod 755 /run/source /run/sink
nc -ll -p {_GUEST_SOURCE} -e /run/source &
nc -ll -p {_GUEST_SINK} -e /run/sink &
"""

Samples = dict[Way, tuple[float, ...]]


async def measure() -> Measured:
    """A guest, its console, its ports, and a peer at its address."""
    async with live.cluster(_NAMESPACE) as cluster:
        spec = guests.spec("masquerade", script=_SCRIPT, ports=(80, _GUEST_SOURCE, _GUEST_SINK))
        await cluster.kube.create(
            cluster.path("virtualmachineinstances"), guests.instance(_GUEST, spec)
        )
        address = await guests.running(cluster, _GUEST)
        ends, launcher = await _ends(cluster, address)
        await _listening(ends, _GUEST_SINK)
        async with subresources.stream(cluster.target(), _GUEST, "console") as console:
            console.send(b"\r")
            await subresources.until(console, b"login:", _PATIENCE)
        echo = await keys.echo(cluster.target(), _GUEST, launcher)
        both: tuple[Way, ...] = ("direct", "forwarded")
        down = await _in_turns(ends, both, _GUEST_SOURCE, "down")
        up = await _in_turns(ends, both, _GUEST_SINK, "up")
        costs = Costs()
        async with _peer(launcher), Several() as several:
            await _listening(ends, _PEER_SINK)
            held = await _held(ends)
            ways = (*both, "proxied")
            fast_down = await _in_turns(ends, ways, _PEER_SOURCE, "down", costs)
            fast_up = await _in_turns(ends, both, _PEER_SINK, "up", costs)
            many = {
                way: [await several.run(ends, way, _PEER_SOURCE, n, _BYTES) for n in _AT_ONCE]
                for way in both
            }
    return Measured(
        figures=(
            _throughput("port-forward, from the guest", down),
            _throughput("port-forward, to the guest", up),
            _throughput("port-forward, from a peer at the guest's address", fast_down),
            _throughput("port-forward, to a peer at the guest's address", fast_up),
            Figure(
                name="port-forward, from a peer, against Kubernetes' own way",
                unit="MB/s",
                ours=fast_down["forwarded"],
                baseline=fast_down["proxied"],
                baseline_name="kube-apiserver's proxy to the same port, with no virt-api",
                kind="ratio",
                better="more",
            ),
            Figure(
                name="console: from a key to its echo",
                unit="ms",
                ours=echo[1],
                baseline=echo[0],
                baseline_name="the launcher's console socket",
                kind="difference",
            ),
        ),
        notes=(*_NOTES, _bound(costs, fast_down)),
        table=costs.table(),
        plots=(
            Plot(
                title="Streams at once, from a peer at the guest's address",
                x="streams",
                y="MB/s of all of them",
                curves=(
                    _curve("a socket for each", _AT_ONCE, many["direct"]),
                    _curve("through virt-api", _AT_ONCE, many["forwarded"]),
                ),
            ),
            Plot(
                title="Open streams in which nothing happens",
                x="streams",
                y="MiB of virt-api (both replicas, not shared)",
                curves=(_curve("virt-api", _OPEN, held),),
            ),
        ),
    )


_NOTES: Final = (
    f"{_BYTES // MB} MB each, {_RUNS} times in turns. Ours: client, kube-apiserver, virt-api, guest, with TLS between the first three and a websocket "
    "from the client to virt-api. Baseline: a socket from this machine to the same address and port, by the same client's loop.",
    "An emulated guest is slow itself, so a peer without emulation is measured as well: a program in the network namespace of the guest's pod, which "
    "virt-api reaches at the guest's address as it reaches the guest.",
    f"Echo: one key at the guest's login prompt, and its echo; medians of {keys.ROUNDS} times {keys.KEYS} keys, both ways in turns.",
)


def _bound(costs: Costs, samples: Samples) -> str:
    """What stands between a forwarded port and a socket that is not ours."""
    what = _what("forwarded", "down")
    others = sum(costs.of(what, who) for who in ("kube-apiserver", "the client", "peer"))
    cpus = os.cpu_count() or 1
    most = cpus / others * 1000
    direct = statistics.median(samples["direct"])
    return (
        f"The peer has no emulation that hides the cost of the way. Without virt-api, those at its sides (kube-apiserver decrypts and encrypts each byte, "
        f"the client decrypts it) need {others:.2f} s of CPU for each GB: with a virt-api that cost nothing {cpus} CPUs could carry {most:.0f} MB/s, "
        f"{most / direct:.2f}x of the socket's {direct:.0f}; virt-api itself needs {costs.of(what, 'virt-api'):.2f} s."
    )


def _throughput(name: str, samples: Samples) -> Figure:
    return Figure(
        name=name,
        unit="MB/s",
        ours=samples["forwarded"],
        baseline=samples["direct"],
        baseline_name="a socket to the same port",
        kind="ratio",
        aim=0.5,
        better="more",
    )


def _curve(name: str, xs: Sequence[int], ys: Sequence[float]) -> Curve:
    return Curve(name=name, points=tuple((float(x), y) for x, y in zip(xs, ys, strict=True)))


async def _ends(cluster: live.Live, address: str) -> tuple[Ends, int]:
    """Where the guest is, and its launcher's process number."""
    (pod,) = await cluster.items("pods")
    ends = Ends(
        config=cluster.config,
        namespace=cluster.namespace,
        guest=_GUEST,
        pod=pod["metadata"]["name"],
        address=address,
    )
    for pid, name in processes_of_pods().get(pod["metadata"]["uid"], {}).items():
        if name in ("virt-launcher", "python3"):
            return ends, pid
    raise BenchError("the launcher is not on this machine: the cluster's node must be this one")


@contextlib.asynccontextmanager
async def _peer(launcher: int) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        *("nsenter", f"--net=/proc/{launcher}/ns/net", sys.executable, "-m", "qvirt_bench.peer"),
        *(str(_PEER_SOURCE), str(_PEER_SINK)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            if await process.stdout.readline() != b"ready\n":
                raise BenchError("the peer in the guest's pod does not start")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _listening(ends: Ends, port: int) -> None:
    """Until a port takes connections."""
    async with asyncio.timeout(_PATIENCE):
        while True:
            try:
                (await asyncio.to_thread(dial, ends, "direct", port)).close()
            except OSError:
                await asyncio.sleep(1)
            else:
                return


async def _in_turns(
    ends: Ends, ways: Sequence[Way], port: int, direction: Direction, costs: Costs | None = None
) -> Samples:
    """MB/s of each way."""
    samples: dict[Way, list[float]] = {way: [] for way in ways}
    for _ in range(_RUNS):
        for way in ways:
            if costs is not None:
                costs.start()
            samples[way].append(
                await asyncio.to_thread(transfer, ends, way, port, direction, _BYTES)
            )
            if costs is not None:
                costs.stop(_what(way, direction), _BYTES)
    return {way: tuple(values) for way, values in samples.items()}


def _what(way: Way, direction: Direction) -> str:
    shown = {
        "direct": "a socket",
        "forwarded": "port-forward",
        "proxied": "kube-apiserver's own proxy",
    }
    return f"{shown[way]}, {'from' if direction == 'down' else 'to'} the peer"


async def _held(ends: Ends) -> list[float]:
    """MiB of virt-api with so many streams open. The first ones, which fill what Python keeps for reuse, don't count."""
    points: list[float] = []
    opened: list[pipes.Pipe] = []
    try:
        for warm in (True, False):
            for number in _OPEN:
                while len(opened) < number:
                    opened.append(await asyncio.to_thread(dial, ends, "forwarded", _PEER_SINK))
                await asyncio.sleep(_REST_SECONDS)
                if not warm:
                    points.append(round(_virt_api() / smaps.MIB, 2))
            while opened:
                opened.pop().close()
            await asyncio.sleep(_REST_SECONDS)
    finally:
        for pipe in opened:
            pipe.close()
    return points


def _virt_api() -> int:
    """Bytes of all its processes that nobody shares."""
    pids = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
                if file.read().split(b"\0")[1:3] == [b"-m", b"qvirt_api"]:
                    pids.append(int(name))
    return smaps.of_processes(pids).anon
