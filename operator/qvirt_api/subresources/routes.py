"""The rows of `table` as aiohttp routes: authenticated, authorized, errors in Kubernetes' words."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec
from aiohttp import web

from qvirt_api.subresources import (
    authentication,
    authorization,
    discovery,
    information,
    instances,
    power,
    screen_page,
    tunnels,
)
from qvirt_api.subresources.call import Call, Services
from qvirt_api.subresources.errors import StatusError, internal, not_implemented
from qvirt_api.subresources.instances import json_response
from qvirt_api.subresources.table import ENDPOINTS, GROUP, VERSIONS, Endpoint
from qvirt_crds.errors import QvirtError
from qvirt_kube.errors import KubeError

_log = logging.getLogger(__name__)

Verb = Callable[[Call], Awaitable[web.StreamResponse]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: A row's key -> what does it; every row has an entry here or says what is missing.
VERBS: Final[Mapping[str, Verb]] = {
    "virtualmachines/start": power.start,
    "virtualmachines/stop": power.stop,
    "virtualmachines/restart": power.restart,
    "virtualmachines/expand-spec": instances.expand_machine,
    "virtualmachines/portforward": tunnels.forward_machine,
    "virtualmachineinstances/pause": instances.pause,
    "virtualmachineinstances/unpause": instances.unpause,
    "virtualmachineinstances/freeze": instances.freeze,
    "virtualmachineinstances/unfreeze": instances.unfreeze,
    "virtualmachineinstances/softreboot": instances.soft_reboot,
    "virtualmachineinstances/reset": instances.reset,
    "virtualmachineinstances/guestosinfo": instances.ask_agent,
    "virtualmachineinstances/userlist": instances.ask_agent,
    "virtualmachineinstances/filesystemlist": instances.ask_agent,
    "virtualmachineinstances/console": tunnels.console,
    "virtualmachineinstances/vnc": tunnels.screen,
    "virtualmachineinstances/vnc/page": screen_page.page,
    "virtualmachineinstances/vnc/screenshot": instances.screenshot,
    "virtualmachineinstances/portforward": tunnels.forward_instance,
    "expand-vm-spec": instances.expand_given,
}
#: Errors of these are 500 in plain text, whatever they are (reference, section 5.1).
_PLAIN: Final = frozenset(
    f"virtualmachineinstances/{name}"
    for name in ("guestosinfo", "userlist", "filesystemlist", "objectgraph", "vnc/screenshot")
)


def routes(services: Services) -> list[web.RouteDef]:
    """All of them. What matches none of them below the group is answered 404, so these come last among a server's.

    On the application's shutdown `Services.sessions` is to be closed.
    """
    group = f"/apis/{GROUP}"
    found = [
        _fixed("/", discovery.paths()),
        _fixed("/apis", discovery.groups()),
        _fixed("/openapi/v2", discovery.openapi_v2(services.facts.version)),
        _fixed("/openapi/v3", discovery.openapi_v3_index()),
        _fixed(group, discovery.group()),
    ]
    for version in VERSIONS:
        base = f"{group}/{version}"
        document = discovery.openapi_v3(version, services.facts.version)
        found += [
            _fixed(base, discovery.resources(version)),
            _fixed(f"/openapi/v3{base}", document),
        ]
        found.append(web.get(f"{base}/healthz", _healthy, allow_head=False))
        for endpoint in ENDPOINTS:
            handler = _guarded(services, endpoint, version)
            for path in endpoint.paths:
                if path != "/healthz":
                    # A file may be in a directory.
                    pattern = path.replace("{file}", "{file:.+}")
                    found.append(web.route(endpoint.method, f"{base}{pattern}", handler))
    found.append(web.route("*", f"{group}/{{rest:.*}}", _unknown))
    return found


def _fixed(path: str, document: object) -> web.RouteDef:
    body = msgspec.json.encode(document)

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type="application/json")

    return web.get(path, answer, allow_head=False)


async def _healthy(_request: web.Request) -> web.StreamResponse:
    return json_response("ok")


async def _unknown(_request: web.Request) -> web.StreamResponse:
    message = "the server could not find the requested resource"
    return _answer(StatusError(404, "NotFound", message))


def _guarded(services: Services, endpoint: Endpoint, version: str) -> Handler:
    """Who asks, may they, and the verb."""

    async def handle(request: web.Request) -> web.StreamResponse:
        certificate = request.get_extra_info("peercert")
        user = authentication.user_of(services.front.current, certificate, request.headers)
        if user is None:
            refusal = web.Response(status=401, text="request is not authenticated")
            # The connection may be older than what we know of the front proxy; the next one is asked who it is.
            refusal.force_close()
            return refusal
        call = Call(services, request, endpoint, user)
        wanted = authorization.attributes(endpoint, version, call.namespace, call.name)
        try:
            review = await authorization.review(services.kube, user, wanted)
        except KubeError as error:
            _log.warning("no review of what %s asks: %s", user.name, error)
            return web.Response(status=500, text=str(error))
        if not review.allowed:
            return web.Response(status=401, text=review.reason)
        return await _carried_out(call)

    return handle


async def _carried_out(call: Call) -> web.StreamResponse:
    name = call.endpoint.key
    what = f"{call.request.method} {name} of {call.namespace}/{call.name} for {call.user.name}"
    try:
        response = await _verb(call.endpoint)(call)
    except StatusError as error:
        _log.info("%s: %d %s", what, error.code, error.message)
        if name in _PLAIN and not call.endpoint.missing:
            return web.Response(status=500, text=error.message)
        return _answer(error)
    except QvirtError as error:
        _log.warning("%s: %s", what, error)
        return _answer(internal(str(error)))
    _log.info("%s: %d", what, response.status)
    return response


def _verb(endpoint: Endpoint) -> Verb:
    if endpoint.missing:
        return _missing
    return VERBS.get(endpoint.key) or _CLUSTER[endpoint.key]


async def _missing(call: Call) -> web.StreamResponse:
    raise not_implemented(call.endpoint.name, call.endpoint.missing)


async def _version(call: Call) -> web.StreamResponse:
    return json_response(information.version(call.services.facts))


async def _guestfs(call: Call) -> web.StreamResponse:
    if not call.services.facts.guestfs_image:
        raise not_implemented("guestfs", "no image with guestfs tools is configured")
    return json_response(information.guestfs(call.services.facts))


_CLUSTER: Final[Mapping[str, Verb]] = {"version": _version, "guestfs": _guestfs}


def _answer(error: StatusError) -> web.Response:
    return web.Response(status=error.code, body=error.body(), content_type="application/json")
