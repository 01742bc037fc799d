"""The pause image: one static program, compiled here and imported into containerd. No registry is asked."""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path
from typing import Final

from qvirt_cluster.commands import run
from qvirt_cluster.components import Site
from qvirt_cluster.layout import PAUSE_IMAGE
from qvirt_cluster.oci import oci_archive
from qvirt_cluster.progress import say

_SOURCE: Final = Path(__file__).with_name("pause.c")


def ensure_pause_image(site: Site) -> None:
    """Compile and import it, unless containerd has it.

    :raise CommandFailed: gcc or ctr failed.
    """
    socket = f"--address={site.layout.containerd_socket}"
    ctr = (site.binaries.path("ctr"), socket, "--namespace=k8s.io")
    if PAUSE_IMAGE in run(*ctr, "images", "list", "--quiet").split():
        return
    say("making the pause image")
    with tempfile.TemporaryDirectory() as room:
        program, image = Path(room) / "pause", Path(room) / "pause.tar"
        run("gcc", "-Os", "-static", "-s", "-o", program, _SOURCE)
        files = {"pause": program.read_bytes()}
        image.write_bytes(oci_archive(files, ("/pause",), PAUSE_IMAGE, platform.machine()))
        run(*ctr, "images", "import", image)
