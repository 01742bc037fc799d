"""The small static program of the launcher's pods (`images/holder/holder.c`): one page of code where a shell has hundreds."""

from __future__ import annotations

from pathlib import Path

from qvirt_images.tools import run

SOURCE = Path(__file__).resolve().parent.parent / "holder" / "holder.c"
COMPILER = "gcc"
#: No library, no start files, no more than one loaded segment. The same compiler gives the same bytes.
_OPTIONS = (
    *("-std=gnu11", "-Os", "-Wall", "-Wextra", "-Werror", "-m64"),
    *("-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie", "-mgeneral-regs-only"),
    *("-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fcf-protection=none"),
    *("-Wl,--build-id=none", "-Wl,-z,noseparate-code", "-Wl,-z,noexecstack", "-s"),
)


def compile_holder(target: Path) -> None:
    """Write the program.

    Raises BuildError with what the compiler says.
    """
    run(COMPILER, *_OPTIONS, "-o", target, SOURCE)
