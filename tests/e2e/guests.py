"""Virtual machines of the demo guest, and talk with the guest itself over HTTP at its own address."""

from __future__ import annotations

import http.client
import time
from typing import Any

Object = dict[str, Any]

#: Where `conftest.registry_images` puts the demo guest.
DEMO_IMAGE = "qvirt/demo-guest:latest"

#: A guest that runs what is posted to it. It is a guest for tests, on a network that ends at this machine.
SHELL = """#!/bin/sh
cat >/run/www/cgi-bin/sh <<'END'
#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
eval "$(cat)" 2>&1
END
chmod 755 /run/www/cgi-bin/sh
"""


def instance_spec(
    *,
    script: str = "",
    grace: int = 5,
    binding: str = "bridge",
    disks: dict[str, Object] | None = None,
    **more: Any,
) -> Object:
    """The spec of an instance of the demo guest, 64 MiB.

    :param script: more lines for the guest's start script.
    :param disks: name -> volume source, attached by virtio after the root disk and the seed.
    """
    volumes = {
        "root": {"containerDisk": {"image": DEMO_IMAGE}},
        "seed": {"cloudInitNoCloud": {"userData": SHELL + script}},
        **(disks or {}),
    }
    return {
        "terminationGracePeriodSeconds": grace,
        "domain": {
            "memory": {"guest": "64Mi"},
            "devices": {
                "disks": [{"name": name, "disk": {"bus": "virtio"}} for name in volumes],
                "interfaces": [{"name": "default", binding: {}}],
                "panicDevices": [{"model": "pvpanic"}],
            },
        },
        "networks": [{"name": "default", "pod": {}}],
        "volumes": [{"name": name, **source} for name, source in volumes.items()],
        **more,
    }


def instance(name: str, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    """A VirtualMachineInstance."""
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": instance_spec(**spec),
    }


def machine(
    name: str, strategy: str = "Always", labels: dict[str, str] | None = None, **spec: Any
) -> Object:
    """A VirtualMachine."""
    template = {"metadata": {"labels": labels or {}}, "spec": instance_spec(**spec)}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": name},
        "spec": {"runStrategy": strategy, "template": template},
    }


class Guest:
    """The demo guest behind an address."""

    def __init__(self, address: str, port: int = 80) -> None:
        self._address = address
        self._port = port

    def page(self, path: str = "/", *, body: str | None = None) -> str:
        """What it serves.

        :raise OSError: no answer.
        """
        connection = http.client.HTTPConnection(self._address, self._port, timeout=10)
        try:
            connection.request("GET" if body is None else "POST", path, body=body)
            response = connection.getresponse()
            text = response.read().decode(errors="replace")
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()
        if response.status != 200:
            raise OSError(f"{path}: {response.status}")
        return text

    def answers(self, path: str = "/") -> bool:
        """Whether it does, now."""
        try:
            self.page(path)
        except OSError:
            return False
        return True

    def run(self, command: str, deadline: float = 60) -> str:
        """What a command prints; the guest's shell is there as soon as it has an address.

        :raise AssertionError: not in time.
        """
        end = time.monotonic() + deadline
        while True:
            try:
                return self.page("/cgi-bin/sh", body=command).strip()
            except OSError as error:
                if time.monotonic() > end:
                    raise AssertionError(f"{self._address}: {command}: {error}") from error
                time.sleep(0.5)

    def leave(self, command: str) -> None:
        """A command that ends the guest, or lasts: nothing is waited for."""
        self.run(f"(sleep 0.3; {command}) >/dev/null 2>&1 </dev/null &")
