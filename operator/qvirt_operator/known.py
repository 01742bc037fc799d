"""What the watches have told: read without asking the API server, of which ten thousand instances would ask much.

It may be late. A decision on an old state is harmless: writes carry the version that they were decided on, and a pod's name
follows from its instance, so that a second one is refused. Only that there is *no* pod is never believed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qvirt_crds.names import GROUP
from qvirt_kube.client import Kube, Object
from qvirt_kube.errors import NotFound
from qvirt_kube.mirror import Mirror, stub, whole
from qvirt_kube.watching import Interest
from qvirt_operator import paths
from qvirt_operator.views import Pod, Vmi, convert
from qvirt_pods.pods import CREATED_BY, pod_name

MACHINES: Final = Interest(group=GROUP, plural="virtualmachines")
INSTANCES: Final = Interest(group=GROUP, plural="virtualmachineinstances")
#: Only launcher pods, filtered by the API server: our watch costs what VMs cost, not what the cluster holds.
PODS: Final = Interest(plural="pods", label="kubevirt.io=virt-launcher")
INTERESTS: Final = (
    MACHINES,
    INSTANCES,
    Interest(group=GROUP, plural="virtualmachineinstancereplicasets"),
    Interest(group=GROUP, version="v1alpha1", plural="virtualmachinereplicasets"),
    Interest(group=GROUP, plural="kubevirts"),
    PODS,
)


class Known:
    """Machines (that they are there), instances and launcher pods."""

    def __init__(self) -> None:
        self._machines = Mirror()
        self._instances = Mirror(whole)
        self._pods = Mirror(_of_pod, _creator)
        #: For the watch to keep up to date.
        self.mirrors = {
            MACHINES: self._machines,
            INSTANCES: self._instances,
            PODS: self._pods,
        }

    def machine(self, namespace: str, name: str) -> bool:
        """Whether there is a VirtualMachine of that name."""
        return self._machines.has(f"{namespace}/{name}")

    def instance(self, namespace: str, name: str) -> Object | None:
        """An instance, without its managedFields; None: there is none, or we shall be told of it."""
        # Two for a moment, when the end of the one was missed: the newer one was told last.
        return next(reversed(self._instances.find(f"{namespace}/{name}")), None)

    def instances(self) -> Iterator[Object]:
        """All of them."""
        return self._instances.all()

    async def pods(self, kube: Kube, vmi: Vmi) -> tuple[Pod, ...]:
        """Pods that carry the instance's UID, and are controlled by it or (orphaned) by nobody.

        :raise KubeError: none is known, and it can't be told whether that is true.
        """
        meta = vmi.metadata
        found = self._pods.find(meta.uid)
        if not found and not _unborn(vmi):
            name = pod_name(meta.name, meta.uid)
            try:
                item = await kube.get(paths.pods(meta.namespace, name))
            except NotFound:
                return ()
            if item["metadata"].get("labels", {}).get(CREATED_BY) == meta.uid:
                self._pods.put(item)
            found = self._pods.find(meta.uid)
        pods = (convert(item, Pod) for item in found)
        return tuple(
            pod
            for pod in pods
            if pod.metadata.controller is None or pod.metadata.controller.uid == meta.uid
        )

    def written(self, item: Object) -> None:
        """What the API server has made of a write of ours, long before the watch tells it."""
        (self._pods if item["kind"] == "Pod" else self._instances).learn(item)


def _unborn(vmi: Vmi) -> bool:
    """Whether nothing worse comes of not knowing its pod than a refusal to make another."""
    return vmi.phase in ("", "Pending") and not vmi.metadata.deleting


def _creator(pod: Object) -> str:
    return str(pod["metadata"].get("labels", {}).get(CREATED_BY, ""))


def _of_pod(pod: Object) -> Object:
    """What `views.Pod` looks at."""
    spec = pod.get("spec") or {}
    containers = [{key: c.get(key, "") for key in ("name", "image")} for c in spec["containers"]]
    kept = {"nodeName": spec.get("nodeName", ""), "containers": containers}
    return {**stub(pod), "spec": kept, "status": pod.get("status") or {}}
