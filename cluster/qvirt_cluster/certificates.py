"""Keys and certificates, by openssl. Existing ones stay while they are valid for the same names."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qvirt_cluster.commands import run
from qvirt_cluster.errors import CommandFailed
from qvirt_cluster.host import Host
from qvirt_cluster.layout import API_SERVICE_IP, Layout

_DAYS: Final = "3650"
#: Renewed by `up` when they end within this many seconds (30 days).
_MARGIN: Final = 30 * 86400
_NEW_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Leaf:
    """One certificate to be.

    :param name: of its files.
    :param authority: name of the authority that signs it.
    :param common_name: the user name, in Kubernetes' reading.
    :param organisation: the group, in Kubernetes' reading; empty: none.
    :param names: as openssl writes them, e.g. ``IP:127.0.0.1`` or ``DNS:localhost``; servers have some.
    """

    name: str
    common_name: str
    organisation: str = ""
    names: tuple[str, ...] = ()
    authority: str = "ca"

    @property
    def subject(self) -> str:
        group = f"/O={self.organisation}" if self.organisation else ""
        return f"{group}/CN={self.common_name}"

    @property
    def extensions(self) -> str:
        """The section of openssl's file; also what an existing certificate is compared by."""
        names = f"subjectAltName={','.join(self.names)}\n" if self.names else ""
        usage = "clientAuth,serverAuth" if self.names else "clientAuth"
        return (
            f"# {self.subject}\nbasicConstraints=critical,CA:FALSE\n"
            f"keyUsage=critical,digitalSignature\nextendedKeyUsage={usage}\n{names}"
        )


def leaves(host: Host) -> tuple[Leaf, ...]:
    """All certificates of a cluster on this machine. Pure."""
    loopback = ("IP:127.0.0.1", "DNS:localhost")
    node = (*loopback, f"IP:{host.address}", f"DNS:{host.node}")
    service = "kubernetes.default.svc"
    service_names = tuple(
        f"DNS:{name}"
        for name in ("kubernetes", "kubernetes.default", service, f"{service}.cluster.local")
    )
    return (
        Leaf("etcd", "etcd", names=loopback),
        Leaf("etcd-client", "kube-apiserver"),
        Leaf("apiserver", "kube-apiserver", names=(*node, f"IP:{API_SERVICE_IP}", *service_names)),
        Leaf("apiserver-kubelet-client", "kube-apiserver", "system:masters"),
        Leaf("front-proxy-client", "front-proxy-client", authority="front-proxy-ca"),
        Leaf("kubelet", f"system:node:{host.node}", "system:nodes", names=node),
        Leaf("controller-manager", "system:kube-controller-manager", names=loopback),
        Leaf("scheduler", "system:kube-scheduler", names=loopback),
        Leaf("kube-proxy", "system:kube-proxy"),
        Leaf("admin", "qvirt-cluster-admin", "system:masters"),
    )


def make_certificates(layout: Layout, host: Host) -> None:
    """Make what is missing, ends soon, or was made for other names or addresses.

    :raise CommandFailed: openssl failed.
    """
    layout.pki.mkdir(mode=0o700, exist_ok=True)
    renewed = {name for name in ("ca", "front-proxy-ca") if _make_authority(layout, name)}
    _make_service_account_key(layout)
    for leaf in leaves(host):
        if leaf.authority in renewed or not _is_current(layout, leaf):
            _make_leaf(layout, leaf)


def _make_authority(layout: Layout, name: str) -> bool:
    certificate, key = layout.certificate(name), layout.key(name)
    if key.exists() and _is_valid(certificate):
        return False
    with _private_files(certificate, key) as (new_certificate, new_key):
        run(
            "openssl", "req", "-x509", *_NEW_KEY, "-keyout", new_key, "-out", new_certificate,
            "-days", _DAYS, "-subj", f"/CN=qvirt-cluster-{name}",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
        )  # fmt: skip
    return True


def _make_service_account_key(layout: Layout) -> None:
    key, public = layout.key("service-account"), layout.pki / "service-account.pub"
    if not public.exists():
        with _private_files(key, public) as (new_key, new_public):
            run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", new_key)
            run("openssl", "ec", "-in", new_key, "-pubout", "-out", new_public)


def _make_leaf(layout: Layout, leaf: Leaf) -> None:
    wanted = layout.pki / f"{leaf.name}.ext"
    wanted.unlink(missing_ok=True)
    with _private_files(layout.certificate(leaf.name), layout.key(leaf.name)) as (new, key):
        request, extensions = new.with_suffix(".csr"), new.with_suffix(".ext")
        extensions.write_text(leaf.extensions)
        run(
            "openssl",
            "req",
            "-new",
            *_NEW_KEY,
            "-keyout",
            key,
            "-out",
            request,
            "-subj",
            leaf.subject,
        )
        run(
            "openssl", "x509", "-req", "-in", request, "-out", new, "-days", _DAYS,
            "-CA", layout.certificate(leaf.authority), "-CAkey", layout.key(leaf.authority),
            "-set_serial", f"0x{os.urandom(8).hex()}", "-extfile", extensions,
        )  # fmt: skip
    # Written last: an interrupted run makes the certificate again.
    wanted.write_text(leaf.extensions)


def _is_current(layout: Layout, leaf: Leaf) -> bool:
    wanted = layout.pki / f"{leaf.name}.ext"
    same = wanted.exists() and wanted.read_text() == leaf.extensions
    return same and layout.key(leaf.name).exists() and _is_valid(layout.certificate(leaf.name))


def _is_valid(certificate: Path) -> bool:
    try:
        run("openssl", "x509", "-in", certificate, "-noout", "-checkend", str(_MARGIN))
    except CommandFailed:
        return False
    return True


@contextmanager
def _private_files(*places: Path) -> Iterator[tuple[Path, ...]]:
    """Files to write in a private folder; they move to their places together when all went well."""
    folder = places[0].parent
    with tempfile.TemporaryDirectory(dir=folder) as room:
        new = tuple(Path(room) / place.name for place in places)
        yield new
        for source, place in zip(new, places, strict=True):
            source.chmod(0o600)
            source.rename(place)
