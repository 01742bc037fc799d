"""Exit codes of `qvirt`, and what each is for. The table in ``qvirt --help`` and in docs/cli.md is this one."""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
REFUSED: Final = 3
HOST: Final = 4
QEMU: Final = 5
PANICKED: Final = 6
KILLED: Final = 7

MEANINGS: Final[dict[int, str]] = {
    OK: "done; for run: the guest shut down, by itself or when asked to",
    FAILED: "it could not be done: no VM of that name, a QMP command refused, a timeout",
    USAGE: "the command line is wrong",
    REFUSED: "the manifest is refused; every reason is listed",
    HOST: "this machine can't do it: a program, image, claim, tap or permission is missing",
    QEMU: "QEMU failed; the message has its last words",
    PANICKED: "the guest's kernel panicked",
    KILLED: "the guest ignored the power button and was killed after the grace period",
}
