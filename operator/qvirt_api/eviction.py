"""The webhook on ``pods/eviction``: look at the pod and its instance, decide (`decide_eviction`), mark."""

from __future__ import annotations

import logging

from qvirt_api import review
from qvirt_api.decide_eviction import ALLOWED, Verdict, decide_eviction, instance_of
from qvirt_api.review import Request
from qvirt_crds.meta import JsonObject
from qvirt_crds.names import GROUP
from qvirt_crds.vm import EvictionStrategy
from qvirt_kube.client import Kube
from qvirt_kube.errors import KubeError, NotFound

_log = logging.getLogger(__name__)


async def answer(kube: Kube, request: Request, default: EvictionStrategy) -> JsonObject:
    """The answer to a review of an eviction.

    :param default: the cluster's strategy.
    """
    try:
        verdict = await _judge(kube, request, default)
    except KubeError as error:
        # Rather once more than a guest that is lost because somebody could not look.
        verdict = Verdict(denial=f"virt-api can't tell whether this pod runs a guest: {error}")
    if not verdict.denial:
        return review.allowed(request)
    _log.info("eviction of %s/%s: %s", request.namespace, request.name, verdict.denial)
    return review.not_now(request, verdict.denial)


async def _judge(kube: Kube, request: Request, default: EvictionStrategy) -> Verdict:
    try:
        pod = await kube.get(f"/api/v1/namespaces/{request.namespace}/pods/{_pod(request)}")
        name = instance_of(pod)
        if not name:
            return ALLOWED
        vmis = f"/apis/{GROUP}/v1/namespaces/{request.namespace}/virtualmachineinstances"
        vmi = await kube.get(f"{vmis}/{name}")
        verdict = decide_eviction(pod, vmi, default)
        if verdict.mark and not request.dry_run:
            metadata = {"uid": vmi["metadata"]["uid"]}
            status = {"evacuationNodeName": verdict.mark}
            await kube.patch(f"{vmis}/{name}", {"metadata": metadata, "status": status})
    except NotFound:
        return ALLOWED
    return verdict


def _pod(request: Request) -> str:
    """Older API servers name the pod in the Eviction only."""
    return request.name or str((request.object or {}).get("metadata", {}).get("name", ""))
