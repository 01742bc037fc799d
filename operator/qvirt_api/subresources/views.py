"""What this API looks at in a VirtualMachine and its instance. Anything that makes no sense reads as absent."""

from __future__ import annotations

from typing import Final

from qvirt_crds.meta import JsonObject as Object

#: Phases that no instance leaves.
FINAL: Final = ("Succeeded", "Failed")


class Machine:
    """A VirtualMachine as the API server has it."""

    def __init__(self, data: Object) -> None:
        self.data = data
        self.name = str(data["metadata"]["name"])
        self.namespace = str(data["metadata"]["namespace"])
        self.resource_version = str(data["metadata"].get("resourceVersion", ""))
        self.spec = _mapping(data.get("spec"))
        self.status = _mapping(data.get("status"))

    @property
    def strategy(self) -> str:
        """``runStrategy``, or what ``running`` means."""
        named = self.spec.get("runStrategy")
        if isinstance(named, str) and named:
            return named
        return "Always" if self.spec.get("running") is True else "Halted"

    @property
    def requests(self) -> list[object]:
        """What was asked for and is not done yet."""
        found = self.status.get("stateChangeRequests")
        return found if isinstance(found, list) else []


class Instance:
    """A VirtualMachineInstance as the API server has it."""

    def __init__(self, data: Object) -> None:
        self.data = data
        metadata = data["metadata"]
        self.name = str(metadata["name"])
        self.namespace = str(metadata["namespace"])
        self.uid = str(metadata["uid"])
        self.spec = _mapping(data.get("spec"))
        self.status = _mapping(data.get("status"))

    @property
    def phase(self) -> str:
        return str(self.status.get("phase") or "")

    @property
    def running(self) -> bool:
        return self.phase == "Running"

    @property
    def final(self) -> bool:
        return self.phase in FINAL

    @property
    def node(self) -> str:
        """Empty before a node is known."""
        return str(self.status.get("nodeName") or "")

    @property
    def grace_seconds(self) -> int | None:
        """How long the guest may take to shut down; None: the spec says nothing."""
        found = self.spec.get("terminationGracePeriodSeconds")
        return found if isinstance(found, int) else None

    @property
    def address(self) -> str:
        """Where the guest's ports are reached; empty: not known, or there is no network."""
        interfaces = self.status.get("interfaces")
        first = interfaces[0] if isinstance(interfaces, list) and interfaces else None
        return str(_mapping(first).get("ipAddress") or "")

    @property
    def has_interfaces(self) -> bool:
        return bool(self.status.get("interfaces"))

    def is_true(self, condition: str) -> bool:
        """Whether a condition of the status is True."""
        found = self.status.get("conditions")
        return any(
            _mapping(one).get("type") == condition and _mapping(one).get("status") == "True"
            for one in (found if isinstance(found, list) else [])
        )

    def domain(self, *path: str) -> object:
        """A value below ``spec.domain``; None: not there."""
        value: object = self.spec.get("domain")
        for key in path:
            value = _mapping(value).get(key)
        return value


def _mapping(value: object) -> Object:
    return value if isinstance(value, dict) else {}
