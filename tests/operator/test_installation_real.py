"""The KubeVirt object on a real API server, with virt-controller's rights."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from tests.control_plane import ApiServer
from tests.operator.conftest import CONTROLLER, Node

from qvirt_kube.client import Kube
from qvirt_kube.errors import Conflict, Refused
from qvirt_operator.installation import Installation
from qvirt_operator.work import Key
from qvirt_pods.settings import Settings

Object = dict[str, Any]
PATH = "/apis/kubevirt.io/v1/namespaces/kubevirt/kubevirts"


def manifest(name: str = "kubevirt", **configuration: Any) -> Object:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "KubeVirt",
        "metadata": {"name": name},
        "spec": {"configuration": configuration},
    }


def key(name: str = "kubevirt", namespace: str = "kubevirt") -> Key:
    return Key(kind="kv", namespace=namespace, name=name)


def conditions(item: Object) -> dict[str, Object]:
    return {c["type"]: c for c in item["status"]["conditions"]}


@pytest.fixture
async def own(api_server: ApiServer) -> AsyncIterator[Kube]:
    async with Kube(api_server.kubeconfig(CONTROLLER)) as connection:
        yield connection


@pytest.fixture
async def installation(own: Kube, kube: Kube) -> AsyncIterator[Installation]:
    yield Installation(own, Settings(launcher_image="l"), "kubevirt")
    for item in (await kube.get(PATH))["items"]:
        await kube.delete(f"{PATH}/{item['metadata']['name']}")


async def test_settings_hold_and_what_does_not_is_told(
    kube: Kube, installation: Installation
) -> None:
    assert not (await installation.settings()).use_emulation
    developer = {"useEmulation": True, "logVerbosity": {"virtAPI": 9}}
    await kube.create(PATH, manifest(developerConfiguration=developer, cpuModel="Haswell"))
    await installation.reconcile(key())
    assert (await installation.settings()).use_emulation
    assert (await installation.configuration()).cpu_model == "Haswell"
    told = conditions(await kube.get(f"{PATH}/kubevirt"))["ConfigurationObeyed"]
    assert (told["status"], told["reason"]) == ("False", "UnsupportedSettings")
    assert "spec.configuration.developerConfiguration.logVerbosity" in told["message"]
    found = await kube.get("/api/v1/namespaces/kubevirt/events")
    assert "UnsupportedSettings" in {e["reason"] for e in found["items"]}

    await kube.patch(
        f"{PATH}/kubevirt", {"spec": {"configuration": {"developerConfiguration": None}}}
    )
    await installation.reconcile(key())
    assert not (await installation.settings()).use_emulation
    assert conditions(await kube.get(f"{PATH}/kubevirt"))["ConfigurationObeyed"]["status"] == "True"
    before = await kube.get(f"{PATH}/kubevirt")
    await installation.reconcile(key())
    assert await kube.get(f"{PATH}/kubevirt") == before


async def test_it_is_deployed_when_its_parts_work(kube: Kube, installation: Installation) -> None:
    await kube.create(PATH, manifest())
    assert await installation.reconcile(key()) == 10
    found = await kube.get(f"{PATH}/kubevirt")
    assert found["status"]["phase"] == "Deploying"
    assert conditions(found)["Available"]["status"] == "False"
    assert "virt-handler: is not there" in conditions(found)["Available"]["message"]
    await make_parts(kube)
    assert await installation.reconcile(key()) == 60
    found = await kube.get(f"{PATH}/kubevirt")
    assert found["status"]["phase"] == "Deployed"
    assert found["status"]["observedKubeVirtVersion"]
    states = {kind: c["status"] for kind, c in conditions(found).items()}
    assert states["Available"] == states["Created"] == "True"
    assert states["Progressing"] == states["Degraded"] == "False"


async def make_parts(kube: Kube) -> None:
    """virt-api and virt-handler as they stand when they work; no kubelet is needed for that."""
    labels = {"app": "x"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"selector": {"matchLabels": labels}, "template": pod}
    apps = "/apis/apps/v1/namespaces/kubevirt"
    for plural, kind, name, status in (
        ("deployments", "Deployment", "virt-api", {"replicas": 2, "readyReplicas": 1}),
        ("deployments", "Deployment", "virt-controller", {"replicas": 2, "readyReplicas": 1}),
        (
            "daemonsets",
            "DaemonSet",
            "virt-handler",
            {
                "numberReady": 1,
                "desiredNumberScheduled": 1,
                "currentNumberScheduled": 1,
                "numberMisscheduled": 0,
            },
        ),
    ):
        body = {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
        with suppress(Conflict):
            await kube.create(f"{apps}/{plural}", body)
        await kube.patch(f"{apps}/{plural}/{name}/status", {"status": status})


async def test_one_object_is_obeyed(kube: Kube, installation: Installation, namespace: str) -> None:
    await kube.create(PATH, manifest(cpuModel="Haswell"))
    await kube.create(PATH, manifest("another", cpuModel="486"))
    elsewhere = f"/apis/kubevirt.io/v1/namespaces/{namespace}/kubevirts"
    await kube.create(elsewhere, manifest(cpuModel="486"))
    for other, where in ((key("another"), PATH), (key(namespace=namespace), elsewhere)):
        await installation.reconcile(other)
        told = conditions(await kube.get(f"{where}/{other.name}"))["Synchronized"]
        assert told["reason"] == "ExistingDeployment"
        assert "kubevirt in the namespace kubevirt" in told["message"]
    assert (await installation.configuration()).cpu_model == "Haswell"


async def test_the_schema_refuses_wrong_words(kube: Kube, installation: Installation) -> None:
    with pytest.raises(Refused, match="defaultNetworkInterface"):
        await kube.create(PATH, manifest(network={"defaultNetworkInterface": "slirp"}))


@pytest.mark.usefixtures("controller")
async def test_new_instances_follow_the_settings(
    kube: Kube, node: Node, installation: Installation
) -> None:
    await kube.create(PATH, manifest(developerConfiguration={"cpuAllocationRatio": 4}))
    domain = {"devices": {}, "memory": {"guest": "64Mi"}}
    body = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "x"},
        "spec": {"domain": domain},
    }
    await kube.create(node.vmis_path, body)
    pod = await node.pod("x")
    assert pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "250m"
