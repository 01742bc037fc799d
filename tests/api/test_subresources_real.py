"""The subresource API behind a real API server: its aggregation, its access rules, its JSON patches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.api.conftest import USER, VirtApi, eventually, kubectl
from tests.api.virtctl import Answer, Virtctl, from_kubeconfig
from tests.control_plane import ApiServer

from qvirt_kube.client import Kube

Object = dict[str, Any]


def machine(name: str, **spec: object) -> Object:
    domain = {"devices": {}, "resources": {"requests": {"memory": "64Mi"}}}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": name},
        "spec": {**spec, "template": {"spec": {"domain": domain}}},
    }


def vms(namespace: str, name: str = "") -> str:
    path = f"/apis/kubevirt.io/v1/namespaces/{namespace}/virtualmachines"
    return f"{path}/{name}" if name else path


@pytest.fixture
async def admin(api_server: ApiServer, virt_api: VirtApi, namespace: str) -> AsyncIterator[Virtctl]:
    """Once the API server finds the API available."""
    async with from_kubeconfig(api_server.kubeconfig(), namespace) as client:

        async def look() -> bool | None:
            return (await client.version()).status == 200 or None

        await eventually(look)
        yield client


@pytest.fixture
async def user(api_server: ApiServer, admin: Virtctl, namespace: str) -> AsyncIterator[Virtctl]:
    """Somebody who may do everything with virtual machines, but nothing with their subresources."""
    async with from_kubeconfig(api_server.kubeconfig(USER), namespace) as client:
        yield client


async def test_the_api_is_available_and_discovered(api_server: ApiServer, admin: Virtctl) -> None:
    for version in ("v1", "v1alpha3"):
        name = f"{version}.subresources.kubevirt.io"
        path = "jsonpath={.status.conditions[?(@.type=='Available')].status}"
        ask = ("get", "apiservice", name, f"-o={path}")

        # The status follows the first call that goes through.
        async def available(ask: tuple[str, ...] = ask) -> bool | None:
            return await kubectl(api_server, *ask) == "True" or None

        await eventually(available)
    assert "subresources.kubevirt.io/v1" in await kubectl(api_server, "api-versions")
    assert "kind: Node" in await kubectl(
        api_server, "create", "--dry-run=client", "-o=yaml", "-f=-",
        stdin='{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}',
    )  # fmt: skip


async def test_openapi_is_taken_up(api_server: ApiServer, admin: Virtctl) -> None:
    """The API server fetches it some time after it has found the API."""

    async def look() -> bool | None:
        text = await kubectl(api_server, "get", "--raw", "/openapi/v2")
        return "/apis/subresources.kubevirt.io/v1/version" in text or None

    await eventually(look, within=60)


@pytest.mark.parametrize(
    ("before", "verb", "after"),
    [
        ({"running": False}, "start", {"running": True}),
        ({"runStrategy": "Halted"}, "start", {"runStrategy": "Always"}),
        ({"running": True}, "stop", {"running": False}),
        ({"runStrategy": "Once"}, "stop", {"runStrategy": "Halted"}),
    ],
)
async def test_a_strategy_changes(
    before: Object, verb: str, after: Object, admin: Virtctl, kube: Kube, namespace: str
) -> None:
    await kube.create(vms(namespace), machine("vm", **before))
    path = admin.path("virtualmachines", "vm", verb)
    dry = await admin.request("PUT", path, b'{"dryRun":["All"]}')
    assert dry.status == 202, dry
    answer = await admin.request("PUT", path)
    assert (answer.status, answer.body) == (202, b""), answer
    spec = (await kube.get(vms(namespace, "vm")))["spec"]
    assert {key: spec[key] for key in after} == after


async def test_requests_reach_the_status(admin: Virtctl, kube: Kube, namespace: str) -> None:
    await kube.create(vms(namespace), machine("vm", runStrategy="Manual"))
    assert (await admin.start("vm", paused=True)).status == 202

    async def requests() -> object:
        return (await kube.get(vms(namespace, "vm")))["status"].get("stateChangeRequests")

    start = {"action": "Start", "data": {"paused": "true"}}
    assert await requests() == [start]
    answer = await admin.start("vm")
    assert answer.status == 500
    assert "stop/start already underway" in answer.message
    status = {"stateChangeRequests": None, "startFailure": {"consecutiveFailCount": 1}}
    await kube.patch(f"{vms(namespace, 'vm')}/status", {"status": status})
    assert (await admin.start("vm")).status == 202
    found = (await kube.get(vms(namespace, "vm")))["status"]
    assert found["stateChangeRequests"] == [{"action": "Start"}]
    assert "startFailure" not in found


async def test_of_two_that_are_too_fast_one_is_told(
    admin: Virtctl, kube: Kube, namespace: str
) -> None:
    await kube.create(vms(namespace), machine("vm", runStrategy="Manual"))
    answers = await asyncio.gather(*(admin.start("vm") for _ in range(5)))
    codes = [answer.status for answer in answers]
    assert codes.count(202) == 1, answers
    assert set(codes) <= {202, 409, 500}, answers


async def test_a_restart_of_a_running_machine(admin: Virtctl, kube: Kube, namespace: str) -> None:
    await kube.create(vms(namespace), machine("vm", runStrategy="Always"))
    path = f"/apis/kubevirt.io/v1/namespaces/{namespace}/virtualmachineinstances"
    spec = machine("vm")["spec"]["template"]["spec"]
    body = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "spec": spec}
    vmi = await kube.create(path, {**body, "metadata": {"name": "vm"}})
    answer = await admin.restart("vm", gracePeriodSeconds=0)
    assert answer.status == 202, answer
    found = await kube.get(vms(namespace, "vm"))
    uid = vmi["metadata"]["uid"]
    assert found["status"]["stateChangeRequests"] == [
        {"action": "Stop", "uid": uid},
        {"action": "Start"},
    ]
    assert (await kube.get(f"{path}/vm"))["spec"]["terminationGracePeriodSeconds"] == 1


async def test_who_may_not_is_told_so(
    user: Virtctl, admin: Virtctl, kube: Kube, namespace: str
) -> None:
    """By the API server itself, which asks first; virt-api's own answer would be 401."""
    await kube.create(vms(namespace), machine("vm", runStrategy="Manual"))
    assert (await user.start("vm")).status == 403
    answer: Answer = await user.refusal(user.path("virtualmachineinstances", "vm", "console"))
    assert answer.status == 403


async def test_the_roles_of_users(
    user: Virtctl, admin: Virtctl, kube: Kube, namespace: str, api_server: ApiServer
) -> None:
    """`edit` may open a screen, but not photograph it: virt-api asks for more than the API server does."""
    await kube.create(vms(namespace), machine("vm", runStrategy="Manual"))
    bind = ("--clusterrole=kubevirt.io:edit", "--serviceaccount=people:user", "-n", namespace)
    await kubectl(api_server, "create", "rolebinding", "edit", *bind)

    async def allowed() -> bool | None:
        return (await user.start("vm")).status != 403 or None

    await eventually(allowed)
    answer = await user.screenshot("vm")
    assert (answer.status, answer.content_type) == (401, "text/plain")
    assert "virtualmachineinstances/vnc/screenshot" in answer.text
    answer = await user.refusal(user.path("virtualmachineinstances", "vm", "vnc"))
    assert (answer.status, answer.json()["reason"]) == (404, "NotFound")
    assert (await user.put("virtualmachines", "vm", "migrate")).status == 403
    assert (await user.put("virtualmachines", "vm", "memorydump")).status == 501


async def test_everybody_may_ask_for_the_version(user: Virtctl) -> None:
    assert (await user.version()).status == 200
