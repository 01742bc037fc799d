"""Our certificate and the authority that our client is known by: read from the API server, again and again, as both are replaced while we serve."""

from __future__ import annotations

import base64
import binascii
import os
import ssl
from typing import Final

from msgspec import Struct

from qvirt_crds.meta import JsonObject
from qvirt_crds.names import CA_BUNDLE_KEY, CA_CONFIG_MAP, HANDLER_SECRET, INSTALL_NAMESPACE
from qvirt_handler.errors import HandlerError
from qvirt_kube.client import Kube

_PLACE: Final = f"/api/v1/namespaces/{INSTALL_NAMESPACE}"


class CredentialsUnusable(HandlerError):
    """What lies in the Secret or the ConfigMap is not what TLS can be made of."""

    reason = "CredentialsUnusable"


class Credentials(Struct, frozen=True, kw_only=True):
    """All in PEM. The bundle has the authority of the present, and while it is replaced also the one before or after."""

    certificate: bytes
    key: bytes
    authorities: str


async def fetch(kube: Kube) -> Credentials:
    """As they are now.

    :raises KubeError: they are not there (yet), or can't be read.
    :raises CredentialsUnusable: a part is missing.
    """
    secret = await kube.get(f"{_PLACE}/secrets/{HANDLER_SECRET}")
    bundle = await kube.get(f"{_PLACE}/configmaps/{CA_CONFIG_MAP}")
    authorities = (bundle.get("data") or {}).get(CA_BUNDLE_KEY, "")
    if not authorities:
        raise CredentialsUnusable(f"ConfigMap {CA_CONFIG_MAP} has no {CA_BUNDLE_KEY}")
    return Credentials(
        certificate=_part(secret, "tls.crt"),
        key=_part(secret, "tls.key"),
        authorities=authorities,
    )


def _part(secret: JsonObject, key: str) -> bytes:
    try:
        found = base64.b64decode((secret.get("data") or {}).get(key, ""), validate=True)
    except binascii.Error:
        found = b""
    if not found:
        raise CredentialsUnusable(f"Secret {HANDLER_SECRET} has no {key}")
    return found


def server_context(credentials: Credentials) -> ssl.SSLContext:
    """TLS for a server that knows its clients by certificates.

    :raises CredentialsUnusable: OpenSSL makes nothing of it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    # The key is in no file: it is handed to OpenSSL in memory that has only a number.
    handle = os.memfd_create("virt-handler", os.MFD_CLOEXEC)
    try:
        with open(handle, "wb", closefd=False) as file:
            file.write(credentials.certificate.rstrip() + b"\n" + credentials.key)
        context.load_cert_chain(f"/proc/self/fd/{handle}")
        context.load_verify_locations(cadata=credentials.authorities)
    except (ssl.SSLError, ValueError) as error:
        raise CredentialsUnusable(
            f"Secret {HANDLER_SECRET} or ConfigMap {CA_CONFIG_MAP} can't be used: {error}"
        ) from error
    finally:
        os.close(handle)
    return context


def common_names(certificate: object) -> list[str]:
    """Of a certificate's subject, as `ssl.SSLSocket.getpeercert` has it."""
    subject = certificate.get("subject", ()) if isinstance(certificate, dict) else ()
    return [value for part in subject for key, value in part if key == "commonName"]
