"""Debian's source package of Kubernetes: found and unpacked through apt sources of our own.

The machine's own apt files are read, never changed: its entries are copied as `deb-src` ones into
a private folder, with a package index and a download folder of its own. Works without root.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from qvirt_cluster.commands import run
from qvirt_cluster.errors import BuildFailed, CommandFailed
from qvirt_cluster.progress import say

PACKAGE: Final = "kubernetes"
APT: Final = Path("/etc/apt")


def source_entries_deb822(text: str) -> str:
    """The stanzas of a ``*.sources`` file as source entries; disabled ones are dropped. Pure."""
    stanzas = re.split(r"\n[ \t]*\n", text)
    kept = [
        re.sub(r"(?mi)^Types:.*$", "Types: deb-src", stanza.strip("\n"))
        for stanza in stanzas
        if re.search(r"(?mi)^Types:", stanza)
        and not re.search(r"(?mi)^Enabled:\s*(no|false|0|off)\s*$", stanza)
    ]
    return "\n\n".join(kept) + "\n" if kept else ""


def source_entries_list(text: str) -> str:
    """The lines of a ``*.list`` file as source entries, each once. Pure."""
    lines = [
        re.sub(r"^\s*deb(-src)?(?=\s)", "deb-src", line)
        for line in text.splitlines()
        if re.match(r"\s*deb(-src)?\s", line)
    ]
    return "".join(f"{line}\n" for line in dict.fromkeys(lines))


class PrivateApt:
    """apt with our own lists.

    :param folder: kept between runs, so that an index is downloaded once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts = folder / "parts"
        for part in ("parts", "lists/partial", "archives/partial"):
            (folder / part).mkdir(parents=True, exist_ok=True)

    def options(self) -> tuple[str, ...]:
        """Command line options that turn apt away from the machine's files."""
        return (
            "-oDir::Etc::sourcelist=/dev/null",
            f"-oDir::Etc::sourceparts={self._parts}",
            f"-oDir::State::lists={self._folder / 'lists'}",
            f"-oDir::Cache={self._folder}",
            "-oAPT::Sandbox::User=",
        )

    def update(self) -> None:
        """Copy the machine's entries and download the source indexes.

        :raise BuildFailed: the machine has no apt entries.
        """
        self._copy_entries()
        try:
            run("apt-get", *self.options(), "--quiet", "update", deadline=300)
        except CommandFailed as error:
            # A third party's repository often has no source index; what matters is decided by `find`.
            say(f"apt-get update was not wholly successful: {error}")

    def find(self) -> tuple[str, str]:
        """Name of the source package's .dsc file and its version.

        :raise BuildFailed: no repository of this machine has it.
        """
        try:
            listing = run(
                "apt-get", *self.options(), "source", "--print-uris", PACKAGE, deadline=60
            )
        except CommandFailed as error:
            raise BuildFailed(
                f"the machine's apt repositories have no source package {PACKAGE!r} ({error}); "
                f"set K8S_BIN_DIR to a folder with Kubernetes' binaries"
            ) from error
        # A line is 'address' name size checksum; in the address + is written %2b.
        found = re.search(rf"' ({PACKAGE}_(\S+)\.dsc) ", listing)
        if found is None:
            raise BuildFailed(f"apt-get names no .dsc file of {PACKAGE!r}: {listing.strip()!r}")
        return found[1], found[2]

    def unpack(self, dsc: str, into: Path) -> None:
        """Download (checked by apt) and unpack with Debian's patches; `into` appears only when complete."""
        downloads = into.parent / "download"
        partial = into.with_suffix(".partial")
        downloads.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        options = ("--quiet", "--download-only", "--only-source")
        run("apt-get", *self.options(), "source", *options, PACKAGE, cwd=downloads, deadline=900)
        # The signature is apt's business and was checked through the index.
        run("dpkg-source", "--no-check", "-x", downloads / dsc, partial, deadline=300)
        partial.rename(into)
        shutil.rmtree(downloads)

    def _copy_entries(self) -> None:
        for old in self._parts.iterdir():
            old.unlink()
        for path in sorted([APT / "sources.list", *(APT / "sources.list.d").glob("*")]):
            if not path.is_file():
                continue
            text = path.read_text(encoding="utf-8", errors="replace")
            match path.suffix:
                case ".sources":
                    entries = source_entries_deb822(text)
                case ".list":
                    entries = source_entries_list(text)
                case _:
                    continue
            if entries:
                (self._parts / path.name).write_text(entries, encoding="utf-8")
        if not any(self._parts.iterdir()):
            raise BuildFailed(
                f"{APT} has no repository to take the source package {PACKAGE!r} from; "
                f"set K8S_BIN_DIR to a folder with Kubernetes' binaries"
            )
