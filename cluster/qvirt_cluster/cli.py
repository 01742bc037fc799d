"""The command line. Results go to standard output, progress and errors to standard error."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Literal, NoReturn, assert_never

from qvirt_cluster.binaries import obtain
from qvirt_cluster.claim import read_claim
from qvirt_cluster.components import Site
from qvirt_cluster.down import down
from qvirt_cluster.errors import ClusterError, UsageError
from qvirt_cluster.layout import DEFAULT_NODE_STATE, DEFAULT_STATE, Layout
from qvirt_cluster.node import default_layout, enter, node_down, node_up
from qvirt_cluster.progress import say
from qvirt_cluster.site import load_site
from qvirt_cluster.status import look
from qvirt_cluster.up import up

Command = Literal["up", "down", "status", "kubeconfig", "build", "node", "node-down"]
_COMMANDS: dict[Command, str] = {
    "up": "bring the cluster up; what runs already stays",
    "down": "remove the cluster with all its data",
    "status": "tell how every component is (exit status 1: not all are well)",
    "kubeconfig": "print the path of the administrator's kubeconfig",
    "node": "bring up a node without a control plane, for static pods, beside the cluster or without it",
    "node-down": "remove that node with all its data",
    "build": "only get Kubernetes' programs, and print their folder (needs no root)",
}


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0 well, 1 something failed, 2 can't be done here."""
    signal.signal(signal.SIGTERM, _terminated)
    options = _parser().parse_args(arguments)
    try:
        return _carry_out(options.command, options.state_dir)
    except ClusterError as error:
        say(f"error: {error}")
        return error.exit_status
    except KeyboardInterrupt:
        say("interrupted; `up` goes on from here, `down` removes what there is")
        return 130


def _carry_out(command: Command, state: Path | None) -> int:
    match command:
        case "build":
            _print(str(obtain(os.environ)))
        case "up":
            _need_root(command)
            site = up(Layout((state or DEFAULT_STATE).resolve()), os.environ)
            say("use it with:")
            _print(f"export KUBECONFIG={site.layout.admin_kubeconfig}")
        case "down":
            _need_root(command)
            down(_existing(state))
        case "status":
            _need_root(command)
            return _status(_existing(state))
        case "node":
            _need_root(command)
            _show_node(node_up(default_layout(state), os.environ))
        case "node-down":
            _need_root(command)
            node_down(default_layout(state))
        case "kubeconfig":
            _print(_kubeconfig(_existing(state)))
        case _:
            assert_never(command)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cluster.py",
        description="A real single-node Kubernetes on a bare Debian machine, without any container registry.",
        epilog="Environment: K8S_BIN_DIR names a folder with Kubernetes' programs; else K8S_RELEASE_URL names the "
        "folder of a release to download; else Debian's source package is built once (about 10 minutes).",
    )
    parser.add_argument("command", choices=tuple(_COMMANDS), help=_help())
    parser.add_argument(
        "--state-dir",
        type=Path,
        help=f"where all of the cluster is (up: {DEFAULT_STATE}; others: the running cluster's; "
        f"node and node-down: {DEFAULT_NODE_STATE})",
    )
    return parser


def _help() -> str:
    return "; ".join(f"{name}: {text}" for name, text in _COMMANDS.items())


def _show_node(site: Site) -> None:
    say("static pods go into the first of these, and are reached at the second:")
    _print(f"MANIFESTS={site.layout.manifests}")
    _print(f"NODE={site.host.address}")
    _print(f"CONTAINERD_ADDRESS={site.layout.containerd_socket}")
    _print(f"ENTER={enter(site.layout)}")


def _existing(state: Path | None) -> Layout:
    """The cluster that a command is about: the one named, else the one that has this machine."""
    claim = read_claim()
    default = Path(claim.state) if claim is not None else DEFAULT_STATE
    return Layout((state or default).resolve())


def _status(layout: Layout) -> int:
    site = load_site(layout)
    if site is None:
        _print(f"there is no cluster in {layout.state}")
        return 1
    found = look(site)
    _print(str(found))
    return 0 if found.well else 1


def _kubeconfig(layout: Layout) -> str:
    if not layout.admin_kubeconfig.exists():
        raise UsageError(f"there is no cluster in {layout.state}; start one with `up`")
    return str(layout.admin_kubeconfig)


def _need_root(command: Command) -> None:
    if os.geteuid() != 0:
        raise UsageError(f"`{command}` needs root: sudo python3 cluster/cluster.py {command}")


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _terminated(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
