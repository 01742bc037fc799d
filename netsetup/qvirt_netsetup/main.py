"""``python -m qvirt_netsetup --fd N``: one request from the socketpair at descriptor N, one answer, the end.

The exit code is 0 when an answer was sent, also when the answer is an error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence

import msgspec

from qvirt_crds.errors import QvirtError
from qvirt_netsetup import netns, service, wire
from qvirt_netsetup.errors import RequestRefused
from qvirt_netsetup.request import ErrorReply, NetworkReply, NetworkRequest
from qvirt_netsetup.service import Outcome


def _decode(document: bytes) -> NetworkRequest:
    try:
        return msgspec.json.decode(document, type=NetworkRequest)
    except msgspec.DecodeError as error:
        raise RequestRefused(f"network request: {error}") from error


def _answer(document: bytes, owner_pid: int) -> Outcome:
    try:
        request = _decode(document)
        return asyncio.run(
            netns.run_inside(request.netns, lambda: service.serve(request, owner_pid))
        )
    except QvirtError as error:
        reply = ErrorReply(reason=error.reason, message=str(error), retry=error.retry)
        return Outcome(reply=NetworkReply(error=reply))


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve one request."""
    parser = argparse.ArgumentParser(prog="qvirt-netsetup", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="a connected stream socket")
    options = parser.parse_args(arguments)
    with socket.socket(fileno=options.fd) as sock:
        document, fds = wire.receive(sock)
        for fd in fds:
            os.close(fd)
        outcome = _answer(document, os.getppid())
        # Nobody listens any more: the owner is gone, and whoever comes next finds its entry in the state file.
        with contextlib.suppress(BrokenPipeError):
            wire.send(sock, msgspec.json.encode(outcome.reply), outcome.descriptors)
    return 0
