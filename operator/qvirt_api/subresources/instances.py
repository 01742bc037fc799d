"""The verbs of a VirtualMachineInstance that are one request to its virt-handler, and expand-spec."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from aiohttp import web

from qvirt_api.subresources import preconditions
from qvirt_api.subresources.call import Call
from qvirt_api.subresources.errors import bad_request, not_implemented
from qvirt_api.subresources.options import FreezeOptions, Options, load
from qvirt_api.subresources.views import Instance
from qvirt_crds import shape, unimplemented
from qvirt_crds.names import API_V1
from qvirt_crds.vm import VirtualMachine
from qvirt_kube.client import Object

Check = Callable[[Instance], None]


async def pause(call: Call) -> web.Response:
    """Stop the guest's clock."""
    return await _press(call, preconditions.pause)


async def unpause(call: Call) -> web.Response:
    """Let it go on."""
    return await _press(call, preconditions.unpause)


async def soft_reboot(call: Call) -> web.Response:
    """By the guest agent, else by ACPI."""
    return await _press(call, preconditions.soft_reboot)


async def reset(call: Call) -> web.Response:
    """As if by the machine's button."""
    return await _press(call, preconditions.reset)


async def unfreeze(call: Call) -> web.Response:
    """Let the guest write again."""
    return await _press(call, preconditions.running)


async def freeze(call: Call) -> web.Response:
    """Flush and freeze the guest's file systems; they thaw by themselves after the timeout."""
    options = await call.options(FreezeOptions)
    body: Object = {}
    if options.unfreeze_timeout:
        body["unfreezeTimeout"] = options.unfreeze_timeout
    return await _press(call, preconditions.running, body)


async def ask_agent(call: Call) -> web.Response:
    """guestosinfo, userlist, filesystemlist: the JSON that virt-handler gives."""
    vmi = await call.instance()
    preconditions.agent(vmi)
    answer = await call.services.agents.call(vmi, call.endpoint.subresource, "GET")
    return web.Response(body=answer.body, content_type="application/json")


async def screenshot(call: Call) -> web.Response:
    """PNG."""
    vmi = await call.instance()
    preconditions.screen(vmi)
    query = {k: v for k, v in call.request.query.items() if k == "moveCursor"}
    answer = await call.services.agents.call(vmi, "vnc/screenshot", "GET", query=query)
    return web.Response(body=answer.body, content_type=answer.content_type)


async def expand_machine(call: Call) -> web.Response:
    """The VirtualMachine without its references to instance types: there are none, so as it is."""
    vm = await call.machine()
    return json_response(_expanded(vm.data))


async def expand_given(call: Call) -> web.Response:
    """The same of a VirtualMachine in the body."""
    given = load(await call.body())
    if not given:
        raise bad_request("Can not unmarshal Request body to struct, error: there is no body")
    expanded = _expanded(given)
    clean, causes = shape.check(expanded, VirtualMachine, unimplemented.of_machine())
    if causes:
        text = "; ".join(map(str, causes))
        raise bad_request(f"Object is not a valid VirtualMachine: {text}")
    try:
        vm = msgspec.convert(clean, VirtualMachine)
    except msgspec.ValidationError as error:
        raise bad_request(f"Object is not a valid VirtualMachine: {error}") from error
    if vm.metadata.namespace not in ("", call.namespace):
        raise bad_request(f"VM namespace must be empty or {call.namespace}")
    return json_response(expanded)


def json_response(body: object) -> web.Response:
    """200 with an object."""
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


def _expanded(vm: Object) -> Object:
    spec = vm.get("spec")
    for field in ("instancetype", "preference"):
        if isinstance(spec, dict) and spec.get(field):
            raise not_implemented(
                "expand-spec", f"spec.{field}: instance types are not implemented"
            )
    return {**vm, "apiVersion": vm.get("apiVersion", API_V1), "kind": "VirtualMachine"}


async def _press(call: Call, check: Check, body: Object | None = None) -> web.Response:
    options = await call.options(Options)
    vmi = await call.instance()
    check(vmi)
    if not options.is_dry:
        content = msgspec.json.encode(body) if body else b""
        await call.services.agents.call(vmi, call.endpoint.subresource, "PUT", body=content)
    return web.Response()
