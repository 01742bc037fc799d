"""Kubernetes built from Debian's source package, once for each user.

Debian's package builds only kubectl, but carries the whole tree. The make target is needed, not `go
build`: it generates code without which the API server does not compile. A build that was
interrupted goes on where it was: finished programs are kept, and so is Go's cache.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from qvirt_cluster.errors import BuildFailed
from qvirt_cluster.locks import held
from qvirt_cluster.progress import say
from qvirt_cluster.requirements import BUILD, GO_DIRECTORY, REFLECT2_SOURCE, require
from qvirt_cluster.sources import PACKAGE, PrivateApt

PROGRAMS: Final = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
)
#: Goes into the cache's folder names: programs that were built another way are not taken for these.
_RECIPE: Final = "reflect2"
#: Seconds for one program: 5 minutes on two idle cores, so this is a machine that is stuck.
_DEADLINE: Final = 3600.0
_SAY_EVERY: Final = 30.0


def finished_builds(cache: Path) -> tuple[Path, ...]:
    """Folders with all programs, the newest first."""
    folders = [folder for folder in cache.glob(f"*-{_RECIPE}/bin") if _is_complete(folder)]
    return tuple(sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True))


def build(cache: Path) -> Path:
    """The folder with Kubernetes' programs, built if need be (about 10 minutes on two cores, 3 GiB of disk).

    :raise MissingPackages: Go, make and so on are not installed.
    :raise BuildFailed: no source package, or the compiler failed; quotes the end of its log.
    """
    with held(cache / "lock", "building Kubernetes") as lock:
        for finished in finished_builds(cache):
            return finished
        require(BUILD)
        apt = PrivateApt(cache / "apt")
        say(f"looking for Debian's source package {PACKAGE!r}")
        apt.update()
        dsc, version = apt.find()
        room = cache / f"{version}-{_RECIPE}"
        tree = room / "build" / "tree"
        if not tree.exists():
            say(f"unpacking {PACKAGE} {version}")
            apt.unpack(dsc, tree)
        _mend(tree)
        for number, program in enumerate(PROGRAMS, start=1):
            if not (room / "bin" / program).exists():
                label = f"[{number}/{len(PROGRAMS)}] building {program} {version}"
                _make(tree, program, label, room / "build" / "build.log", lock)
                _keep(tree, program, room / "bin")
        shutil.rmtree(room / "build")
        shutil.rmtree(cache / "apt")
        say(f"Kubernetes {version} is built: {room / 'bin'}")
        return room / "bin"


def _is_complete(folder: Path) -> bool:
    return all((folder / program).exists() for program in PROGRAMS)


def _mend(tree: Path) -> None:
    """Put Debian's own reflect2 in the place of the vendored one; again is fine.

    The vendored release reads the layout of Go's maps from before Go 1.18: a kube-apiserver built with Debian's Go
    crashes on the first write of any custom object.
    """
    vendored = tree / "vendor/github.com/modern-go/reflect2"
    shutil.rmtree(vendored, ignore_errors=True)
    shutil.copytree(REFLECT2_SOURCE, vendored)


def _make(tree: Path, program: str, label: str, log: Path, lock: int) -> None:
    """Run make for one program, telling that it lives."""
    link = tree / ".go/src/k8s.io/kubernetes"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to("../../..")
    environment = {
        "PATH": f"{GO_DIRECTORY}:{os.environ.get('PATH', os.defpath)}",
        "HOME": str(tree.parent),
        "GOPATH": str(tree / ".go"),
        "CGO_ENABLED": "0",
        "LC_ALL": "C.UTF-8",
    }
    say(label)
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["nice", "make", f"WHAT=cmd/{program}"],
            cwd=tree,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A compiler that outlives us keeps the lock, so that no second one starts beside it.
            pass_fds=(lock,),
            start_new_session=True,
        )
        try:
            status = _wait(process, label)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise BuildFailed(f"building {program} failed ({status}); the end of {log}:\n{tail}")


def _wait(process: subprocess.Popen[bytes], label: str) -> int:
    start = said = time.monotonic()
    while True:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=1)
        now = time.monotonic()
        if now - start > _DEADLINE:
            raise BuildFailed(f"{label}: not finished after {_DEADLINE / 60:.0f} minutes")
        if now - said >= _SAY_EVERY:
            said = now
            say(f"{label}: {now - start:.0f} s")


def _keep(tree: Path, program: str, folder: Path) -> None:
    """Put a finished program in its place, whole or not at all."""
    folder.mkdir(exist_ok=True)
    partial = folder / f".{program}.partial"
    shutil.copy2(tree / "_output/bin" / program, partial)
    partial.rename(folder / program)
