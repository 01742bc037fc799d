"""VirtualMachineInstances: observe, decide (`decide_vmi`), act."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec.structs import replace

from qvirt_crds import pod_layout, shape, unimplemented
from qvirt_crds.configuration import Configuration
from qvirt_crds.defaults import apply_defaults
from qvirt_crds.errors import SpecError
from qvirt_crds.first_status import given_at_start
from qvirt_crds.names import API_V1
from qvirt_crds.validate import validate_vmi
from qvirt_crds.vm import VirtualMachineInstance
from qvirt_kube.client import Kube, Object
from qvirt_kube.errors import KubeError, NotFound, Refused
from qvirt_operator import migratability, paths
from qvirt_operator.decide_vmi import VmiDecision, decide_vmi
from qvirt_operator.decisions import Event, Failure, Target
from qvirt_operator.events import Recorder
from qvirt_operator.installation import Installation
from qvirt_operator.known import Known
from qvirt_operator.nodes import responsive
from qvirt_operator.views import Pod, Vmi
from qvirt_operator.vmi_phase import hands_over
from qvirt_operator.vmi_seen import Seen
from qvirt_operator.volume_status import volume_status
from qvirt_operator.work import Key
from qvirt_pods.pods import launcher_pod

_log = logging.getLogger(__name__)


class Instances:
    """Brings instances and their pods forward, one look at a time."""

    def __init__(
        self,
        kube: Kube,
        known: Known,
        installation: Installation,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._known = known
        self._installation = installation
        self._now = now
        self._recorder = Recorder(kube, "virtualmachine-controller", now)

    async def reconcile(self, key: Key) -> float | None:
        """Take one step for an instance. See `work.Reconcile`."""
        data = self._known.instance(key.namespace, key.name)
        if data is None:
            return None
        vmi = Vmi(data)
        pods = await self._known.pods(self._kube, vmi)
        seen = Seen(vmi, self._now(), pods=pods, lost_node=await self._lost_node(vmi, pods))
        pod: Object | None = None
        try:
            if not pods and not vmi.final and not vmi.metadata.deleting:
                pod = await self._plan(seen)
            elif hands_over(seen):
                await self._look_at_storage(seen)
        except SpecError as error:
            seen.failure = Failure(reason=error.reason, message=str(error))
        decision = decide_vmi(seen)
        trouble = await self._act(seen, decision, pod)
        if trouble is not None:
            seen.missing_claims, seen.failure = (), trouble
            fresh = await self._kube.get(paths.instances(key.namespace, key.name))
            seen.vmi = Vmi(fresh)
            await self._write(seen.vmi, decide_vmi(seen).patch)
            return _CREATE_RETRY
        return decision.again

    async def _lost_node(self, vmi: Vmi, pods: tuple[Pod, ...]) -> str:
        """Of an instance that is to end because its pod has vanished: its node, if that is why."""
        name = vmi.status.node_name
        if pods or vmi.final or not name or await responsive(self._kube, name, self._now()):
            return ""
        return name

    async def _plan(self, seen: Seen) -> Object:
        """The launcher pod that is to be made, and what else follows from the spec.

        :raise SpecError: the spec makes none.
        """
        wanted = wanted_instance(seen.vmi.data, await self._installation.configuration())
        settings = await self._installation.settings()
        seen.facts = given_at_start(wanted)
        claims, seen.missing_claims = await self._claims(wanted)
        block = [name for name, it in claims.items() if it["spec"].get("volumeMode") == "Block"]
        return launcher_pod(wanted, settings, block=block)

    async def _look_at_storage(self, seen: Seen) -> None:
        """When the pod has its node its claims are bound: only now their sizes are known."""
        wanted = wanted_instance(seen.vmi.data, await self._installation.configuration())
        claims, _ = await self._claims(wanted)
        seen.hand_over = {
            "volumeStatus": volume_status(wanted, claims),
            "migrationMethod": migratability.method(wanted, claims),
        }
        seen.migratable = migratability.conditions(wanted, claims)

    async def _claims(
        self, vmi: VirtualMachineInstance
    ) -> tuple[dict[str, Object], tuple[str, ...]]:
        """The claims of the volumes by name, and the names of those that are not there."""
        found: dict[str, Object] = {}
        missing = []
        claims = (pod_layout.claim_of(volume) for volume in vmi.spec.volumes)
        for name in dict.fromkeys(claim.claim_name for claim in claims if claim is not None):
            try:
                found[name] = await self._kube.get(paths.claims(vmi.metadata.namespace, name))
            except NotFound:
                missing.append(name)
        return found, tuple(missing)

    async def _act(self, seen: Seen, decision: VmiDecision, pod: Object | None) -> Failure | None:
        """Do what was decided; what a user can mend comes back as a failure."""
        vmi = seen.vmi
        namespace = vmi.metadata.namespace
        await self._write(vmi, decision.patch)
        if decision.create_pod and pod is not None:
            try:
                await self._kube.create(paths.pods(namespace), pod)
            except Refused as error:
                message = f"Error creating pod: {error}"
                await self._record(
                    vmi, Event(type="Warning", reason="FailedCreate", message=message)
                )
                return Failure(reason="FailedCreate", message=message)
            name = pod["metadata"]["name"]
            message = f"Created virtual machine pod {name}"
            await self._record(vmi, Event(reason="SuccessfulCreate", message=message))
        if decision.pod_condition is not None:
            name, condition = decision.pod_condition
            path = f"{paths.pods(namespace, name)}/status"
            body = {"status": {"conditions": [condition]}}
            self._known.written(await self._kube.patch(path, body, "strategic"))
        for target in decision.delete_pods:
            await self._delete_pod(vmi, target)
        for event in decision.events:
            await self._record(vmi, event)
        return None

    async def _delete_pod(self, vmi: Vmi, target: Target) -> None:
        options: Object = {"preconditions": {"uid": target.uid}}
        if target.grace_seconds is not None:
            options["gracePeriodSeconds"] = target.grace_seconds
        try:
            await self._kube.delete(paths.pods(vmi.metadata.namespace, target.name), options)
        except NotFound:
            return
        except KubeError:
            message = f"Failed to delete virtual machine pod {target.name}"
            await self._record(vmi, Event(type="Warning", reason="FailedDelete", message=message))
            raise
        message = f"Deleted virtual machine pod {target.name}"
        await self._record(vmi, Event(reason="SuccessfulDelete", message=message))

    async def _write(self, vmi: Vmi, patch: Object) -> None:
        """:raise Conflict: somebody wrote the instance since we saw it."""
        if not patch:
            return
        metadata = {**patch.get("metadata", {}), "resourceVersion": vmi.metadata.resource_version}
        path = paths.instances(vmi.metadata.namespace, vmi.metadata.name)
        try:
            self._known.written(await self._kube.patch(path, {**patch, "metadata": metadata}))
        except NotFound:
            _log.debug("%s is gone", path)

    async def _record(self, vmi: Vmi, event: Event) -> None:
        await self._recorder.record(vmi.data, event)


#: Seconds until a pod that was refused (quota, PodSecurity) is tried again.
_CREATE_RETRY: Final = 10.0


def wanted_instance(data: Object, configuration: Configuration) -> VirtualMachineInstance:
    """A stored instance, defaulted and checked as the admission webhook does: it may have been away.

    :raise SpecError: every reason why it can't run.
    """
    bare = {
        "apiVersion": API_V1,
        "kind": "VirtualMachineInstance",
        "metadata": _known_metadata(data["metadata"]),
        "spec": data.get("spec"),
    }
    clean, causes = shape.check(bare, VirtualMachineInstance, unimplemented.of_instance())
    if causes:
        raise SpecError(causes)
    vmi = msgspec.convert(clean, VirtualMachineInstance)
    if causes := validate_vmi(vmi, configuration=configuration):
        raise SpecError(causes)
    # An instance without a VM and without a UUID gets its own, which is as good as random and stays.
    uid = vmi.metadata.uid
    defaulted = apply_defaults(vmi, new_uuid=lambda: uid, configuration=configuration)
    return replace(defaulted, metadata=vmi.metadata)


def _known_metadata(metadata: Object) -> Object:
    """Without what newer API servers may add: only names, labels and annotations are of use here."""
    kept = ("name", "namespace", "uid", "labels", "annotations")
    return {key: metadata[key] for key in kept if key in metadata}
