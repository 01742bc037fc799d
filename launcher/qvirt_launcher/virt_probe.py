"""virt-probe: a probe of the kubelet's that looks inside of the guest, run in the container of virt-launcher.

Asks virt-launcher on its control socket to have the guest's agent run a command or answer a ping. The options are those of KubeVirt's
program of that name. It starts every few seconds as long as a guest lives, so it imports nothing but a little of Python's library.

Exit codes: the command's own; 0 for a guest that answers; 1 when there is no answer; 2 usage.
"""

from __future__ import annotations

import json
import socket
import sys

_SOCKET = "/var/run/qvirt/launcher.sock"
#: Beyond the guest's time, in seconds: for the launcher to say itself that it is over.
_MARGIN = 0.5
_USAGE = "usage: virt-probe [--socket PATH] --timeoutSeconds N (--guestAgentPing | --command PROGRAM [-- ARGUMENT...])"


class Usage(Exception):
    """A command line that makes no sense."""


def main() -> int:
    """The console script ``virt-probe``."""
    try:
        path, seconds, request = _read(sys.argv[1:])
    except Usage:
        print(_USAGE, file=sys.stderr)  # noqa: T201
        return 2
    try:
        answer = _ask(path, seconds, request)
    except (OSError, ValueError) as error:
        print(f"virt-launcher does not answer: {error}", file=sys.stderr)  # noqa: T201
        return 1
    if "error" in answer:
        print(answer["error"]["desc"], file=sys.stderr)  # noqa: T201
        return 1
    done = answer["return"]
    sys.stdout.write(done.get("stdout", ""))
    sys.stderr.write(done.get("stderr", ""))
    return int(done.get("exitCode", 0)) & 0xFF


def _read(words: list[str]) -> tuple[str, float, dict[str, object]]:
    """Socket, seconds and request."""
    given: dict[str, str] = {}
    arguments: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            arguments, left = left, []
        elif word == "--guestAgentPing":
            given[word] = ""
        elif word in ("--socket", "--timeoutSeconds", "--command") and left:
            given[word] = left.pop(0)
        else:
            raise Usage
    if ("--command" in given) == ("--guestAgentPing" in given):
        raise Usage
    try:
        seconds = float(given["--timeoutSeconds"])
    except (KeyError, ValueError):
        raise Usage from None
    limit: dict[str, object] = {"timeoutSeconds": seconds}
    path = given.get("--socket", _SOCKET)
    if "--command" not in given:
        return path, seconds, {"execute": "agent-ping", "arguments": limit}
    program = {"command": given["--command"], "args": arguments}
    return path, seconds, {"execute": "agent-exec", "arguments": {**limit, **program}}


def _ask(path: str, seconds: float, request: dict[str, object]) -> dict[str, dict[str, str]]:
    """The answer to one command in QMP's dialect; events are passed over."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(seconds + _MARGIN)
        sock.connect(path)
        with sock.makefile("rwb") as stream:
            for message in ({"execute": "qmp_capabilities"}, request):
                stream.write(json.dumps(message).encode() + b"\n")
            stream.flush()
            negotiated = False
            for line in stream:
                answer: dict[str, dict[str, str]] = json.loads(line)
                if "return" in answer and not negotiated:
                    negotiated = True
                elif "return" in answer or "error" in answer:
                    return answer
    raise ValueError("it hung up")


if __name__ == "__main__":
    sys.exit(main())
