"""KVM by trying: a tiny guest is run under it, with a deadline, before a real one is trusted to it.

That /dev/kvm exists and opens proves nothing, nor does a firmware that comes up: there are machines whose KVM interprets
64-bit code instruction by instruction and stops at the first that it doesn't know. So `probe/longmode.S` does in
milliseconds what a kernel does first, in the same QEMU and with the host's own CPU model. What came out is remembered until
the next boot.
"""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Final

import msgspec

from qvirt_crds.report import Accel, AccelChoice
from qvirt_launcher import native
from qvirt_launcher.probe.image import rom

KVM_DEVICE: Final = "/dev/kvm"
#: A working KVM needs a tenth of a second; a busy machine may need a few.
DEADLINE_SECONDS: Final = 3.0
_GOOD: Final = 0x2A << 1 | 1
_MOST_OUTPUT: Final = 1 << 16
#: Printed when KVM met an instruction that it can't run; QEMU then stands still for ever.
_GAVE_UP: Final = b"KVM internal error"
_MEMORY: Final = "accel.json"
_STEPS: Final = {
    "": "reaching 64-bit mode",
    "a": "loading descriptor tables",
    "b": "reading CPUID and MSRs",
    "c": "using SSE",
    "d": "using memory",
    "e": "taking an exception",
    "f": "taking a page fault",
    "g": "taking a timer interrupt",
    "h": "entering user mode",
    "i": "running at full speed",
}


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether KVM runs guests here, and why not, in one sentence."""

    works: bool
    why: str = ""
    #: Whether it would come out the same again: not so when the machine was too busy to try.
    settled: bool = True


class _Memory(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict, and the circumstances in which it holds."""

    key: str
    verdict: Verdict


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What the tiny guest's QEMU did. ``code`` None: it had to be killed."""

    code: int | None
    letters: str
    stderr: bytes
    cpu_seconds: float


def choose(choice: AccelChoice, probe: Callable[[], Verdict]) -> tuple[Accel, str]:
    """The accelerator, and why it is not KVM although it might have been."""
    match choice:
        case "kvm":
            return "kvm", ""
        case "tcg":
            return "tcg", ""
        case "auto":
            verdict = probe()
            return ("kvm", "") if verdict.works else ("tcg", verdict.why)


def try_kvm(qemu: str, deadline: float = DEADLINE_SECONDS) -> Verdict:
    """Run the tiny guest under KVM with the host's CPU model. Blocks for ``deadline`` seconds at most."""
    denied = why_not_openable()
    if denied:
        return Verdict(works=False, why=denied, settled=False)
    return judge(run_guest(qemu, ("-accel", "kvm", "-cpu", "host"), deadline), deadline)


def try_kvm_once(qemu: str, memory: int | None) -> Verdict:
    """As `try_kvm`, but what came out earlier since the machine's start is believed.

    :param memory: descriptor of the file from `open_memory`; None: nothing is remembered.
    """
    denied = why_not_openable()
    if denied or memory is None:
        return try_kvm(qemu)
    key = _circumstances(qemu)
    known = _recall(memory, key)
    if known is not None:
        return known
    verdict = try_kvm(qemu)
    if verdict.settled:
        _remember(memory, _Memory(key=key, verdict=verdict))
    return verdict


def open_memory(directory: str) -> int | None:
    """The file where the verdict is kept; None when it can't be written, which costs the next start a tenth of a second."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        os.makedirs(directory, mode=0o755, exist_ok=True)
        return os.open(os.path.join(directory, _MEMORY), flags, 0o644)
    except OSError:
        return None


def _circumstances(qemu: str) -> str:
    """What the verdict depends on: this boot, this QEMU, this device node (a reloaded module makes a new one)."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    program = os.stat(shutil.which(qemu) or qemu)
    device = os.stat(KVM_DEVICE)
    parts = (
        boot,
        program.st_dev,
        program.st_ino,
        program.st_mtime_ns,
        device.st_rdev,
        device.st_ino,
        device.st_ctime_ns,
    )
    return " ".join(map(str, parts))


def _recall(memory: int, key: str) -> Verdict | None:
    try:
        known = msgspec.json.decode(os.pread(memory, _MOST_OUTPUT, 0), type=_Memory)
    except msgspec.DecodeError:
        return None
    return known.verdict if known.key == key else None


def _remember(memory: int, what: _Memory) -> None:
    data = msgspec.json.encode(what)
    with contextlib.suppress(OSError):
        os.ftruncate(memory, 0)
        os.pwrite(memory, data, 0)


def why_not_openable() -> str:
    """Why we can't open /dev/kvm, as a sentence; empty: we can."""
    try:
        os.close(os.open(KVM_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"{KVM_DEVICE} does not exist."
    except OSError as error:
        return f"{KVM_DEVICE} can't be opened by uid {os.geteuid()}: {error.strerror}."
    return ""


def run_guest(qemu: str, accel: tuple[str, ...], deadline: float) -> Run:
    """Start the tiny guest and wait for its end.

    :raise FileNotFoundError: QEMU is not installed.
    """
    image = os.memfd_create("qvirt-probe")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        os.write(image, rom())
        with subprocess.Popen(
            _argv(qemu, accel, image),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(image,),
            preexec_fn=_as_child(),
        ) as child:
            out, err, code = _watch(child, deadline)
    finally:
        os.close(image)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(code=code, letters=out.decode("ascii", "replace"), stderr=err, cpu_seconds=spent)


def _argv(qemu: str, accel: tuple[str, ...], image: int) -> list[str]:
    plain = "-machine pc -m 16 -smp 1 -nodefaults -no-user-config -display none -no-reboot"
    ports = (
        "-device isa-debug-exit,iobase=0xf4,iosize=4 "
        "-chardev stdio,id=letters,signal=off -device isa-debugcon,iobase=0xe9,chardev=letters"
    )
    return [qemu, *accel, *plain.split(), *ports.split(), "-bios", f"/proc/self/fd/{image}"]


def _as_child() -> Callable[[], None]:
    die_with_parent = native.dying_with_parent()

    def between_fork_and_exec() -> None:
        die_with_parent()
        # QEMU aborts where KVM is not what it seems; that is an answer, not a crash to be kept.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    return between_fork_and_exec


def _watch(child: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes, int | None]:
    """Its output and exit code; killed when the deadline has passed or KVM has given up."""
    assert child.stdout is not None
    assert child.stderr is not None
    out, err = bytearray(), bytearray()
    end = time.monotonic() + deadline
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ, out)
        selector.register(child.stderr, selectors.EVENT_READ, err)
        while selector.get_map():
            for key, _ in selector.select(max(0.0, end - time.monotonic())):
                chunk = os.read(key.fd, 4096)
                if not chunk or len(key.data) > _MOST_OUTPUT:
                    selector.unregister(key.fileobj)
                key.data.extend(chunk)
            if time.monotonic() >= end or _GAVE_UP in err:
                child.kill()
                child.wait()
                return bytes(out), bytes(err), None
    return bytes(out), bytes(err), child.wait()


def judge(run: Run, deadline: float) -> Verdict:
    """What a run of the tiny guest says about KVM."""
    if run.code == _GOOD:
        return Verdict(works=True)
    step = _STEPS.get(run.letters[-1:], "starting")
    said = _first_line(run.stderr)
    if _GAVE_UP in run.stderr:
        return Verdict(
            works=False,
            why=f"{KVM_DEVICE} opens, but it can't run 64-bit guests: it gave up while {step}.",
        )
    if run.code is None:
        # One that spins will spin again; one that hardly ran tells nothing about tomorrow.
        return Verdict(
            works=False,
            why=f"{KVM_DEVICE} opens, but a test guest did not finish within {deadline:g} s: it hung while {step}.",
            settled=run.cpu_seconds > deadline / 2,
        )
    if run.letters:
        return Verdict(
            works=False, why=f"{KVM_DEVICE} opens, but a 64-bit test guest failed while {step}."
        )
    return Verdict(works=False, why=f"{KVM_DEVICE} opens, but QEMU can't use it: {said}.")


def _first_line(stderr: bytes) -> str:
    """QEMU's complaint without its name."""
    lines = [
        line for line in stderr.decode(errors="replace").splitlines() if "warning:" not in line
    ]
    if not lines:
        return "it said nothing"
    return lines[0].partition(": ")[2].removeprefix("error: ").rstrip(".") or lines[0]
