"""Replica sets of either kind: observe, decide (`decide_replicaset`), act."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from qvirt_crds.errors import SpecError
from qvirt_crds.names import API_V1
from qvirt_crds.replicaset import VirtualMachineInstanceReplicaSetSpec
from qvirt_crds.selectors import matches
from qvirt_kube.client import Kube
from qvirt_kube.errors import NotFound, Refused
from qvirt_operator import decide_vmi, paths
from qvirt_operator.conditions import condition, merge_patch, merged
from qvirt_operator.decide_replicaset import ReplicaSetDecision, Seen, decide_replicaset
from qvirt_operator.decisions import Event, Failure
from qvirt_operator.events import Recorder
from qvirt_operator.replicaset_kinds import ReplicaSetKind
from qvirt_operator.views import Meta, Object, Vmi, convert, status_of, timestamp
from qvirt_operator.work import Key

_RETRY: Final = 10.0
_AGAIN: Final = 0.1


class ReplicaSets:
    """Keeps as many instances as were asked for, one look at a time."""

    def __init__(
        self,
        kube: Kube,
        kind: ReplicaSetKind,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._kind = kind
        self._now = now
        self._recorder = Recorder(kube, "virtualmachinereplicaset-controller", now)

    async def reconcile(self, key: Key) -> float | None:
        """Take one step for a replica set. See `work.Reconcile`."""
        try:
            data = await self._kube.get(self._kind.path(key.namespace, key.name))
        except NotFound:
            return None
        metadata = convert(data["metadata"], Meta)
        if metadata.deleting:
            return None
        try:
            spec = self._kind.read(data)
        except SpecError as error:
            await self._write_status(metadata, _unreadable(data, error, self._now()))
            return None
        found = await self._kube.get(paths.instances(key.namespace))
        # Items of a list have no kind of their own.
        vmis = [Vmi(item) for item in found["items"]]
        mine = [
            vmi
            for vmi in vmis
            if matches(spec.selector, vmi.metadata.labels)
            or ((owner := vmi.metadata.controller) and owner.uid == metadata.uid)
        ]
        seen = Seen(metadata.uid, spec, status_of(data), mine, self._now())
        decision = decide_replicaset(seen)
        failure = await self._act(data, spec, metadata, decision)
        if failure is not None:
            seen.failure = failure
            await self._write_status(metadata, decide_replicaset(seen).status)
            return _RETRY
        for event in decision.events:
            await self._recorder.record(data, event)
        return _AGAIN if decision.create or decision.delete or decision.adopt else None

    async def _act(
        self,
        data: Object,
        spec: VirtualMachineInstanceReplicaSetSpec,
        metadata: Meta,
        decision: ReplicaSetDecision,
    ) -> Failure | None:
        await self._write_status(metadata, decision.status)
        for name, uid in decision.adopt:
            body = {"metadata": {"uid": uid, "ownerReferences": [owner(metadata, self._kind)]}}
            await self._kube.patch(paths.instances(metadata.namespace, name), body)
        for _ in range(decision.create):
            try:
                made = await self._kube.create(
                    paths.instances(metadata.namespace), replica(spec, metadata, self._kind)
                )
            except Refused as error:
                return await self._failed(
                    data, "FailedCreate", f"Error creating virtual machine instance: {error}"
                )
            name = made["metadata"]["name"]
            message = (
                f"Started the virtual machine by creating the new virtual machine instance {name}"
            )
            await self._recorder.record(data, Event(reason="SuccessfulCreate", message=message))
        for target in decision.delete:
            path = paths.instances(metadata.namespace, target.name)
            try:
                await self._kube.delete(path, {"preconditions": {"uid": target.uid}})
            except NotFound:
                continue
            except Refused as error:
                return await self._failed(
                    data,
                    "FailedDelete",
                    f"Error deleting virtual machine instance {target.name}: {error}",
                )
            message = f"Stopped the virtual machine by deleting the virtual machine instance {target.name} ({target.uid})"
            await self._recorder.record(data, Event(reason="SuccessfulDelete", message=message))
        return None

    async def _failed(self, data: Object, reason: str, message: str) -> Failure:
        await self._recorder.record(data, Event(type="Warning", reason=reason, message=message))
        return Failure(reason=reason, message=message)

    async def _write_status(self, metadata: Meta, status: Object) -> None:
        if status:
            path = f"{self._kind.path(metadata.namespace, metadata.name)}/status"
            version = {"resourceVersion": metadata.resource_version}
            await self._kube.patch(path, {"metadata": version, "status": status})


def _unreadable(data: Object, error: SpecError, now: datetime) -> Object:
    """The status of a replica set that came past the admission webhook."""
    before = status_of(data)
    wanted = {"ReplicaFailure": condition("ReplicaFailure", True, error.reason, str(error))}
    conditions = merged(before.get("conditions"), wanted, timestamp(now))
    return merge_patch(before, {"conditions": conditions})


def replica(
    spec: VirtualMachineInstanceReplicaSetSpec, metadata: Meta, kind: ReplicaSetKind
) -> Object:
    """One more instance of the template; the API server completes its name."""
    about = spec.template.metadata
    return {
        "apiVersion": API_V1,
        "kind": "VirtualMachineInstance",
        "metadata": {
            "generateName": about.name or about.generate_name or metadata.name,
            "labels": about.labels,
            "annotations": about.annotations,
            "ownerReferences": [owner(metadata, kind)],
            "finalizers": [decide_vmi.FINALIZER],
        },
        "spec": msgspec.to_builtins(spec.template.spec),
    }


def owner(metadata: Meta, kind: ReplicaSetKind) -> Object:
    """The owner reference of its instances."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "name": metadata.name,
        "uid": metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
