"""start, stop and restart of a VirtualMachine: look, decide (`decide_power`), patch."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from qvirt_api.subresources import decide_power
from qvirt_api.subresources.call import Call, instance_path, machine_path
from qvirt_api.subresources.decide_power import Patch
from qvirt_api.subresources.errors import Kind, StatusError, conflict, internal, not_found
from qvirt_api.subresources.options import RestartOptions, StartOptions, StopOptions
from qvirt_kube.errors import Conflict, KubeError, NotFound, Refused


async def start(call: Call) -> web.Response:
    """202: virt-controller will."""
    options = await call.options(StartOptions)
    vm, vmi = await call.machine(), await call.instance_if_any()
    return await _carry_out(call, decide_power.start(vm, vmi, options), options.is_dry)


async def stop(call: Call) -> web.Response:
    """202: virt-controller will."""
    options = await call.options(StopOptions)
    vm, vmi = await call.machine(), await call.instance_if_any()
    return await _carry_out(call, decide_power.stop(vm, vmi, options), options.is_dry)


async def restart(call: Call) -> web.Response:
    """202: virt-controller will."""
    options = await call.options(RestartOptions)
    vm, vmi = await call.machine(), await call.instance_if_any()
    return await _carry_out(call, decide_power.restart(vm, vmi, options), options.is_dry)


async def _carry_out(call: Call, patches: Sequence[Patch], dry: bool) -> web.Response:
    query = {"dryRun": "All"} if dry else {}
    for patch in patches:
        try:
            await call.services.kube.patch(
                _path(call, patch), list(patch.operations), "json", **query
            )
        except KubeError as error:
            raise _refused(call, patch, error) from error
    return web.Response(status=202)


def _path(call: Call, patch: Patch) -> str:
    match patch.target:
        case "machine":
            return machine_path(call.namespace, call.name)
        case "status":
            return f"{machine_path(call.namespace, call.name)}/status"
        case "instance":
            return instance_path(call.namespace, call.name)


def _refused(call: Call, patch: Patch, error: KubeError) -> StatusError:
    kind: Kind = "virtualmachineinstance" if patch.target == "instance" else "virtualmachine"
    match error:
        case NotFound():
            return not_found(kind, call.name)
        case Conflict():
            return conflict(kind, call.name, error.message)
        case Refused(status=422) if _test_failed(error.message):
            return conflict(kind, call.name, "the object has been modified; please try again")
        case Refused():
            # Admission's own words.
            return StatusError(error.status, "Invalid", error.message)
        case _:
            return internal(str(error))


def _test_failed(message: str) -> bool:
    """The API server's answers to a JSON patch whose ``test`` does not hold, in its various releases."""
    return "rejected our request due to an error" in message or "test" in message
