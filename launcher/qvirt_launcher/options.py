"""virt-launcher's options. Read by hand: argparse and what it imports would stay in memory as long as the guest (docs/adr/0007)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal

import msgspec

from qvirt_crds import names

PROGRAM: Final = "virt-launcher"

#: Where there is no control plane it is how a VM's run strategy is kept.
RestartPolicy = Literal["Never", "OnFailure", "Always"]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for; `OPTIONS` says what each means."""

    run_dir: str
    disk_dir: str = ""
    cache_dir: str = ""
    user: str = ""
    pod: bool = False
    namespace: str = names.DEFAULT_NAMESPACE
    name: str = ""
    console_log: str = ""
    console_pipe: str = ""
    vm_from: str = ""
    restart_policy: RestartPolicy = "Never"
    verbose: bool = False


#: Option, what stands for its value (empty: it has none), meaning.
OPTIONS: Final = (
    ("--run-dir", "DIR", "where its sockets are made; belongs to this VM alone (required)"),
    (
        "--disk-dir",
        "DIR",
        "where overlays and seeds are made (default: disks in the run directory)",
    ),
    ("--cache-dir", "DIR", "where it is remembered until the next boot whether KVM works"),
    ("--user", "NAME|UID[:GID]", f"as root: whom to become (default: {names.RUNTIME_UID})"),
    (
        "--pod",
        "",
        "in a pod: find the volumes where the kubelet mounted them, end the sidecars with the guest",
    ),
    ("--namespace", "NAME", "the VM's, for the log until vm-sync says it (default: default)"),
    ("--name", "NAME", "the VM's, for the log until vm-sync says it"),
    ("--console-log", "FILE", "keep the serial console's output, 16 MiB at most"),
    ("--console-pipe", "FILE", "make a pipe there with the serial console's output"),
    ("--vm-from", "VARIABLE", "take the VM from the environment instead of waiting for vm-sync"),
    (
        "--restart-policy",
        "POLICY",
        "when the guest is to run again: its sidecars stay then, and with Always a guest that has ended by itself is a"
        " failure (default: Never)",
    ),
    ("--verbose", "", "log details"),
    ("--help", "", "show this"),
)
_ABOUT: Final = """\
usage: virt-launcher --run-dir DIR [OPTION...]

Runs one virtual machine: waits for vm-sync on its control socket (or has it from --vm-from), starts QEMU, ends with the guest.
"""
_CODES: Final = """
exit codes: 0 the guest shut down or was stopped, 2 usage, 4 this host can't, 5 QEMU failed, 6 the guest
panicked, 7 the guest ignored the power button and was killed, 8 it is to run again (--restart-policy Always)
"""


class Usage(Exception):
    """Nothing is to be run: the message is for the user, `code` is the exit code (0: help was asked for)."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def parse(arguments: Sequence[str]) -> Options:
    """``--option value`` or ``--option=value``, in any order; the last one counts.

    :raise Usage: something is wrong with them, or help is wanted.
    """
    found: dict[str, str | bool] = {}
    rest = iter(arguments)
    for word in rest:
        option, _, value = word.partition("=")
        metavar = next((metavar for name, metavar, _ in OPTIONS if name == option), None)
        if metavar is None or (value and not metavar):
            raise _wrong(f"unknown argument {word!r}")
        if option == "--help":
            raise Usage(_help(), 0)
        key = option.removeprefix("--").replace("-", "_")
        found[key] = _value(option, word, rest) if metavar else True
    if not found.get("run_dir"):
        raise _wrong("--run-dir is missing")
    try:
        return msgspec.convert(found, Options)
    except msgspec.ValidationError as error:
        raise _wrong(str(error)) from None


def _value(option: str, word: str, rest: Iterator[str]) -> str:
    if "=" in word:
        return word.partition("=")[2]
    value = next(rest, None)
    if value is None or value.startswith("--"):
        raise _wrong(f"{option} needs a value")
    return value


def _wrong(what: str) -> Usage:
    return Usage(f"{PROGRAM}: {what}; see {PROGRAM} --help", 2)


def _help() -> str:
    rows = (f"  {f'{name} {metavar}':<22} {meaning}" for name, metavar, meaning in OPTIONS)
    return _ABOUT + "\n" + "\n".join(rows) + "\n" + _CODES.rstrip()
