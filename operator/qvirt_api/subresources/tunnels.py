"""console, vnc and portforward: check, reach the other side, and only then answer the client's handshake."""

from __future__ import annotations

from aiohttp import web

from qvirt_api.subresources import portforward, preconditions, streams
from qvirt_api.subresources.call import Call
from qvirt_api.subresources.errors import conflict
from qvirt_api.subresources.portforward import Tunnel
from qvirt_api.subresources.views import Instance


async def console(call: Call) -> web.WebSocketResponse:
    """The serial console; whoever had it is cut off."""
    vmi = await call.instance()
    preconditions.console(vmi)
    return await _join(call, vmi, "console")


async def screen(call: Call) -> web.WebSocketResponse:
    """RFB; whoever had it is cut off, unless ``preserveSession`` is asked for."""
    vmi = await call.instance()
    preconditions.screen(vmi)
    preserve = call.request.query.get("preserveSession", "")
    return await _join(call, vmi, "vnc", {"preserveSession": preserve} if preserve else None)


async def forward_machine(call: Call) -> web.WebSocketResponse:
    """A port of the VirtualMachine's instance."""
    vm = await call.machine()
    vmi = await call.instance_if_any()
    if vmi is None:
        raise conflict("virtualmachine", vm.name, "VMI is not started")
    return await _forward(call, vmi)


async def forward_instance(call: Call) -> web.WebSocketResponse:
    """A port of the instance."""
    return await _forward(call, await call.instance())


async def _join(
    call: Call, vmi: Instance, verb: str, query: dict[str, str] | None = None
) -> web.WebSocketResponse:
    near = streams.websocket(call.request)
    async with (
        call.services.agents.stream(vmi, verb, query) as far,
        call.services.sessions.upgraded(call.request, near),
    ):
        await streams.relay(near, far)
    return near


async def _forward(call: Call, vmi: Instance) -> web.WebSocketResponse:
    matched = call.request.match_info
    number, protocol = portforward.target(matched["port"], matched.get("protocol", ""))
    near = streams.websocket(call.request, raw=True)
    preconditions.port_forward(vmi)
    port = await portforward.dial(vmi.address, number, protocol)
    try:
        async with call.services.sessions.upgraded(call.request, near):
            await Tunnel(call.request, near, port, protocol).run()
    finally:
        port.abort()
    return near
