"""vhost-net beside the taps: its descriptors' places, and that a kernel without it is no error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.netsetup.conftest import MakeSpace

from qvirt_netsetup import api, tap
from qvirt_netsetup.request import InterfaceRequest, NetworkRequest

pytestmark = pytest.mark.root


def _request(netns: str, directory: Path) -> NetworkRequest:
    return NetworkRequest(
        verb="up",
        name="fast",
        netns=netns,
        state_dir=str(directory / "state"),
        owner_pid=os.getpid(),
        interfaces=(
            InterfaceRequest(name="slow", mode="nat"),
            InterfaceRequest(name="fast", mode="nat", queues=2, vhost=True),
        ),
    )


@pytest.mark.parametrize("device", ["/dev/null", "/dev/there-is-none"])
async def test_one_for_each_queue_of_those_that_want_it(
    make_space: MakeSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(tap, "_VHOST", device)
    space = await make_space("host")
    request = _request(space.path, tmp_path)
    outcome = await api.setup(request)
    try:
        slow, fast = outcome.reply.attachments
        assert slow.vhost_fds == ()
        found = [os.readlink(f"/proc/self/fd/{outcome.descriptors[n]}") for n in fast.vhost_fds]
        assert found == (["/dev/null"] * 2 if device == "/dev/null" else [])
        named = [*slow.tap_fds, *fast.tap_fds, *fast.vhost_fds, slow.dhcp_fd, fast.dhcp_fd]
        assert sorted(n for n in named if n is not None) == list(range(len(outcome.descriptors)))
    finally:
        for fd in outcome.descriptors:
            os.close(fd)
        await api.teardown(request)
