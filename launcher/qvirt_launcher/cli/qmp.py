"""``qvirt qmp``: one command, or a stream of events, over a VM's sockets."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from collections.abc import Mapping, Sequence

from qvirt_crds.names import CONTROL_SOCKET, QMP_SOCKET
from qvirt_launcher.cli import exits
from qvirt_launcher.cli.reach import find_vm
from qvirt_launcher.errors import UsageError
from qvirt_qmp.client import Monitor, connect_unix
from qvirt_qmp.errors import CommandFailed


def run(arguments: argparse.Namespace) -> int:
    """Print the answer as JSON, or events as JSON lines."""
    vm = find_vm(arguments)
    path = vm.path / (CONTROL_SOCKET if arguments.operate else QMP_SOCKET)
    if arguments.socket:
        print(path)
        return exits.OK
    if not arguments.execute and not arguments.events:
        raise UsageError("qmp: what shall be asked? Add a command, e.g. query-status, or --events")
    values = parse_arguments(arguments.arguments)
    answer = asyncio.run(_talk(str(path), vm.record.name, arguments, values))
    if answer is not None:
        print(json.dumps(answer, indent=2))
    return exits.OK


async def _talk(
    path: str, name: str, arguments: argparse.Namespace, values: Mapping[str, object]
) -> object:
    monitor = await connect_unix(path, name=name)
    try:
        if arguments.events:
            await _stream(monitor)
            return None
        return await _execute(monitor, arguments, values)
    finally:
        await monitor.aclose()


async def _execute(
    monitor: Monitor, arguments: argparse.Namespace, values: Mapping[str, object]
) -> object:
    command = arguments.execute
    try:
        return await monitor.execute(command, values or None)
    except CommandFailed as error:
        # What isn't a question is refused by the socket for questions, whatever else might be wrong with it.
        hint = (
            "" if arguments.operate or command.startswith("query-") else "; --operate lets it act"
        )
        raise CommandFailed(command, error.error_class, f"{error.description}{hint}") from error


async def _stream(monitor: Monitor) -> None:
    """Until the VM ends, or Ctrl-C."""
    loop = asyncio.get_running_loop()
    enough = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, enough.set)
    monitor.listen(lambda message: print(json.dumps(dict(message)), flush=True))
    monitor.closed.add_done_callback(lambda _: enough.set())
    await enough.wait()


def parse_arguments(words: Sequence[str]) -> dict[str, object]:
    """``key=value`` pairs, values JSON where they are JSON; or a single JSON object.

    :raise UsageError: neither.
    """
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        try:
            given = json.loads(words[0])
        except ValueError as error:
            raise UsageError(f"qmp: {words[0]}: is not JSON ({error}); quote it") from error
        return dict(given)
    values: dict[str, object] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"qmp: {word}: write arguments as key=value or as one JSON object")
        values[key] = _value(value)
    return values


def _value(text: str) -> object:
    """`on` stays a string; 5, true and {"a": 1} become what they are."""
    try:
        return json.loads(text)
    except ValueError:
        return text
