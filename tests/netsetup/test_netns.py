"""What network namespaces are called where something is remembered about them."""

from __future__ import annotations

import os
import uuid

import pytest
from tests.netsetup.conftest import run

from qvirt_netsetup import netns

pytestmark = pytest.mark.root


async def _look() -> tuple[str, int]:
    return netns.identity(), os.stat("/proc/thread-self/ns/net").st_ino


async def test_a_namespace_does_not_inherit_the_name_of_a_dead_one() -> None:
    """The kernel reuses inodes at once: a pod would get the address that a dead pod before it had."""
    space = f"qvn{uuid.uuid4().hex[:8]}"
    names: set[str] = set()
    inodes: list[int] = []
    for _ in range(20):
        await run("ip", "netns", "add", space)
        try:
            name, inode = await netns.run_inside(f"/run/netns/{space}", _look)
            assert await netns.run_inside(f"/run/netns/{space}", _look) == (name, inode)
        finally:
            await run("ip", "netns", "del", space)
        names.add(name)
        inodes.append(inode)
    assert len(names) == len(inodes)
    if len(set(inodes)) == len(inodes):
        pytest.skip("this kernel gave no inode twice")
