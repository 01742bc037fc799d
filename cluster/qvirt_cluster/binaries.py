"""Which programs the cluster runs: K8S_BIN_DIR, else K8S_RELEASE_URL, else built from source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qvirt_cluster.build import PROGRAMS, build, finished_builds
from qvirt_cluster.commands import find_program, run
from qvirt_cluster.errors import MissingPackages, UsageError
from qvirt_cluster.layout import cache_directory
from qvirt_cluster.release import download
from qvirt_cluster.requirements import CNI_DIRECTORY, RUN, require
from qvirt_cluster.version import Version, parse_version


@dataclass(frozen=True)
class Binaries:
    """:param folder: where Kubernetes' own programs are; it may hold etcd, containerd, runc and kubectl too.
    :param cni: the folder of the CNI plugins.
    """

    folder: Path
    cni: Path
    version: Version

    def path(self, program: str) -> str:
        """Absolute path of a program: from `folder`, else from the machine.

        :raise MissingPackages: it is in neither.
        """
        own = self.folder / program
        if own.exists():
            return str(own)
        found = find_program(program)
        if found is None:
            raise MissingPackages(tuple(name for name, proof in RUN.items() if proof == program))
        return found


def obtain(environment: Mapping[str, str]) -> Path:
    """The folder with Kubernetes' programs; gets them first if need be, which can take minutes.

    :raise UsageError: K8S_BIN_DIR is set and incomplete.
    :raise BuildFailed: see `build` and `download`.
    """
    given = environment.get("K8S_BIN_DIR")
    cache = cache_directory(environment)
    if given:
        folder = Path(given).resolve()
        missing = [program for program in PROGRAMS if not (folder / program).is_file()]
        if missing:
            raise UsageError(f"K8S_BIN_DIR={given} has no {', '.join(missing)}")
        return folder
    if url := environment.get("K8S_RELEASE_URL"):
        return download(url, cache)
    return next(iter(finished_builds(cache)), None) or build(cache)


def inspect(folder: Path) -> Binaries:
    """Check that all that runs is installed, and read the version.

    :raise MissingPackages: something is not installed.
    :raise UsageError: the programs are no Kubernetes.
    """
    require(RUN, besides=(folder,))
    text = run(folder / "kubelet", "--version", deadline=20)
    return Binaries(folder=folder, cni=CNI_DIRECTORY, version=parse_version(text, "kubelet"))
