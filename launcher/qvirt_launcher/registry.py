"""Container images from a registry, by skopeo: no daemon, no runtime, no root."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from qvirt_launcher.errors import ImageError

Policy = Literal["Always", "IfNotPresent", "Never"]

_REFERENCE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*")
_FATAL: Final = re.compile(r'level=fatal msg="(.*)"')
#: Of one pull, and of one look at a manifest.
_PULL_DEADLINE: Final = 3600
_LOOK_DEADLINE: Final = 60
_PLATFORM: Final = ("--override-os", "linux", "--override-arch", "amd64")


class Registry(msgspec.Struct, frozen=True):
    """How to reach registries: hosts without TLS, and a docker-config file with credentials."""

    insecure: tuple[str, ...] = ()
    authfile: Path | None = None

    def digest(self, reference: str) -> str:
        """What the reference means now: the digest of its manifest or index.

        :raise ImageError: no skopeo, no such image, registry out of reach.
        """
        command = ["inspect", "--raw", *self._options(reference, ""), _url(reference)]
        raw = _skopeo(command, reference, _LOOK_DEADLINE)
        return f"sha256:{hashlib.sha256(raw).hexdigest()}"

    def pull(self, reference: str, layout: Path) -> None:
        """Copy the image for linux/amd64 into a fresh OCI layout.

        :raise ImageError: as `digest`.
        """
        options = self._options(reference, "src-")
        _skopeo(
            [*_PLATFORM, "copy", *options, _url(reference), f"oci:{layout}:image"],
            reference,
            _PULL_DEADLINE,
            progress=sys.stderr.isatty(),
        )

    def _options(self, reference: str, prefix: str) -> list[str]:
        options: list[str] = []
        if registry_host(reference) in self.insecure:
            options.append(f"--{prefix}tls-verify=false")
        if self.authfile is not None:
            options += [f"--{prefix}authfile" if prefix else "--authfile", str(self.authfile)]
        return options


def default_policy(reference: str) -> Policy:
    """Kubernetes' rule: Always for ``:latest`` or no tag at all, else IfNotPresent."""
    if "@" in reference:
        return "IfNotPresent"
    tag = reference.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in {"", "latest"} else "IfNotPresent"


def registry_host(reference: str) -> str:
    """``host[:port]`` of a reference; names without one are Docker Hub's."""
    first, slash, _ = reference.partition("/")
    return (
        first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"
    )


def _url(reference: str) -> str:
    if not _REFERENCE.fullmatch(reference):
        raise ImageError(f"image {reference!r}: is not an image name; write [HOST/]NAME[:TAG]")
    name, at, digest = reference.partition("@")
    if at:
        # skopeo takes a tag or a digest, not both; the digest is what counts.
        folder, slash, last = name.rpartition("/")
        name = f"{folder}{slash}{last.partition(':')[0]}"
    return f"docker://{name}{at}{digest}"


def _skopeo(
    arguments: Sequence[str], reference: str, deadline: int, progress: bool = False
) -> bytes:
    remedy = f"give it with --image {reference}=SOURCE (a disk file, OCI archive or layout)"
    if shutil.which("skopeo") is None:
        raise ImageError(
            f"image {reference}: pulling needs skopeo, which is not installed; apt install skopeo, or {remedy}"
        )
    try:
        done = subprocess.run(
            ["skopeo", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr if progress else subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=deadline,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise ImageError(
            f"image {reference}: no answer in {deadline} s; try again, or {remedy}"
        ) from error
    except subprocess.CalledProcessError as error:
        cause = _cause(error.stderr.decode(errors="replace"))
        raise ImageError(f"image {reference}: can't be pulled: {cause}; {remedy}") from error
    return bytes(done.stdout or b"")


def _cause(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.strip()]
    last = lines[-1] if lines else "skopeo said nothing"
    fatal = _FATAL.search(last)
    return fatal.group(1).replace('\\"', '"') if fatal else last
