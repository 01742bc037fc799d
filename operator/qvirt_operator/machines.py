"""VirtualMachines: observe, decide (`decide_vm`), act."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from qvirt_crds import shape, unimplemented
from qvirt_crds.errors import SpecError
from qvirt_crds.instance import instance_of
from qvirt_crds.names import API_V1
from qvirt_crds.vm import VirtualMachine
from qvirt_kube.client import Kube, Object
from qvirt_kube.errors import Conflict, NotFound, Refused
from qvirt_operator import decide_vmi, paths
from qvirt_operator.decide_vm import ORPHAN, VmDecision, created_event, decide_vm, deleted_event
from qvirt_operator.decisions import Event, Failure, Target
from qvirt_operator.events import Recorder
from qvirt_operator.views import Vmi
from qvirt_operator.vm_seen import Seen, Vm
from qvirt_operator.vm_status import GENERATION
from qvirt_operator.work import Key

_log = logging.getLogger(__name__)

_RETRY: Final = 10.0


class Machines:
    """Brings VirtualMachines and their instances forward, one look at a time."""

    def __init__(
        self,
        kube: Kube,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._kube = kube
        self._now = now
        self._jitter = jitter
        self._recorder = Recorder(kube, "virtualmachine-controller", now)

    async def reconcile(self, key: Key) -> float | None:
        """Take one step for a VirtualMachine. See `work.Reconcile`."""
        try:
            vm = Vm(await self._kube.get(paths.machines(key.namespace, key.name)))
        except NotFound:
            return None
        seen = await self._observe(vm)
        if vm.metadata.deleting and ORPHAN in vm.metadata.finalizers:
            # Nobody has a use for them, and the garbage collector of older API servers never gets over them: it can't
            # take away their owner, as their content is written anew with that, which is not allowed.
            await self._drop_revisions(vm)
        failure = _foreign(seen)
        if failure is None:
            decision = decide_vm(seen)
            failure = await self._act(seen, decision)
            if failure is None:
                return decision.again
        seen.failure = failure
        # The world may have moved on while we failed; only the status is written now.
        await self._write_status(vm, decide_vm(seen).status)
        return _RETRY

    async def _observe(self, vm: Vm) -> Seen:
        namespace, name = vm.metadata.namespace, vm.metadata.name
        try:
            vmi = Vmi(await self._kube.get(paths.instances(namespace, name)))
        except NotFound:
            vmi = None
        seen = Seen(vm, vmi, self._now(), jitter=self._jitter())
        if seen.vmi is not None:
            seen.template_changed = await self._template_changed(vm, seen.vmi)
            if seen.vmi.phase in ("", "Pending", "Scheduling"):
                seen.unbound = await self._is_unbound(seen.vmi)
        return seen

    async def _is_unbound(self, vmi: Vmi) -> bool:
        """Whether a claim of the guest's is there and waits for a volume."""
        for volume in vmi.data.get("spec", {}).get("volumes") or ():
            source = volume.get("persistentVolumeClaim") or {}
            ephemeral = (volume.get("ephemeral") or {}).get("persistentVolumeClaim") or {}
            name = source.get("claimName") or ephemeral.get("claimName")
            if not name:
                continue
            with suppress(NotFound):
                claim = await self._kube.get(paths.claims(vmi.metadata.namespace, name))
                if claim.get("status", {}).get("phase") == "Pending":
                    return True
        return False

    async def _template_changed(self, vm: Vm, vmi: Vmi) -> bool:
        """Whether a restart would give another guest: the revision that the instance was started from tells."""
        if vmi.metadata.annotations.get(GENERATION) == str(vm.metadata.generation):
            return False
        revision = vmi.status.virtual_machine_revision_name
        if not revision:  # taken over: nobody knows what it was started from
            return False
        try:
            started = await self._kube.get(paths.revisions(vm.metadata.namespace, revision))
        except NotFound:
            return False
        before: object = started.get("data", {}).get("spec", {}).get("template", {}).get("spec")
        return bool(before != vm.data["spec"]["template"]["spec"])

    async def _act(self, seen: Seen, decision: VmDecision) -> Failure | None:
        vm = seen.vm
        if decision.adopt:
            await self._adopt(vm, decision.adopt)
        if decision.create:
            failure = await self._create(vm)
            if failure is not None:
                return failure
        await self._write_status(vm, decision.status)
        if decision.restamp is not None:
            annotations = {GENERATION: str(decision.restamp)}
            await self._patch_instance(vm, {"metadata": {"annotations": annotations}})
        if decision.delete is not None:
            failure = await self._delete(vm, decision.delete)
            if failure is not None:
                return failure
        if decision.patch:
            path = paths.machines(vm.metadata.namespace, vm.metadata.name)
            version = {} if decision.status else {"resourceVersion": vm.metadata.resource_version}
            metadata = {**decision.patch.get("metadata", {}), **version}
            await self._forgiving(self._kube.patch(path, {**decision.patch, "metadata": metadata}))
        return None

    async def _create(self, vm: Vm) -> Failure | None:
        namespace, name = vm.metadata.namespace, vm.metadata.name
        try:
            body = new_instance(vm)
            await self._record_revision(vm, body["status"]["virtualMachineRevisionName"])
            await self._kube.create(paths.instances(namespace), body)
        except (SpecError, Refused) as error:
            message = f"Error creating virtual machine instance: {error}"
            await self._record(vm, Event(type="Warning", reason="FailedCreate", message=message))
            return Failure(reason="FailedCreate", message=message)
        await self._record(vm, created_event(name))
        return None

    async def _record_revision(self, vm: Vm, name: str) -> None:
        """Keep the spec that the guest is started from, and drop those of earlier starts."""
        namespace = vm.metadata.namespace
        body = {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {_REVISION_OF: vm.metadata.uid},
                "ownerReferences": [_owner(vm)],
            },
            "data": {"spec": vm.data["spec"]},
            "revision": vm.metadata.generation,
        }
        try:
            await self._kube.create(paths.revisions(namespace), body)
        except Conflict:
            return
        await self._drop_revisions(vm, keep=name)

    async def _drop_revisions(self, vm: Vm, keep: str = "") -> None:
        namespace, selector = vm.metadata.namespace, f"{_REVISION_OF}={vm.metadata.uid}"
        found = await self._kube.get(paths.revisions(namespace), labelSelector=selector)
        for old in found["items"]:
            if old["metadata"]["name"] != keep:
                path = paths.revisions(namespace, old["metadata"]["name"])
                await self._forgiving(self._kube.delete(path))

    async def _delete(self, vm: Vm, target: Target) -> Failure | None:
        path = paths.instances(vm.metadata.namespace, target.name)
        try:
            await self._kube.delete(path, {"preconditions": {"uid": target.uid}})
        except NotFound:
            return None
        except Refused as error:
            message = f"Error deleting virtual machine instance {target.name}: {error}"
            await self._record(vm, Event(type="Warning", reason="FailedDelete", message=message))
            return Failure(reason="FailedDelete", message=message)
        await self._record(vm, deleted_event(target.name, target.uid))
        return None

    async def _adopt(self, vm: Vm, uid: str) -> None:
        body = {"metadata": {"uid": uid, "ownerReferences": [_owner(vm)]}}
        await self._patch_instance(vm, body)

    async def _patch_instance(self, vm: Vm, body: Object) -> None:
        path = paths.instances(vm.metadata.namespace, vm.metadata.name)
        await self._forgiving(self._kube.patch(path, body))

    async def _write_status(self, vm: Vm, status: Object) -> None:
        if not status:
            return
        path = f"{paths.machines(vm.metadata.namespace, vm.metadata.name)}/status"
        metadata = {"resourceVersion": vm.metadata.resource_version}
        await self._forgiving(self._kube.patch(path, {"metadata": metadata, "status": status}))

    async def _forgiving(self, call: Coroutine[Any, Any, Object]) -> None:
        """What is gone needs no write."""
        try:
            await call
        except NotFound as error:
            _log.debug("%s", error)

    async def _record(self, vm: Vm, event: Event) -> None:
        await self._recorder.record(vm.data, event)


_REVISION_OF: Final = "kubevirt.io/vm-uid"


def new_instance(vm: Vm) -> Object:
    """The instance that a VirtualMachine is started as.

    :raise SpecError: the stored VirtualMachine is not one that we understand.
    """
    metadata = {key: vm.data["metadata"][key] for key in ("name", "namespace")}
    bare = {
        "apiVersion": API_V1,
        "kind": "VirtualMachine",
        "metadata": metadata,
        "spec": vm.data["spec"],
    }
    clean, causes = shape.check(bare, VirtualMachine, unimplemented.of_machine())
    if causes:
        raise SpecError(causes)
    body: Object = msgspec.to_builtins(instance_of(msgspec.convert(clean, VirtualMachine)))
    annotations = body["metadata"].get("annotations", {})
    body["metadata"] |= {
        "annotations": {**annotations, GENERATION: str(vm.metadata.generation)},
        "ownerReferences": [_owner(vm)],
        "finalizers": [decide_vmi.FINALIZER],
    }
    if any(
        r.action == "Start" and r.data.get("paused") == "true"
        for r in vm.status.state_change_requests
    ):
        body["spec"]["startStrategy"] = "Paused"
    revision = f"revision-start-vm-{vm.metadata.uid}-{vm.metadata.generation}"
    body["status"] = {"virtualMachineRevisionName": revision}
    return body


def _owner(vm: Vm) -> Object:
    return {
        "apiVersion": API_V1,
        "kind": "VirtualMachine",
        "name": vm.metadata.name,
        "uid": vm.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _foreign(seen: Seen) -> Failure | None:
    """An instance of the VM's name belongs to somebody else."""
    found = seen.found
    if found is None or found.metadata.deleting or seen.vm.metadata.deleting:
        return None
    if seen.vmi is not None or seen.orphan is not None:
        return None
    name = seen.vm.metadata.name
    message = f"Error creating virtual machine instance: there is one named {name} already, which is not this virtual machine's"
    return Failure(reason="FailedCreate", message=message)
