"""The door to ``cryptography``: an authority of our own, and what it signs.

Keys are ECDSA P-256: every TLS library has it, and making one takes no time.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from qvirt_api.errors import BadCertificate
from qvirt_crds.model import Model

Usage = Literal["server", "client"]

#: Clocks of nodes differ: what was made just now is valid on the others, too.
BACKDATED: Final = timedelta(minutes=10)

_USAGES: Final = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
}


class Identity(Model, frozen=True, kw_only=True):
    """Whom a certificate names, and what for."""

    common_name: str
    #: What clients check a server's certificate against.
    dns_names: tuple[str, ...] = ()
    usage: Usage


class Facts(Model, frozen=True, kw_only=True):
    """What a certificate says, as far as decisions need it."""

    #: Of the subject's key, as hex; names an authority.
    key: str
    #: Of the signer's key.
    signer: str
    made: datetime
    ends: datetime
    common_name: str
    dns_names: tuple[str, ...] = ()
    usages: tuple[Usage, ...] = ()


class Pair(Model, frozen=True, kw_only=True):
    """PEM texts that belong together."""

    certificate: str
    key: str


def make_authority(name: str, now: datetime, life: timedelta) -> Pair:
    """An authority that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    certificate = (
        _builder(subject, subject, key.public_key(), key.public_key(), now, now + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _pair(certificate, key)


def issue(authority: Pair, identity: Identity, now: datetime, life: timedelta) -> Pair:
    """A certificate with a fresh key; it ends with its authority at the latest.

    :raise BadCertificate: the authority can't be read.
    """
    above, above_key = _load(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    ends = min(now + life, above.not_valid_after_utc)
    builder = (
        _builder(
            _name(identity.common_name),
            above.subject,
            key.public_key(),
            above_key.public_key(),
            now,
            ends,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_USAGES[identity.usage]]), critical=False)
    )
    if identity.dns_names:
        names = [x509.DNSName(name) for name in identity.dns_names]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _pair(builder.sign(above_key, hashes.SHA256()), key)


def read(pair: Pair) -> Facts:
    """What a certificate says whose key we have.

    :raise BadCertificate: not PEM, or the key is another's.
    """
    certificate, _ = _load(pair)
    return _facts(certificate)


def read_certificate(pem: str) -> Facts:
    """What a certificate without its key says.

    :raise BadCertificate: not PEM.
    """
    return _facts(_certificate(pem))


def signed_by(pem: str, authorities: Iterable[str]) -> bool:
    """Whether one of the authorities has signed the certificate; for tests and for whoever looks after a bundle.

    :raise BadCertificate: one of them is not PEM.
    """
    certificate = _certificate(pem)
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(_certificate(authority))
        except (InvalidSignature, ValueError):
            continue
        return True
    return False


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePublicKey,
    now: datetime,
    ends: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Pair(certificate=certificate.public_bytes(pem).decode(), key=secret.decode())


def _certificate(pem: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except ValueError as error:
        raise BadCertificate(f"not a PEM certificate: {error}") from error


def _load(pair: Pair) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate = _certificate(pair.certificate)
    try:
        key = serialization.load_pem_private_key(pair.key.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise BadCertificate(f"not a PEM key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadCertificate("not an ECDSA key")
    if certificate.public_key() != key.public_key():
        raise BadCertificate("the key is not the certificate's")
    return certificate, key


def _facts(certificate: x509.Certificate) -> Facts:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Facts(
        key=_key_of(certificate),
        signer=_signer_of(certificate),
        made=certificate.not_valid_before_utc + BACKDATED,
        ends=certificate.not_valid_after_utc,
        common_name=str(names[0].value) if names else "",
        dns_names=_dns_names(certificate),
        usages=_usages(certificate),
    )


def _key_of(certificate: x509.Certificate) -> str:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        return ""
    return found.value.digest.hex()


def _signer_of(certificate: x509.Certificate) -> str:
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        return ""
    return (found.value.key_identifier or b"").hex()


def _dns_names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(found.value.get_values_for_type(x509.DNSName))


def _usages(certificate: x509.Certificate) -> tuple[Usage, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(usage for usage in ("server", "client") if _USAGES[usage] in found.value)
