"""What must be installed: each package of packages.txt and the file or program by which it is recognised.

By the program and not by dpkg: an equal program from elsewhere is as good (kubectl, for instance).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from qvirt_cluster.commands import find_program
from qvirt_cluster.errors import MissingPackages

#: Debian's own Go, whichever other one is first on the PATH: it is the one that the package builds with.
GO_DIRECTORY: Final = Path("/usr/lib/go/bin")
REFLECT2_SOURCE: Final = Path("/usr/share/gocode/src/github.com/modern-go/reflect2")
CNI_DIRECTORY: Final = Path("/usr/lib/cni")

#: Package -> program (or absolute file) that shows it is there.
RUN: Final[Mapping[str, str]] = {
    "containerd": "containerd",
    "runc": "runc",
    "containernetworking-plugins": str(CNI_DIRECTORY / "bridge"),
    "conntrack": "conntrack",
    "docker-registry": "docker-registry",
    "ebtables": "ebtables",
    "etcd-server": "etcd",
    "ethtool": "ethtool",
    "gcc": "gcc",
    "iproute2": "ip",
    "iptables": "iptables",
    "kubernetes-client": "kubectl",
    "libc6-dev": "/usr/include/stdlib.h",
    "mount": "mount",
    "openssl": "openssl",
    "skopeo": "skopeo",
    "socat": "socat",
    "util-linux": "nsenter",
}
BUILD: Final[Mapping[str, str]] = {
    "dpkg-dev": "dpkg-source",
    "golang-github-modern-go-reflect2-dev": str(REFLECT2_SOURCE / "unsafe_map.go"),
    "golang-go": str(GO_DIRECTORY / "go"),
    "jq": "jq",
    "make": "make",
    "rsync": "rsync",
}


def require(packages: Mapping[str, str], besides: Iterable[Path] = ()) -> None:
    """Check that all are there.

    :param besides: folders that may hold the programs too (K8S_BIN_DIR).
    :raise MissingPackages: some are not; names all of them at once.
    """
    folders = tuple(besides)
    missing = [package for package, proof in packages.items() if not _is_there(proof, folders)]
    if missing:
        raise MissingPackages(tuple(missing))


def _is_there(proof: str, folders: tuple[Path, ...]) -> bool:
    if proof.startswith("/"):
        return Path(proof).exists()
    return find_program(proof) is not None or any((folder / proof).exists() for folder in folders)
