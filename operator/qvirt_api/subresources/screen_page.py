"""``vnc/page``: noVNC in the browser of whoever may open the screen.

The page, its files and the stream are all below ``.../vnc``, so the API server asks for one and the same permission, and
the browser sees one origin. Credentials are whatever brings a browser to the API server, such as ``kubectl proxy``.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from aiohttp import web

from qvirt_api.subresources import preconditions
from qvirt_api.subresources.call import Call
from qvirt_api.subresources.errors import StatusError, not_implemented
from qvirt_api.subresources.instances import json_response

_POLICY: Final = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    # The guest's pointer, and JPEG in RFB.
    "img-src 'self' data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
)
_HEADERS: Final = {
    "Content-Security-Policy": "; ".join(_POLICY),
    # A newer qvirt may have other files under the same names.
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_STATE: Final = "state"


async def page(call: Call) -> web.StreamResponse:
    """The page itself, a file of it, or whether there is something to show."""
    if not call.services.files.complete:
        raise not_implemented(call.endpoint.key, "virt-api's image is without noVNC")
    name = call.request.match_info.get("file", "")
    if name == _STATE:
        return await _state(call)
    found = call.services.files.find(name or "index.html")
    if found is None:
        raise StatusError(404, "NotFound", f"the page has no file {name}")
    body = await asyncio.to_thread(Path(found.path).read_bytes)
    return web.Response(
        body=body, content_type=found.content_type, charset="utf-8", headers=_HEADERS
    )


async def _state(call: Call) -> web.StreamResponse:
    """What the page asks before it opens the stream: to scripts a browser does not say why a handshake was refused."""
    state = preconditions.screen_state(await call.instance_if_any())
    response = json_response(state)
    response.headers.update(_HEADERS)
    return response
