"""Everything that can be typed after `qvirt`. Only argparse is imported here: `--help` and completion must be quick."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Final, NoReturn

from qvirt_launcher.cli import exits, values
from qvirt_launcher.cli.options import add_behaviour, add_network, add_node, add_sources

_DESCRIPTION: Final = """\
Run virtual machines from the manifests that a Kubernetes cluster with KubeVirt would take,
on this machine and without a cluster; and reach those of a cluster as virtctl does."""

_EXAMPLES: Final = """\
examples:
  qvirt run vm.yaml                      run a VM in the foreground; Ctrl-C shuts it down
  qvirt run vm.yaml --detach             the same in the background
  qvirt list                             what runs here
  qvirt console myvm                     the guest's serial console (Ctrl-] leaves)
  qvirt qmp myvm query-status            ask the VM's QEMU
  qvirt stop myvm                        press the power button and wait
  qvirt ssh root@myvm --context work     log in to a VM of a cluster
  qvirt render vm.yaml                   QEMU's command line, without starting anything
  qvirt pod vm.yaml                      a pod for podman, or for a kubelet without a control plane
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
    parser.set_defaults(module=name.replace("-", "_"))
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
    add_sources(parser)
    add_network(parser)
    add_behaviour(parser)


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
    _vm(parser, cluster=True)
    parser.add_argument(
        "--until",
        metavar="TEXT",
        default="",
        help="leave when this text has appeared, with exit code 0",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=values.seconds,
        help="leave after that long, with exit code 1",
    )


def _vnc(commands: _Subparsers[Parser]) -> None:
    parser = _command(
        commands,
        "vnc",
        "open a VM's screen",
        "Offers the VM's VNC on a port of 127.0.0.1 and starts remote-viewer or vncviewer if there is one.",
        """\
  qvirt vnc myvm --proxy-only --port 5901
  qvirt vnc myvm --browser -n prod""",
    )
    _vm(parser, cluster=True)
    parser.add_argument(
        "--browser",
        action="store_true",
        help="of a cluster: the page that virt-api has for it, in the web browser, with the rights of the kubeconfig",
    )
    parser.add_argument(
        "--proxy-only", action="store_true", help="start no viewer, only say the port or address"
    )
    parser.add_argument(
        "--port",
        metavar="PORT",
        type=values.port,
        default=0,
        help="of the proxy; default: any free one",
    )


def _start(commands: _Subparsers[Parser]) -> None:
    parser = _command(
        commands,
        "start",
        "start a VM of a cluster",
        "On this machine `qvirt run` starts VMs.",
        """\
  qvirt start myvm
  qvirt start myvm --paused -n prod --context work""",
    )
    _vm(parser, cluster=True)
    parser.add_argument(
        "--paused", action="store_true", help="with its clock stopped, until `qvirt unpause`"
    )


def _restart(commands: _Subparsers[Parser]) -> None:
    parser = _command(
        commands,
        "restart",
        "shut a VM down and start it again",
        "On a cluster it gets a new pod. On this machine the guest reboots, by its agent or the power\n"
        "button; with --force as by the reset button.",
        "  qvirt restart myvm",
    )
    _vm(parser, cluster=True)
    parser.add_argument("--force", action="store_true", help="at once, as if pulling the plug")


def _pause(commands: _Subparsers[Parser]) -> None:
    parser = _command(
        commands,
        "pause",
        "stop a VM's clock",
        "It keeps its memory and its place.",
        "  qvirt pause myvm",
    )
    _vm(parser, cluster=True)


def _unpause(commands: _Subparsers[Parser]) -> None:
    parser = _command(commands, "unpause", "let a paused VM go on", "", "  qvirt unpause myvm")
    _vm(parser, cluster=True)


def _ssh(commands: _Subparsers[Parser]) -> None:
    parser = _command(
        commands,
        "ssh",
        "log in to a VM by ssh",
        "Runs this machine's OpenSSH client. On a cluster the connection goes through the API server\n"
        "(`qvirt port-forward --stdio`), and host keys are kept in ~/.ssh/kubevirt_known_hosts.",
        """\
  qvirt ssh root@myvm
  qvirt ssh root@prod/myvm -i ~/.ssh/id_ed25519 -c uptime""",
    )
    _vm(parser, cluster=True, metavar="[USER@]NAME")
    parser.add_argument(
        "-c", "--command", dest="line", metavar="TEXT", default="", help="what the guest is to run"
    )
    parser.add_argument("-i", "--identity", metavar="FILE", default="", help="a private key")
    parser.add_argument(
        "--port", metavar="PORT", type=values.port, default=22, help="the guest's (default 22)"
    )


def _port_forward(commands: _Subparsers[Parser]) -> None:
    parser = _command(
        commands,
        "port-forward",
        "have a VM's ports on this machine",
        "On a cluster the connections go through the API server. On this machine the guest is reached by\n"
        "its address, or by what --publish has published.",
        """\
  qvirt port-forward myvm 8080:80
  qvirt port-forward myvm 2222:22 udp/5353:53 -n prod
  qvirt port-forward --stdio myvm 22""",
    )
    _vm(parser, cluster=True)
    parser.add_argument(
        "ports",
        metavar="[udp/]PORT[:GUEST]",
        nargs="+",
        type=values.forward,
        help="a port of this machine (0: any free one) and the guest's; one number is both",
    )
    parser.add_argument(
        "--address", metavar="ADDR", default="127.0.0.1", help="to listen on (default: 127.0.0.1)"
    )
    parser.add_argument(
        "--stdio", action="store_true", help="connect one port with standard input and output"
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
    _vm(parser, cluster=True)
    parser.add_argument(
        "--grace-period",
        metavar="SECONDS",
        type=values.whole_seconds,
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


def _pod(commands: _Subparsers[Parser]) -> None:
    parser = _command(
        commands,
        "pod",
        "write a VM as a pod for a node without a control plane",
        "For a kubelet's folder of static pods and for `podman kube play` alike; nothing is started, pulled\n"
        "or opened here. The VM stands in the pod itself, so that virt-launcher starts alone: without\n"
        "privileges, with QEMU's user-mode network. Ports of the guest that the manifest lists are ports of\n"
        "the pod (8000 higher where they are below 1024); --publish makes them ports of the node.\n"
        "A running or Always VM is started again whenever it ends, RerunOnFailure when it fails.\n"
        "docs/edge.md tells the rest.",
        """\
  qvirt pod vm.yaml --publish 8080:80 --publish 2222:22 > myvm.yaml
  qvirt pod vm.yaml --image registry.example/disk:1=localhost/disk:1 --pvc data=/srv/data.img
  qvirt pod vm.yaml | podman kube play -
  qvirt pod vm.yaml > /etc/kubernetes/manifests/myvm.yaml""",
    )
    parser.add_argument("file", metavar="FILE", help="manifest (YAML or JSON); - is standard input")
    parser.add_argument(
        "--name", metavar="NAME", default="", help="which VM, if the file has several"
    )
    add_node(parser)


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
    _ssh,
    _port_forward,
    _start,
    _stop,
    _restart,
    _pause,
    _unpause,
    _qmp,
    _render,
    _pod,
    _validate,
    _version,
    _completion,
)


def _vm(parser: Parser, *, cluster: bool = False, metavar: str = "NAME") -> None:
    """:param cluster: the VM may be one of a cluster (`where`)."""
    parser.add_argument("vm", metavar=metavar, help="the VM's name, or NAMESPACE/NAME")
    parser.add_argument(
        "-n",
        "--namespace",
        metavar="NAMESPACE",
        default="",
        help="needed only if the name is there in several; on a cluster: instead of the context's"
        if cluster
        else "needed only if the name is there in several",
    )
    if not cluster:
        return
    group = parser.add_argument_group(
        "clusters", "Asked when one of these is given, or when no VM of that name runs here."
    )
    group.add_argument(
        "--kubeconfig",
        metavar="FILE",
        default="",
        help="default: KUBECONFIG, else ~/.kube/config",
    )
    group.add_argument(
        "--context", metavar="NAME", default="", help="of the kubeconfig (default: its current one)"
    )
