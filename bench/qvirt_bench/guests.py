"""Instances of the demo guest on a real cluster."""

from __future__ import annotations

import asyncio
import http.client
from typing import Final, Literal

from qvirt_bench.errors import BenchError
from qvirt_bench.live import DEMO_IMAGE, Live
from qvirt_kube.client import Object
from qvirt_kube.errors import KubeError, NotFound, Unavailable

Binding = Literal["bridge", "masquerade"]
#: Not 64: as large as the buffer of translated code, in which the guest's RAM could not be told from it.
MEMORY_MIB: Final = 80
_POLL_SECONDS: Final = 1.0
_PAGE_SECONDS: Final = 10.0


def spec(
    binding: Binding = "bridge", *, script: str = "", ports: tuple[int, ...] = (), grace: int = 5
) -> Object:
    """An instance's spec.

    :param script: lines of the guest's start script.
    :param ports: the guest's only ones, for masquerade; others are the pod's.
    """
    volumes: dict[str, Object] = {"root": {"containerDisk": {"image": DEMO_IMAGE}}}
    if script:
        volumes["seed"] = {"cloudInitNoCloud": {"userData": f"#!/bin/sh\n{script}"}}
    interface: Object = {"name": "default", binding: {}}
    if ports:
        interface["ports"] = [{"port": port} for port in ports]
    return {
        "terminationGracePeriodSeconds": grace,
        "domain": {
            "memory": {"guest": f"{MEMORY_MIB}Mi"},
            "devices": {
                "disks": [{"name": name, "disk": {"bus": "virtio"}} for name in volumes],
                "interfaces": [interface],
            },
        },
        "networks": [{"name": "default", "pod": {}}],
        "volumes": [{"name": name, **source} for name, source in volumes.items()],
    }


def instance(name: str, of: Object) -> Object:
    """A VirtualMachineInstance."""
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name},
        "spec": of,
    }


def machine(name: str, of: Object) -> Object:
    """A VirtualMachine that runs."""
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": name},
        "spec": {"runStrategy": "Always", "template": {"spec": of}},
    }


async def running(live: Live, name: str, seconds: float = 300) -> str:
    """The guest's address, as soon as its web server answers.

    :raise BenchError: not in time, or it failed.
    """
    phase = ""
    try:
        async with asyncio.timeout(seconds):
            while True:
                status = await _status(live, name)
                phase = str(status.get("phase") or "")
                if phase in ("Failed", "Succeeded"):
                    raise BenchError(f"guest {name} is {phase}: {status}")
                address = str((status.get("interfaces") or [{}])[0].get("ipAddress") or "")
                if phase == "Running" and address and await asyncio.to_thread(answers, address):
                    return address
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError as error:
        raise BenchError(f"guest {name} does not answer in {seconds:.0f} s: {phase}") from error


async def _status(live: Live, name: str) -> Object:
    try:
        found = await live.kube.get(live.path("virtualmachineinstances", name))
    except (NotFound, Unavailable):
        return {}
    return found.get("status") or {}


async def gone(live: Live, name: str, seconds: float = 180) -> None:
    """Until neither the instance nor a pod of it is there.

    :raise BenchError: not in time.
    """
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    pods = await live.items("pods", labelSelector=f"vmi.kubevirt.io/id={name}")
                    if not pods:
                        await live.kube.get(live.path("virtualmachineinstances", name))
                except NotFound:
                    return
                except KubeError:
                    pass
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError as error:
        raise BenchError(f"guest {name} is not gone in {seconds:.0f} s") from error


def answers(address: str, path: str = "/hostname") -> bool:
    """Whether the guest's web server does, now."""
    connection = http.client.HTTPConnection(address, 80, timeout=_PAGE_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
