"""The flags of virt-api."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from qvirt_api.certificates import Lives
from qvirt_api.subresources.page_files import NOVNC
from qvirt_crds.model import Model
from qvirt_crds.names import INSTALL_NAMESPACE


class Arguments(Model, frozen=True, kw_only=True):
    """What the command line says."""

    namespace: str
    kubeconfig: str | None
    #: None: all addresses.
    host: str | None
    port: int
    lives: Lives
    guestfs_image: str
    novnc: Path
    verbose: bool


def parse(argv: Sequence[str]) -> Arguments:
    """:raise SystemExit: wrong flags; argparse has said why."""
    parser = argparse.ArgumentParser(
        prog="virt-api",
        description="Checks, completes and converts virtual machines for the API server, and keeps qvirt's certificates.",
    )
    add = parser.add_argument
    default = Lives()
    add(
        "--namespace",
        default=os.environ.get("POD_NAMESPACE", INSTALL_NAMESPACE),
        help="of the certificates' Secrets (default: POD_NAMESPACE, else kubevirt)",
    )
    add("--kubeconfig", help="default: the pod's service account, else KUBECONFIG")
    add("--host", help="address to listen on (default: all)")
    add("--port", type=int, default=8443, help="default: 8443")
    add(
        "--authority-hours",
        type=float,
        default=default.authority / timedelta(hours=1),
        metavar="N",
        help="life of a certificate authority (default: %(default)g)",
    )
    add(
        "--certificate-hours",
        type=float,
        default=default.certificate / timedelta(hours=1),
        metavar="N",
        help="life of a certificate (default: %(default)g)",
    )
    add(
        "--guestfs-image",
        default="",
        metavar="IMAGE",
        help="what `virtctl guestfs` runs (default: none, and it is told so)",
    )
    add(
        "--novnc",
        type=Path,
        default=NOVNC,
        metavar="DIR",
        help="noVNC's core and vendor, for the page that shows screens (default: %(default)s)",
    )
    add("--verbose", action="store_true", help="log every step")
    found = parser.parse_args(argv)
    if not 0 < found.certificate_hours * 5 <= found.authority_hours:
        parser.error("an authority must live at least five times as long as a certificate")
    return Arguments(
        namespace=found.namespace,
        kubeconfig=found.kubeconfig,
        host=found.host,
        port=found.port,
        lives=Lives(
            authority=timedelta(hours=found.authority_hours),
            certificate=timedelta(hours=found.certificate_hours),
        ),
        guestfs_image=found.guestfs_image,
        novnc=found.novnc,
        verbose=found.verbose,
    )
