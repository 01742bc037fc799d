"""All that is observed of one VirtualMachine, for the deciders."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from qvirt_operator.decisions import Failure
from qvirt_operator.views import Meta, Object, View, Vmi, convert, lenient, status_of

#: A request of virt-controller's own: the rerun of a guest that failed.
RERUN: Final[Object] = {"action": "Start", "data": {"rerun": "true"}}
#: Strategies that start a guest by themselves, and so must not do it in a tight loop.
STARTING: Final = ("Always", "RerunOnFailure", "Once")


class Request(View, frozen=True, kw_only=True):
    """What a user asked of the subresource API."""

    action: str = ""
    uid: str = ""
    data: dict[str, str] = {}

    @property
    def by_us(self) -> bool:
        """Not a user's, but the rerun of a guest that failed."""
        return bool(self.data == RERUN["data"])


class VmStatus(View, frozen=True, kw_only=True):
    """status of a VirtualMachine."""

    run_strategy: str = ""
    state_change_requests: tuple[Request, ...] = ()


class Vm:
    """A VirtualMachine, with what we look at decoded."""

    def __init__(self, data: Object) -> None:
        self.data = data
        self.metadata = convert(data.get("metadata") or {}, Meta)
        self.raw: Object = status_of(data)
        self.status = lenient(self.raw, VmStatus)

    @property
    def strategy(self) -> str:
        spec = self.data["spec"]
        if spec.get("runStrategy"):
            return str(spec["runStrategy"])
        return "Always" if spec.get("running") else "Halted"


class Seen:
    """All that is observed of one VirtualMachine.

    :param vmi: the instance of its name, whoever owns it.
    :param unbound: a claim of its template is there and has no volume yet.
    :param template_changed: the template is not the one that the instance was made of.
    :param jitter: a random number, 0 <= jitter < 1.
    :param failure: what went wrong when this was decided on a moment ago.
    """

    def __init__(
        self,
        vm: Vm,
        vmi: Vmi | None,
        now: datetime,
        *,
        unbound: bool = False,
        template_changed: bool = False,
        jitter: float = 0.0,
        failure: Failure | None = None,
    ) -> None:
        self.vm = vm
        self.found = vmi
        self.now = now
        self.unbound = unbound
        self.template_changed = template_changed
        self.jitter = jitter
        self.failure = failure

    @property
    def vmi(self) -> Vmi | None:
        """The instance, if it is this VM's."""
        if self.found is None:
            return None
        owner = self.found.metadata.controller
        return self.found if owner and owner.uid == self.vm.metadata.uid else None

    @property
    def orphan(self) -> Vmi | None:
        """An instance of the VM's name that nobody owns: left behind by a VM that was deleted without it."""
        found = self.found
        if found is None or found.metadata.controller or found.metadata.deleting:
            return None
        return found
