"""The verbs that are one request: what reaches virt-handler or the API server, and KubeVirt's refusals."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from tests.api.subresources.conftest import Api, FakeHandler, FakeKube
from tests.api.virtctl import Virtctl

from qvirt_kube.errors import Conflict, Refused

Object = dict[str, Any]
_VMI = 'virtualmachineinstance.kubevirt.io "vm"'


async def test_start_patches_the_machine(jane: Virtctl, cluster: FakeKube) -> None:
    cluster.vm("Halted")
    answer = await jane.start("vm")
    assert (answer.status, answer.body) == (202, b"")
    ((path, operations, query),) = cluster.patches
    assert path == "/apis/kubevirt.io/v1/namespaces/ns/virtualmachines/vm"
    assert isinstance(operations, list)
    assert operations[-1] == {"op": "add", "path": "/spec/runStrategy", "value": "Always"}
    assert query == {}


async def test_a_restart_in_a_hurry(jane: Virtctl, cluster: FakeKube) -> None:
    cluster.vm()
    cluster.vmi()
    assert (await jane.restart("vm", gracePeriodSeconds=0, dryRun=["All"])).status == 202
    paths = [
        path.removeprefix("/apis/kubevirt.io/v1/namespaces/ns/") for path, *_ in cluster.patches
    ]
    assert paths == ["virtualmachineinstances/vm", "virtualmachines/vm/status"]
    assert all(query == {"dryRun": "All"} for *_, query in cluster.patches)


async def test_errors_are_statuses(jane: Virtctl, cluster: FakeKube) -> None:
    answer = await jane.start("gone")
    assert answer.json() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'virtualmachine.kubevirt.io "gone" not found',
        "reason": "NotFound",
        "details": {"name": "gone", "group": "kubevirt.io", "kind": "virtualmachine"},
        "code": 404,
    }
    assert (answer.status, answer.content_type) == (404, "application/json")
    cluster.vm("Always")
    answer = await jane.start("vm")
    assert answer.status == 409
    text = "Always does not support manual start requests"
    message = f'Operation cannot be fulfilled on virtualmachine.kubevirt.io "vm": {text}'
    assert answer.message == message


@pytest.mark.parametrize(
    ("failure", "code", "text"),
    [
        (Conflict("PATCH", 409, "changed"), 409, "changed"),
        (
            Refused("PATCH", 422, "the server rejected our request due to an error in our request"),
            409,
            "please try again",
        ),
        (Refused("PATCH", 403, "admission webhook says no"), 403, "admission webhook says no"),
    ],
)
async def test_what_the_api_server_refuses(
    failure: Exception, code: int, text: str, jane: Virtctl, cluster: FakeKube, api: Api
) -> None:
    cluster.vm("Halted")

    async def patch(*_arguments: object, **_query: str) -> Object:
        raise failure

    cluster.patch = patch  # type: ignore[method-assign, assignment]
    answer = await jane.start("vm")
    assert answer.status == code
    assert text in answer.message


PRESSES: list[tuple[str, str, list[str], int, str]] = [
    # verb, phase, conditions, code, text
    ("pause", "Running", [], 200, ""),
    ("pause", "Running", ["Paused"], 409, "VMI is already paused"),
    ("pause", "Scheduling", [], 409, "VM is not running"),
    ("unpause", "Running", ["Paused"], 200, ""),
    ("unpause", "Running", [], 409, "VMI is not paused"),
    ("unpause", "Failed", [], 409, "VMI is not running"),
    ("freeze", "Running", [], 200, ""),
    ("freeze", "Succeeded", [], 409, "VMI is not running"),
    ("unfreeze", "Running", [], 200, ""),
    ("softreboot", "Running", [], 200, ""),
    ("softreboot", "Running", ["Paused"], 409, "VMI is paused"),
    ("softreboot", "Scheduled", [], 409, "VM is not running"),
    ("reset", "Running", [], 200, ""),
    ("reset", "Pending", [], 409, "Failed to reset non-running VMI with phase Pending"),
]


@pytest.mark.parametrize(("verb", "phase", "conditions", "code", "text"), PRESSES)
async def test_buttons(
    verb: str,
    phase: str,
    conditions: list[str],
    code: int,
    text: str,
    jane: Virtctl,
    cluster: FakeKube,
    handler: FakeHandler,
) -> None:
    cluster.vmi(phase)
    for condition in conditions:
        cluster.condition(condition)
    answer = await jane.press("vm", verb)
    assert answer.status == code
    assert text in answer.message
    assert [call[:2] for call in handler.calls] == ([("PUT", verb)] if code == 200 else [])


async def test_a_dry_run_presses_nothing(
    jane: Virtctl, cluster: FakeKube, handler: FakeHandler
) -> None:
    cluster.vmi()
    assert (await jane.press("vm", "pause", dryRun=["All"])).status == 200
    assert not handler.calls


async def test_freeze_passes_its_timeout_on(
    jane: Virtctl, cluster: FakeKube, handler: FakeHandler
) -> None:
    cluster.vmi()
    assert (await jane.press("vm", "freeze", unfreezeTimeout="5m0s")).status == 200
    assert handler.calls[0][2] == b'{"unfreezeTimeout":"5m0s"}'


async def test_a_probe_forbids_the_pause(jane: Virtctl, cluster: FakeKube) -> None:
    cluster.vmi(livenessProbe={"tcpSocket": {"port": 80}})
    answer = await jane.press("vm", "pause")
    assert answer.status == 403
    text = "Pausing VMIs with a non-GuestAgentPing LivenessProbe is not supported"
    assert answer.message == f"{_VMI} is forbidden: {text}"
    cluster.vmi(livenessProbe={"guestAgentPing": {}})
    assert (await jane.press("vm", "pause")).status == 200


async def test_a_soft_reboot_needs_somebody_who_listens(jane: Virtctl, cluster: FakeKube) -> None:
    cluster.vmi(domain={"features": {"acpi": {"enabled": False}}})
    answer = await jane.press("vm", "softreboot")
    assert "neither have the agent connected nor the ACPI feature enabled" in answer.message
    cluster.condition("AgentConnected")
    assert (await jane.press("vm", "softreboot")).status == 200


@pytest.mark.parametrize("what", ["guestosinfo", "userlist", "filesystemlist"])
async def test_the_agent(what: str, jane: Virtctl, cluster: FakeKube, handler: FakeHandler) -> None:
    answer = await jane.ask("vm", what)
    assert (answer.status, answer.content_type) == (500, "text/plain")
    assert answer.text == f"{_VMI} not found"
    cluster.vmi()
    assert "VMI does not have guest agent connected" in (await jane.ask("vm", what)).text
    cluster.condition("AgentConnected")
    handler.answer = lambda: web.json_response({"items": [1]})
    answer = await jane.ask("vm", what)
    assert (answer.status, answer.json()) == (200, {"items": [1]})
    assert handler.calls == [("GET", what, b"", {})]


async def test_a_screenshot_is_handed_on_as_it_is(
    jane: Virtctl, cluster: FakeKube, handler: FakeHandler
) -> None:
    picture = b"\x89PNG\r\n\x1a\n\0\xff"
    handler.answer = lambda: web.Response(body=picture, content_type="image/png")
    cluster.vmi()
    answer = await jane.screenshot("vm", move_cursor=True)
    assert (answer.status, answer.content_type, answer.body) == (200, "image/png", picture)
    assert handler.calls == [("GET", "vnc/screenshot", b"", {"moveCursor": "true"})]
    cluster.vmi(domain={"devices": {"autoattachGraphicsDevice": False}})
    answer = await jane.screenshot("vm")
    assert (answer.status, answer.text) == (500, "No graphics devices are present.")
    assert answer.content_type == "text/plain"


async def test_the_nodes_own_refusal_is_handed_on(
    jane: Virtctl, cluster: FakeKube, handler: FakeHandler
) -> None:
    cluster.vmi()
    said = {"kind": "Status", "message": "it said so", "reason": "Conflict", "code": 409}
    handler.answer = lambda: web.json_response(said, status=409)
    answer = await jane.press("vm", "pause")
    assert (answer.status, answer.message) == (409, "it said so")
    handler.answer = lambda: web.Response(status=503, text="busy")
    answer = await jane.press("vm", "pause")
    assert (answer.status, answer.message) == (500, "Internal error occurred: busy")


async def test_a_node_that_can_not_be_reached(
    jane: Virtctl, cluster: FakeKube, handler: FakeHandler
) -> None:
    cluster.vmi()
    del cluster.objects["/api/v1/namespaces/kubevirt/pods/virt-handler-x"]
    answer = await jane.press("vm", "pause")
    assert answer.status == 500
    assert "no virt-handler runs on node node-1" in answer.message


async def test_expand(jane: Virtctl, cluster: FakeKube, api: Api) -> None:
    vm = cluster.vm("Manual")
    url = jane.path("virtualmachines", "vm", "expand-spec")
    answer = await jane.request("GET", url)
    assert answer.status == 200
    assert answer.json() == {**vm, "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine"}
    vm["spec"]["instancetype"] = {"name": "large"}
    answer = await jane.request("GET", url)
    assert (answer.status, "instance types are not implemented" in answer.message) == (501, True)


async def test_expand_a_given_machine(jane: Virtctl, api: Api) -> None:
    url = f"{api.url}/apis/subresources.kubevirt.io/v1/namespaces/ns/expand-vm-spec"
    spec = b"spec: {runStrategy: Manual, template: {spec: {domain: {devices: {}}}}}"
    given = b"metadata: {name: vm}\n" + spec
    answer = await jane.request("PUT", url, given)
    assert answer.status == 200, answer
    assert answer.json()["kind"] == "VirtualMachine"
    for wrong in (b"", b"spec: 1", b"metadata: {name: vm, namespace: other}\n" + spec):
        answer = await jane.request("PUT", url, wrong)
        assert (answer.status, answer.json()["reason"]) == (400, "BadRequest"), answer
