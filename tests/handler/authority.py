"""A certificate authority for tests of the node server."""

from __future__ import annotations

import base64
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from qvirt_crds.names import HANDLER_SERVER_CN, HANDLER_SERVER_NAME
from qvirt_handler.node_server.credentials import Credentials


class Authority:
    """Signs for an hour."""

    def __init__(self, name: str = "test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        builder = _certificate(self._name, self._name, self._key)
        self._certificate = builder.add_extension(constraints, critical=True).sign(
            self._key, hashes.SHA256()
        )

    @property
    def bundle(self) -> str:
        """Its certificate."""
        return _pem(self._certificate).decode()

    def issue(self, common_name: str, *, server: bool = False) -> tuple[bytes, bytes]:
        """A certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = _certificate(_name(common_name), self._name, key)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if server:
            names = x509.SubjectAlternativeName([x509.DNSName(HANDLER_SERVER_NAME)])
            builder = builder.add_extension(names, critical=False)
        return _pem(builder.sign(self._key, hashes.SHA256())), key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def handler(self) -> Credentials:
        """Those of virt-handler."""
        certificate, key = self.issue(HANDLER_SERVER_CN, server=True)
        return Credentials(certificate=certificate, key=key, authorities=self.bundle)

    def client(self, folder: Path, common_name: str | None) -> ssl.SSLContext:
        """A client that trusts this authority, and shows a certificate of it, or none."""
        context = ssl.create_default_context(cadata=self.bundle)
        if common_name is not None:
            certificate, key = self.issue(common_name)
            path = folder / "client.pem"
            path.write_bytes(certificate + key)
            context.load_cert_chain(path)
        return context


def objects(given: Credentials) -> tuple[dict[str, object], dict[str, object]]:
    """Contents of Secret and ConfigMap."""
    secret = {
        "tls.crt": base64.b64encode(given.certificate).decode(),
        "tls.key": base64.b64encode(given.key).decode(),
    }
    return {"data": secret}, {"data": {"ca-bundle": given.authorities}}


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
    )
