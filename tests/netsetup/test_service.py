"""What the child answers to requests that make no sense, and how it reads its state."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.netsetup.conftest import MakeNetwork, MakeSpace

from qvirt_netsetup import client, state, wire
from qvirt_netsetup.errors import SetupFailed
from qvirt_netsetup.request import InterfaceRequest, NetworkReply, NetworkRequest


def ask_raw(document: bytes) -> NetworkReply:
    """One raw document to a child, and its answer."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = subprocess.Popen(
            [sys.executable, "-m", "qvirt_netsetup", "--fd", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        wire.send(ours, document)
        answer, fds = wire.receive(ours)
        assert child.wait(timeout=60) == 0
    assert not fds
    return msgspec.json.decode(answer, type=NetworkReply)


@pytest.mark.parametrize(
    ("document", "word"),
    [
        (b"", "truncated"),
        (b"[]", "array"),
        (b'{"verb": "sideways", "stateDir": "/tmp"}', "sideways"),
        (b'{"verb": "up", "stateDir": "/tmp", "colour": 1}', "colour"),
    ],
)
def test_nonsense(document: bytes, word: str) -> None:
    error = ask_raw(document).error
    assert error is not None
    assert error.reason == "NetworkRequestRefused"
    assert word in error.message


def nat(name: str, **changes: int) -> InterfaceRequest:
    return msgspec.structs.replace(InterfaceRequest(name=name, mode="nat"), **changes)


@pytest.mark.root
@pytest.mark.parametrize(
    ("name", "interfaces", "words"),
    [
        ("", (nat("a"),), "name"),
        ("vm", (), "interface"),
        ("vm", (nat("a"), nat("a")), "same name"),
        ("vm", (nat("a", queues=0),), "queues"),
        ("vm", (nat("a", queues=200), nat("b", queues=100)), "253"),
    ],
)
async def test_contradictions(
    name: str,
    interfaces: tuple[InterfaceRequest, ...],
    words: str,
    make_space: MakeSpace,
    make_network: MakeNetwork,
) -> None:
    request = NetworkRequest(verb="up", state_dir="", name=name, interfaces=interfaces)
    network = make_network(await make_space("host"))
    reply = await network.call("up", request)
    assert reply.error is not None
    assert words in reply.error.message
    assert not network.descriptors


@pytest.mark.root
async def test_damaged_state(make_space: MakeSpace, make_network: MakeNetwork) -> None:
    network = make_network(await make_space("host"))
    request = NetworkRequest(verb="up", state_dir="", name="vm", interfaces=(nat("a"),))
    await network.up(request)
    (path,) = network.directory.glob("*.json")
    path.write_text(path.read_text()[:40])
    reply = await network.call("down", request)
    assert reply.error is not None
    assert reply.error.reason == "NetworkStateUnreadable"
    assert str(path) in reply.error.message


async def test_a_helper_that_dies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    helper = tmp_path / "helper"
    helper.write_text("#!/bin/sh\necho the disk is on fire >&2\nexit 3\n")
    helper.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(helper))
    with pytest.raises(SetupFailed, match=r"no answer.*the disk is on fire"):
        await client.call(NetworkRequest(verb="clean", state_dir=str(tmp_path)))


async def test_a_helper_that_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    helper = tmp_path / "helper"
    helper.write_text("#!/bin/sh\nexec sleep 600\n")
    helper.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(helper))
    with pytest.raises(SetupFailed, match="no answer"):
        await client.call(NetworkRequest(verb="clean", state_dir=str(tmp_path)), deadline=0.2)


@given(st.binary(max_size=200_000), st.integers(0, 20))
def test_documents_and_descriptors_arrive(document: bytes, count: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, open("/dev/null", "rb") as null:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        text = b"{" + document
        wire.send(ours, text, (null.fileno(),) * count)
        got, fds = wire.receive(theirs)
        assert got == text
        assert len(fds) == count
        for fd in fds:
            assert not os.get_inheritable(fd)
            os.close(fd)


def test_a_process_number_used_again_is_another_process() -> None:
    mine = state.owner_of(os.getpid())
    assert state.is_alive(mine)
    assert not state.is_alive(msgspec.structs.replace(mine, start=mine.start + 1))
    assert not state.is_alive(state.owner_of(2**22 + 1))


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen(["true"])
    owner = state.owner_of(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not state.is_alive(owner)
    child.wait()
