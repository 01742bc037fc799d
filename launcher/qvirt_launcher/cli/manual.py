"""docs/cli.md, written from the parser, so that the two can't differ: ``python -m qvirt_launcher.cli.manual > docs/cli.md``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from qvirt_launcher.cli import exits
from qvirt_launcher.cli.parser import Parser, build_parser

_INTRODUCTION = """\
# The `qvirt` command

Written from the command's own help: `python -m qvirt_launcher.cli.manual > docs/cli.md`.

`qvirt` runs virtual machines from KubeVirt's manifests on this machine, without a cluster. As root, guests get a NAT bridge of
their own, and launcher and QEMU run as an ordinary user (`--user`); without root they have passt's or QEMU's user networking.

What a VM needs while it runs is below `/run/qvirt/<namespace>/<name>` (root), `$XDG_RUNTIME_DIR/qvirt` or `/tmp/qvirt-<uid>`: the
control socket `launcher.sock`, the read-only introspection socket `qmp.sock`, `console.sock`, `vnc.sock`, and `qvirt.log`. It is
removed at the end, as are the overlays and empty disks of the VM (`/var/lib/qvirt/disks`, `$XDG_STATE_HOME/qvirt/disks` or
`~/.local/state/qvirt/disks`); after a crash the next start of the same name removes them. Disks out of container images are kept by digest
in `/var/cache/qvirt`, `$XDG_CACHE_HOME/qvirt` or `~/.cache/qvirt`, which may be emptied whenever no VM runs.

The commands console, vnc, ssh, port-forward, start, stop, restart, pause and unpause also know the VMs of a cluster with qvirt or
KubeVirt. A VM is looked for on this machine first, and then, if there is a kubeconfig, on the cluster of its current context;
`--kubeconfig` or `--context` say that it is on a cluster. Certificates, tokens and credential plugins of kubeconfigs work; proxies don't.

Errors are one line each: `qvirt: error: <object or field>: <cause>; <remedy>`. A manifest with several problems gets a line a problem.
"""


def manual() -> str:
    """The page."""
    parser = build_parser()
    parts = [_INTRODUCTION, *_exit_codes()]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                parts += _command(name, command)
    return "\n".join(parts).rstrip() + "\n"


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes\n"
    yield "| code | meaning |\n|---|---|"
    for code, meaning in exits.MEANINGS.items():
        yield f"| {code} | {meaning} |"
    yield ""


def _command(name: str, parser: Parser) -> Iterator[str]:
    yield f"## qvirt {name}\n"
    yield f"{parser.description}\n"
    yield "| argument | |\n|---|---|"
    for action in parser._actions:
        if action.dest != "help":
            yield f"| {_shown(action)} | {_help(action)} |"
    yield ""
    if parser.epilog:
        examples = parser.epilog.removeprefix("examples:\n")
        yield "```sh"
        yield from (line.removeprefix("  ") for line in examples.splitlines())
        yield "```\n"


def _shown(action: argparse.Action) -> str:
    value = str(action.metavar or "")
    if not value and action.choices is not None:
        value = " or ".join(map(str, action.choices))
    names = ", ".join(f"`{option}`" for option in action.option_strings)
    text = " ".join(part for part in (names, f"`{value}`" if value else "") if part)
    return text.replace("|", "\\|")


def _help(action: argparse.Action) -> str:
    text = (action.help or "").replace("|", "\\|")
    return f"{text} (may be repeated)" if isinstance(action, argparse._AppendAction) else text


if __name__ == "__main__":
    sys.stdout.write(manual())
