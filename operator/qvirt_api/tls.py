"""Both sides of TLS. The server's: a certificate that changes under a running server, and client certificates when asked for.

The context that listens never changes; each handshake is moved to the newest one. Certificates and keys come as text
and go through memory, as the file system is read-only: ``ssl`` takes files only.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from qvirt_api.authority import Identity, Pair, issue, make_authority
from qvirt_api.errors import NoCertificate


class ServerTls:
    """Starts with a certificate that nobody trusts, so that probes get an answer before there is a real one."""

    def __init__(self) -> None:
        self._pair = _placeholder()
        self._client_authorities = ""
        self._current = self._build()
        #: What a server listens with.
        self.context = self._build()
        self.context.sni_callback = self._move

    def serve(self, pair: Pair) -> bool:
        """Use this certificate from the next handshake on; whether that is a change."""
        if pair == self._pair:
            return False
        self._pair = pair
        self._current = self._build()
        return True

    def trust_clients(self, authorities: str) -> None:
        """Ask clients for a certificate, and refuse those whose signer is not among these (PEM). None is fine, too."""
        if authorities == self._client_authorities:
            return
        self._client_authorities = authorities
        self._current = self._build()
        # Whether a client is asked at all is decided before the handshake is moved.
        self.context.verify_mode = self._current.verify_mode

    def _build(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        with _file(self._pair.certificate + self._pair.key) as path:
            context.load_cert_chain(path)
        if self._client_authorities:
            context.load_verify_locations(cadata=self._client_authorities)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def _move(
        self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext
    ) -> None:
        connection.context = self._current


class ClientTls:
    """For connections to virt-handler: our certificate, and whom to trust; both change."""

    def __init__(self) -> None:
        self._known: tuple[Pair | None, str] = (None, "")
        self._context: ssl.SSLContext | None = None

    def update(self, pair: Pair | None, authorities: str) -> None:
        """Use these from the next connection on."""
        if (pair, authorities) == self._known:
            return
        self._known = (pair, authorities)
        self._context = None
        if pair is None or not authorities:
            return
        context = ssl.create_default_context(cadata=authorities)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        with _file(pair.certificate + pair.key) as path:
            context.load_cert_chain(path)
        self._context = context

    def context(self) -> ssl.SSLContext:
        """The current one.

        :raise NoCertificate: there is no certificate yet.
        """
        if self._context is None:
            raise NoCertificate("virt-api has no certificate for virt-handler yet; try again")
        return self._context


@contextmanager
def _file(text: str) -> Iterator[str]:
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _placeholder() -> Pair:
    now, day = datetime.now(UTC), timedelta(days=1)
    identity = Identity(common_name="not ready", usage="server")
    return issue(make_authority("not ready", now, day), identity, now, day)
