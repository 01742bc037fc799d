"""KVM by trying: the tiny guest really does what it says, and every way of not working has its sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from qvirt_launcher import accel
from qvirt_launcher.accel import Run, Verdict
from qvirt_launcher.probe import image

SOURCE = Path(image.__file__).with_name("longmode.S")
QEMU = "qemu-system-x86_64"
ALL_STEPS = "abcdefghi"
GOOD = 85


def run(code: int | None, letters: str = "", stderr: bytes = b"", cpu: float = 0.1) -> Run:
    return Run(code=code, letters=letters, stderr=stderr, cpu_seconds=cpu)


@pytest.mark.skipif(shutil.which("as") is None, reason="needs binutils")
def test_the_image_is_its_source(tmp_path: Path) -> None:
    steps = (
        ["as", "--64", "-o", "x.o", str(SOURCE)],
        ["ld", "-Ttext=0xf000", "-e", "0xf000", "--oformat", "binary", "-o", "x.bin", "x.o"],
    )
    for step in steps:
        subprocess.run(step, cwd=tmp_path, check=True)
    assert image.rom() == bytes(0xF000) + (tmp_path / "x.bin").read_bytes()


@pytest.mark.qemu
@pytest.mark.parametrize("model", ["max", "qemu64", "Nehalem"])
def test_the_guest_does_every_step_on_an_emulated_processor(model: str) -> None:
    done = accel.run_guest(QEMU, ("-accel", "tcg", "-cpu", model), deadline=30)
    assert (done.letters, done.code) == (ALL_STEPS, GOOD)
    assert accel.judge(done, 30) == Verdict(works=True)


@pytest.mark.qemu
def test_a_processor_that_lacks_something_is_found_out() -> None:
    """The guest is able to fail: without long mode it must not get through."""
    done = accel.run_guest(QEMU, ("-accel", "tcg", "-cpu", "qemu64,lm=off"), deadline=30)
    verdict = accel.judge(done, 30)
    assert not verdict.works
    assert ALL_STEPS not in done.letters


@pytest.mark.qemu
def test_a_guest_that_does_not_end_is_ended() -> None:
    done = accel.run_guest(QEMU, ("-accel", "tcg", "-S"), deadline=0.5)
    assert (done.code, done.letters) == (None, "")


@pytest.mark.qemu
@pytest.mark.skipif(not os.access(accel.KVM_DEVICE, os.R_OK | os.W_OK), reason="needs /dev/kvm")
def test_here_the_verdict_is_one_sentence_or_yes() -> None:
    verdict = accel.try_kvm(QEMU)
    assert verdict.works or (verdict.why.endswith(".") and "\n" not in verdict.why)


def test_verdicts() -> None:
    crash = b"qemu-system-x86_64: warning: x\nqemu-system-x86_64: error: failed to set MSR 0x10a\nmore\n"
    assert accel.judge(run(GOOD, ALL_STEPS), 3).works
    assert "failed to set MSR 0x10a." in accel.judge(run(-6, "", crash), 3).why
    assert "taking a page fault" in accel.judge(run(13, "abcdef"), 3).why
    assert "gave up while using SSE" in accel.judge(run(None, "abc", b"KVM internal error"), 3).why
    assert "within 3 s" in accel.judge(run(None, "abcdefg"), 3).why
    assert "said nothing" in accel.judge(run(1), 3).why


def test_a_full_exit_code_without_all_steps_would_be_another_program() -> None:
    assert not accel.judge(run(1, ALL_STEPS), 3).works


def test_only_a_guest_that_spun_settles_the_matter() -> None:
    assert accel.judge(run(None, "abc", cpu=2.9), 3).settled
    assert not accel.judge(run(None, "abc", cpu=0.2), 3).settled


def test_a_choice_is_not_tried() -> None:
    def never() -> Verdict:
        raise AssertionError("tried")

    assert accel.choose("tcg", never) == ("tcg", "")
    assert accel.choose("kvm", never) == ("kvm", "")


def test_auto_is_tried() -> None:
    assert accel.choose("auto", lambda: Verdict(works=True)) == ("kvm", "")
    assert accel.choose("auto", lambda: Verdict(works=False, why="No.")) == ("tcg", "No.")


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Verdict]:
    """A /dev/kvm that opens, and a trial that gives the verdicts of this list, last first."""
    device = tmp_path / "kvm"
    device.touch()
    verdicts: list[Verdict] = []
    monkeypatch.setattr(accel, "KVM_DEVICE", str(device))
    monkeypatch.setattr(accel, "try_kvm", lambda _qemu: verdicts.pop())
    return verdicts


def test_a_verdict_is_remembered(tried: list[Verdict], tmp_path: Path) -> None:
    memory = accel.open_memory(str(tmp_path / "cache"))
    assert memory is not None
    tried.append(Verdict(works=False, why="No."))
    first = accel.try_kvm_once("/bin/sh", memory)
    assert accel.try_kvm_once("/bin/sh", memory) == first
    os.close(memory)
    again = accel.open_memory(str(tmp_path / "cache"))
    assert accel.try_kvm_once("/bin/sh", again) == first


def test_another_qemu_or_device_is_tried_again(tried: list[Verdict], tmp_path: Path) -> None:
    memory = accel.open_memory(str(tmp_path))
    tried += [Verdict(works=True), Verdict(works=True), Verdict(works=False, why="No.")]
    assert not accel.try_kvm_once("/bin/sh", memory).works
    assert accel.try_kvm_once("/bin/cat", memory).works
    os.unlink(accel.KVM_DEVICE)
    Path(accel.KVM_DEVICE).with_name("other").touch()
    Path(accel.KVM_DEVICE).touch()
    assert accel.try_kvm_once("/bin/cat", memory).works
    assert not tried


def test_an_unsettled_verdict_is_not_remembered(tried: list[Verdict], tmp_path: Path) -> None:
    memory = accel.open_memory(str(tmp_path))
    tried += [Verdict(works=True), Verdict(works=False, why="Busy.", settled=False)]
    assert not accel.try_kvm_once("/bin/sh", memory).works
    assert accel.try_kvm_once("/bin/sh", memory).works


def test_garbage_in_the_memory_is_no_verdict(tried: list[Verdict], tmp_path: Path) -> None:
    (tmp_path / "accel.json").write_bytes(b'{"key": "x", "verdict": {"works"')
    memory = accel.open_memory(str(tmp_path))
    tried.append(Verdict(works=True))
    assert accel.try_kvm_once("/bin/sh", memory).works
    assert accel.try_kvm_once("/bin/sh", memory).works


def test_a_memory_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert accel.open_memory(str(tmp_path / "file" / "below")) is None


def test_no_device_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "KVM_DEVICE", "/nonexistent/kvm")
    verdict = accel.try_kvm(QEMU)
    assert verdict == Verdict(works=False, why="/nonexistent/kvm does not exist.", settled=False)
