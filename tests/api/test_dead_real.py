"""virt-api is away: what exists can be changed and goes; nothing new comes in unchecked."""

from __future__ import annotations

from typing import Any

import pytest
from tests.api.bad_manifests import instance, machine
from tests.api.conftest import ROOT, VirtApi, kubectl
from tests.api.test_admission_real import path
from tests.control_plane import ApiServer

from qvirt_kube.client import Kube
from qvirt_kube.errors import NotFound, Unavailable

Object = dict[str, Any]


async def test_without_virt_api(
    api_server: ApiServer, virt_api: VirtApi, kube: Kube, controller: Kube, namespace: str
) -> None:
    machines, instances = (
        path(namespace, "virtualmachine"),
        path(namespace, "virtualmachineinstance"),
    )
    # One written as v1alpha1: the API server remembers who wrote which field, in that version.
    await kubectl(
        api_server, "apply", "-n", namespace, "-f", str(ROOT / "examples" / "seed-vm.yaml")
    )
    finalizers = {"metadata": {"finalizers": ["kubevirt.io/virtualMachineControllerFinalize"]}}
    await controller.patch(f"{machines}/myvm", finalizers)
    await kube.create(instances, instance())
    await virt_api.stop()

    for collection, manifest in (
        (machines, machine()),
        (instances, {**instance(), "metadata": {"name": "b"}}),
    ):
        with pytest.raises(Unavailable, match="failed calling webhook"):
            await kube.create(collection, manifest)

    written = await controller.patch(f"{instances}/bad", {"status": {"phase": "Running"}})
    assert written["status"]["phase"] == "Running"
    status = {"status": {"printableStatus": "Running"}}
    await controller.patch(f"{machines}/myvm/status", status)

    for where in (f"{machines}/myvm", f"{instances}/bad"):
        await kube.delete(where)
        assert (await kube.get(where))["metadata"]["deletionTimestamp"]
        await controller.patch(where, {"metadata": {"finalizers": []}})
        with pytest.raises(NotFound):
            await kube.get(where)
