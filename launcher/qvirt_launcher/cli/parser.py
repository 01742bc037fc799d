"""Everything that can be typed after `qvirt`. Only argparse is imported here: `--help` and completion must be quick."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Final, NoReturn

from qvirt_launcher.cli import exits

_DESCRIPTION: Final = """\
Run virtual machines from the manifests that a Kubernetes cluster with KubeVirt would take,
on this machine and without a cluster."""

_EXAMPLES: Final = """\
examples:
  qvirt run vm.yaml                      run a VM in the foreground; Ctrl-C shuts it down
  qvirt run vm.yaml --detach             the same in the background
  qvirt list                             what runs here
  qvirt console myvm                     the guest's serial console (Ctrl-] leaves)
  qvirt qmp myvm query-status            ask the VM's QEMU
  qvirt stop myvm                        press the power button and wait
  qvirt render vm.yaml                   QEMU's command line, without starting anything
  qvirt COMMAND --help                   everything about one command"""

#: Raw text, one line a switch, aligned.
_WIDTH: Final = 28


class Parser(argparse.ArgumentParser):
    """argparse with our one-line errors."""

    def error(self, message: str) -> NoReturn:
        self.exit(exits.USAGE, f"qvirt: error: {self.prog}: {message}; see `{self.prog} --help`\n")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=_WIDTH, width=100)
        self._action_max_length = 14  # argparse miscounts the indentation of subcommands


_Subparsers = argparse._SubParsersAction


def build_parser() -> Parser:
    """The whole command line. Each subcommand sets ``module``, the module of this package that does it."""
    parser = Parser(
        prog="qvirt",
        description=_DESCRIPTION,
        epilog=f"{_EXAMPLES}\n\n{_exit_codes()}",
        formatter_class=_Formatter,
    )
    parser.add_argument("--version", action="store_const", const=True, help="print qvirt's version")
    commands: _Subparsers[Parser] = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command"
    )
    for add in _COMMANDS:
        add(commands)
    return parser


def _exit_codes() -> str:
    lines = [f"  {code}  {meaning}" for code, meaning in exits.MEANINGS.items()]
    return "\n".join(["exit codes:", *lines])


def _command(
    commands: _Subparsers[Parser], name: str, summary: str, text: str, examples: str = ""
) -> Parser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.\n\n{text}".rstrip(),
        epilog=f"examples:\n{examples.rstrip()}" if examples else None,
        formatter_class=_Formatter,
    )
    parser.set_defaults(module=name)
    return parser


def _run(commands: _Subparsers[Parser]) -> None:
    parser = _command(
        commands,
        "run",
        "run a VM from a manifest",
        "The guest runs until it shuts down, or until Ctrl-C, SIGTERM or `qvirt stop` presses its power\n"
        "button; a second Ctrl-C hurries. Everything that was made for it is removed at the end.",
        """\
  qvirt run vm.yaml --image kubevirt/cirros-registry-disk-demo:devel=build/guest/demo-guest.oci.tar
  qvirt run vm.yaml --pvc data=/srv/data.img --detach --wait ip
  qvirt run vm.yaml --network user --publish 8080:80 --publish 2222:22
  kubectl get vm myvm -o yaml | qvirt run - --console""",
    )
    parser.add_argument("file", metavar="FILE", help="manifest (YAML or JSON); - is standard input")
    parser.add_argument(
        "--name", metavar="NAME", default="", help="which VM, if the file has several"
    )
    _sources(parser)
    _network(parser)
    _behaviour(parser)


def _sources(parser: Parser) -> None:
    group = parser.add_argument_group("disks")
    _image_option(group)
    group.add_argument(
        "--pvc",
        metavar="CLAIM=PATH",
        action="append",
        default=[],
        help="the file, block device, or directory with a disk.img behind a persistentVolumeClaim; raw,"
        " unless ,format=qcow2 is appended; ,readonly keeps the guest from writing",
    )
    group.add_argument(
        "--secret",
        metavar="FILE",
        action="append",
        default=[],
        help="a manifest with Secrets that the VM names (they may also be in FILE itself)",
    )
    group.add_argument(
        "--insecure-registry",
        metavar="HOST[:PORT]",
        action="append",
        default=[],
        help="a registry to talk to without TLS or without checking its certificate",
    )
    group.add_argument(
        "--cache-dir", metavar="DIR", default="", help="where pulled images are kept"
    )


def _image_option(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--image",
        metavar="NAME=SOURCE",
        action="append",
        default=[],
        help="what a container image of the manifest is on this machine: a raw or qcow2 file, an OCI"
        " archive (a .tar, oci-archive:PATH[:TAG]), an OCI layout (oci:DIR[:TAG]), docker-archive:PATH, or"
        " docker://NAME. Images without one are pulled with skopeo",
    )


def _network(parser: Parser) -> None:
    group = parser.add_argument_group("network")
    group.add_argument(
        "--network",
        choices=("auto", "nat", "takeover", "user", "passt", "none"),
        default="auto",
        help="nat: a bridge of our own and NAT; takeover: the guest takes over the MAC and address of an"
        " interface; passt, user: no privileges needed; auto (default): nat as root, else passt, else user",
    )
    group.add_argument(
        "--interface",
        metavar="[NETWORK=]NAME",
        action="append",
        default=[],
        help="takeover: the interface, for the pod network or the one of the spec that is named; without it"
        " that of the default route",
    )
    group.add_argument(
        "--publish",
        metavar="[ADDR:]HOST:GUEST[/udp]",
        action="append",
        default=[],
        help="with user and passt: let a port of this machine reach the guest; ADDR is 127.0.0.1 if not given",
    )


def _behaviour(parser: Parser) -> None:
    group = parser.add_argument_group("how it runs")
    group.add_argument(
        "--accel",
        choices=("auto", "kvm", "tcg"),
        default="auto",
        help="auto (default) tries KVM and falls back to emulation",
    )
    group.add_argument(
        "--user",
        metavar="USER",
        default="",
        help="as root: the user that launcher and QEMU run as; without it `qvirt` if there is one, else `nobody`",
    )
    mode = group.add_mutually_exclusive_group()
    mode.add_argument(
        "--detach",
        "-d",
        action="store_true",
        help="return when the guest runs, and leave it running",
    )
    mode.add_argument(
        "--console", "-c", action="store_true", help="attach this terminal to the serial console"
    )
    group.add_argument(
        "--wait",
        choices=("running", "ip"),
        default="running",
        help="how far the guest must come before --detach returns; ip: until it has taken its address",
    )
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=180.0,
        help="stop the guest and fail if it has not come so far (default 180)",
    )
    group.add_argument(
        "--log",
        metavar="FILE",
        default="",
        help="append the launcher's messages there, instead of to qvirt.log in the run directory, which"
        " goes away with the VM",
    )


def _list(commands: _Subparsers[Parser]) -> None:
    parser = _command(
        commands,
        "list",
        "list the VMs that run on this machine",
        "Those of this user; root's are separate. VMs whose processes were killed show as Dead until\n"
        "the next start of that name removes what they left.",
        "  qvirt list -o json | jq -r '.[].name'",
    )
    parser.add_argument(
        "-o", "--output", choices=("table", "json", "name"), default="table", help="default: table"
    )


def _console(commands: _Subparsers[Parser]) -> None:
    parser = _command(
        commands,
        "console",
        "attach to a VM's serial console",
        "The last 64 KiB are shown first. Ctrl-] leaves, and the VM goes on. When standard input is not a\n"
        "terminal it is sent to the guest and the console's output goes to standard output.",
        """\
  qvirt console myvm
  qvirt console myvm --until 'login:' --timeout 60 < /dev/null""",
    )
    _vm(parser)
    parser.add_argument(
        "--until",
        metavar="TEXT",
        default="",
        help="leave when this text has appeared, with exit code 0",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        help="leave after that long, with exit code 1",
    )


def _vnc(commands: _Subparsers[Parser]) -> None:
    parser = _command(
        commands,
        "vnc",
        "open a VM's screen",
        "Offers the VM's VNC on a port of 127.0.0.1 and starts remote-viewer or vncviewer if there is one.",
        "  qvirt vnc myvm --proxy-only --port 5901",
    )
    _vm(parser)
    parser.add_argument(
        "--proxy-only", action="store_true", help="start no viewer, only say the port"
    )
    parser.add_argument(
        "--port", metavar="PORT", type=_port, default=0, help="of the proxy; default: any free one"
    )


def _stop(commands: _Subparsers[Parser]) -> None:
    parser = _command(
        commands,
        "stop",
        "shut a VM down and wait for its end",
        "Presses the power button; a guest that has not ended when the grace period is over is killed.",
        """\
  qvirt stop myvm
  qvirt stop myvm --grace-period 120
  qvirt stop myvm --force""",
    )
    _vm(parser)
    parser.add_argument(
        "--grace-period",
        metavar="SECONDS",
        type=_whole_seconds,
        help="instead of the manifest's terminationGracePeriodSeconds",
    )
    parser.add_argument("--force", action="store_true", help="at once, as if pulling the plug")


def _qmp(commands: _Subparsers[Parser]) -> None:
    parser = _command(
        commands,
        "qmp",
        "send one QMP command to a VM",
        "The answer is printed as JSON. Without --operate the command goes to the introspection socket,\n"
        "which answers questions (query-*) and changes nothing; qmp-shell works there, too.",
        """\
  qvirt qmp myvm query-status
  qvirt qmp myvm query-cpus-fast
  qvirt qmp myvm stop --operate
  qvirt qmp myvm qom-get path=/machine property=type
  qvirt qmp myvm --events
  qmp-shell $(qvirt qmp myvm --socket)""",
    )
    _vm(parser)
    parser.add_argument(
        "execute", metavar="COMMAND", nargs="?", default="", help="e.g. query-status"
    )
    parser.add_argument(
        "arguments",
        metavar="KEY=VALUE",
        nargs="*",
        help="arguments: key=value pairs (values are JSON where they parse as such), or one JSON object",
    )
    parser.add_argument(
        "--operate", action="store_true", help="through the control socket, for commands that act"
    )
    parser.add_argument(
        "--events", action="store_true", help="print events as they come, until Ctrl-C"
    )
    parser.add_argument(
        "--socket", action="store_true", help="print the socket's path and nothing else"
    )


def _render(commands: _Subparsers[Parser]) -> None:
    parser = _command(
        commands,
        "render",
        "print QEMU's command line for a manifest",
        "Offline: nothing is started, pulled or opened. Paths are those that `qvirt run` would use.",
        """\
  qvirt render vm.yaml
  qvirt render vm.yaml --json --accel tcg""",
    )
    parser.add_argument("file", metavar="FILE", help="manifest (YAML or JSON); - is standard input")
    parser.add_argument(
        "--name", metavar="NAME", default="", help="which VM, if the file has several"
    )
    parser.add_argument("--json", action="store_true", help="as a JSON list instead of shell words")
    parser.add_argument("--accel", choices=("kvm", "tcg"), default="kvm", help="default: kvm")


def _validate(commands: _Subparsers[Parser]) -> None:
    parser = _command(
        commands,
        "validate",
        "check manifests",
        "Every problem of every file is listed with its line and field. Exit code 3 if there is one.",
        "  qvirt validate examples/*.yaml",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="manifests; - is standard input")


def _version(commands: _Subparsers[Parser]) -> None:
    parser = _command(commands, "version", "print the versions of qvirt, Python and QEMU", "")
    parser.add_argument("--json", action="store_true", help="as JSON")


def _completion(commands: _Subparsers[Parser]) -> None:
    parser = _command(
        commands,
        "completion",
        "print a script for the shell's completion",
        "Commands, options, their values and the names of running VMs are completed.",
        """\
  source <(qvirt completion bash)
  qvirt completion zsh > "${fpath[1]}/_qvirt"
  qvirt completion fish > ~/.config/fish/completions/qvirt.fish""",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="whose script")


_COMMANDS: Final[tuple[Callable[[_Subparsers[Parser]], None], ...]] = (
    _run,
    _list,
    _console,
    _vnc,
    _stop,
    _qmp,
    _render,
    _validate,
    _version,
    _completion,
)


def _vm(parser: Parser) -> None:
    parser.add_argument("vm", metavar="NAME", help="the VM's name, or NAMESPACE/NAME")
    parser.add_argument(
        "-n", "--namespace", default="", help="needed only if the name is there in several"
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise ValueError
    return value


def _whole_seconds(text: str) -> int:
    value = int(text)
    if not 0 <= value < 10**9:
        raise ValueError
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 < value < 65536:
        raise ValueError
    return value


# argparse names the type in its message: "invalid seconds value: 'x'".
_seconds.__name__ = _whole_seconds.__name__ = "seconds"
_port.__name__ = "port"
