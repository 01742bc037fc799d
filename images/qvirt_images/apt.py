"""Debian packages of any architecture, downloaded with a private state of apt.

The machine's own sources, keys, proxies and credentials are used as they are configured; its
package lists, its dpkg database and its architectures are neither read nor changed. So a foreign
architecture needs no `dpkg --add-architecture`, and no user but the caller needs any right.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from qvirt_images.errors import BuildError
from qvirt_images.tools import run


@dataclass(frozen=True)
class Package:
    """One version of a package as the archive's signed index describes it."""

    name: str
    version: str
    architecture: str
    sha256: str
    depends: str


class Archive:
    """The packages of one architecture."""

    def __init__(self, cache: Path, architecture: str, sources: Path | None = None) -> None:
        """`cache` keeps indexes and packages; `sources` replaces the machine's list of sources."""
        self.architecture = architecture
        self.cache = cache
        self.sources = sources
        self._debs = cache / "debs"
        state = cache / f"apt-{architecture}"
        for part in ("lists/partial", "cache/archives/partial"):
            (state / part).mkdir(parents=True, exist_ok=True)
        self._debs.mkdir(parents=True, exist_ok=True)
        (state / "status").touch()
        options = {
            "Dir::State": state,
            "Dir::State::lists": state / "lists",
            "Dir::State::status": state / "status",
            "Dir::Cache": state / "cache",
            "APT::Architecture": architecture,
            "APT::Architectures::": architecture,
            # Root's downloads go to a directory that apt's own user may not write to.
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        if sources is not None:
            options |= {
                "Dir::Etc::sourcelist": sources.resolve(),
                "Dir::Etc::sourceparts": "/dev/null",
            }
        self._options = [
            word for key, value in options.items() for word in ("-o", f"{key}={value}")
        ]

    def update(self) -> None:
        """Fetch the indexes; a partial failure is a warning, since older ones may do."""
        try:
            run("apt-get", *self._options, "update", deadline=300)
        except BuildError as error:
            causes = [line for line in str(error).splitlines() if line.startswith("E: ")]
            print(f"warning: apt-get update: {' '.join(causes) or error}", file=sys.stderr)

    def resolve(self, names: Iterable[str]) -> dict[str, Package]:
        """Candidate versions of the packages.

        Raises BuildError naming every package that the configured sources do not have.
        """
        wanted = list(names)
        found = self._shown(wanted)
        missing = [name for name in wanted if name not in found]
        if missing:
            raise BuildError(
                f"apt's sources have no {', '.join(missing)} for {self.architecture}: they must name "
                "Debian 12 (bookworm), component main; give another list with --sources FILE"
            )
        return found

    def _shown(self, names: list[str]) -> dict[str, Package]:
        """What apt knows of the packages; a name that it doesn't know makes it fail after it told the others."""
        try:
            text = run("apt-cache", *self._options, "show", "--no-all-versions", *names)
        except BuildError:
            if len(names) == 1:
                return {}
            return {name: found for one in names for name, found in self._shown([one]).items()}
        shown: dict[str, Package] = {}
        for record in text.strip().split("\n\n"):
            fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", record, re.M))
            package = Package(
                fields["Package"],
                fields["Version"],
                fields["Architecture"],
                fields["SHA256"],
                fields.get("Depends", ""),
            )
            shown.setdefault(package.name, package)
        return shown

    def behind(self, metapackage: str) -> str:
        """Name of the real kernel package that a metapackage such as linux-image-686 depends on."""
        depends = self.resolve([metapackage])[metapackage].depends
        for word in re.split(r"[,|]\s*", depends):
            if word.startswith("linux-image-"):
                return word.split()[0]
        raise BuildError(f"{metapackage} names no kernel package, its dependencies are: {depends}")

    def closure(self, names: Iterable[str]) -> list[Package]:
        """The packages and all that they depend on, without recommendations, as apt would install them on nothing.

        Raises BuildError if apt can't.
        """
        wanted = sorted(names)
        self.resolve(wanted)  # says which are missing
        text = run(
            "apt-get",
            *self._options,
            "--simulate",
            "--no-install-recommends",
            "install",
            *wanted,
        )
        found = re.findall(r"^Inst ([^ :]+)", text, re.M)
        return list(self.resolve(found).values())

    def fetch(self, packages: Collection[Package]) -> dict[str, Path]:
        """Download what is not there yet; every file is checked against the index's SHA-256."""
        files = {package.name: self._debs / f"{package.sha256}.deb" for package in packages}
        absent = [
            package
            for package in packages
            if not files[package.name].exists() or _sha256(files[package.name]) != package.sha256
        ]
        if absent:
            self._download(absent)
        return files

    def _download(self, packages: list[Package]) -> None:
        with tempfile.TemporaryDirectory(prefix="incoming-", dir=self._debs) as name:
            wanted = [f"{package.name}={package.version}" for package in packages]
            run("apt-get", *self._options, "download", *wanted, cwd=Path(name), deadline=1800)
            downloaded = {_sha256(file): file for file in Path(name).glob("*.deb")}
            for package in packages:
                if package.sha256 not in downloaded:
                    raise BuildError(
                        f"{package.name} {package.version} differs from the archive's index; try again"
                    )
                downloaded[package.sha256].rename(self._debs / f"{package.sha256}.deb")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
