"""Bytes between a client and a peer, whole and counted."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from qvirt_bench import peer, pipes
from qvirt_bench.errors import BenchError
from qvirt_bench.transfers import MB, Costs, Direction, Ends, Several, transfer

ENDS = Ends(config="", namespace="", guest="", pod="", address="127.0.0.1")


@pytest.fixture(scope="module")
def ports() -> Iterator[tuple[int, int]]:
    """Of a peer: source, sink."""
    with socket.create_server(("", 0)) as one, socket.create_server(("", 0)) as other:
        found = one.getsockname()[1], other.getsockname()[1]
    command = (sys.executable, "-m", "qvirt_bench.peer", *map(str, found))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield found
        process.kill()


@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_transfer_has_a_speed(ports: tuple[int, int], direction: Direction) -> None:
    costs = Costs()
    costs.start()
    assert transfer(ENDS, "direct", ports[direction == "up"], direction, 5 * MB) > 0
    costs.stop("all of it", 5 * MB)
    head, row = costs.table()
    assert len(head) == len(row)
    assert costs.of("all of it", "the client") >= 0


def test_a_source_that_ends_too_soon_is_no_speed(ports: tuple[int, int]) -> None:
    pipe = pipes.Direct("127.0.0.1", ports[0])
    pipe.send((1000).to_bytes(peer.HEAD, "big"))
    with pytest.raises(BenchError, match="1 bytes too soon"):
        pipe.take(1001)
    pipe.close()


def test_a_sink_answers_when_it_has_everything(ports: tuple[int, int]) -> None:
    pipe = pipes.Direct("127.0.0.1", ports[1])
    pipe.send((3).to_bytes(peer.HEAD, "big") + b"ab")
    pipe.send(b"c")
    assert pipe.take(1) == peer.DONE
    pipe.close()


def test_a_source_speaks_http_to_proxies(ports: tuple[int, int]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", ports[0], timeout=10)
    connection.request("GET", "/any/prefix/70000")
    assert len(connection.getresponse().read()) == 70000
    connection.close()


async def test_several_at_once_are_one_speed(ports: tuple[int, int]) -> None:
    async with Several() as several:
        for streams in (1, 3):
            assert await several.run(ENDS, "direct", ports[0], streams, 3 * MB) > 0
