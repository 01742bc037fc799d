"""A certificate that changes under a server that runs."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from tests.api.fake_kube import FakeKube

from qvirt_api.authority import Identity, Pair, issue, make_authority, read_certificate
from qvirt_api.server import application, serving
from qvirt_api.state import State
from qvirt_api.tls import ServerTls

NAME = "virt-api.kubevirt.svc"
DAY = timedelta(days=1)


def authority() -> Pair:
    return make_authority("a", datetime.now(UTC), DAY)


def certificate(signer: Pair, usage: str = "server") -> Pair:
    identity = Identity(common_name=NAME, dns_names=(NAME,), usage=usage)  # type: ignore[arg-type]
    return issue(signer, identity, datetime.now(UTC), DAY)


class Server:
    def __init__(self, tls: ServerTls, state: State, port: int) -> None:
        self.tls = tls
        self.state = state
        self.port = port

    async def get(self, path: str, context: ssl.SSLContext) -> tuple[bytes, Pair]:
        """The first line of the answer, and what the server showed."""
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.port, ssl=context, server_hostname=NAME
            )
            try:
                writer.write(
                    f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
                )
                line = await reader.readline()
                shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                return line, Pair(certificate=ssl.DER_cert_to_PEM_cert(shown), key="")
            finally:
                writer.close()
                await asyncio.gather(writer.wait_closed(), return_exceptions=True)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    tls, state = ServerTls(), State()
    async with serving(application(FakeKube().as_kube(), state), tls, "127.0.0.1", 0) as port:
        yield Server(tls, state, port)


def trusting(signer: Pair) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=signer.certificate)


async def test_probes_are_answered_before_there_is_a_certificate(server: Server) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    assert b" 200 " in (await server.get("/healthz", context))[0]
    assert b" 503 " in (await server.get("/readyz", context))[0]
    server.state.ready = True
    assert b" 200 " in (await server.get("/readyz", context))[0]
    with pytest.raises(ssl.SSLCertVerificationError):
        await server.get("/healthz", ssl.create_default_context())


async def test_a_new_certificate_is_shown_without_a_restart(server: Server) -> None:
    first, second = authority(), authority()
    served = certificate(first)
    assert server.tls.serve(served)
    assert not server.tls.serve(served)
    _, shown = await server.get("/healthz", trusting(first))
    assert read_certificate(shown.certificate) == read_certificate(served.certificate)

    server.tls.serve(certificate(second))
    await server.get("/healthz", trusting(second))
    with pytest.raises(ssl.SSLCertVerificationError):
        await server.get("/healthz", trusting(first))


async def test_a_connection_outlives_the_certificate_that_it_began_with(server: Server) -> None:
    first = authority()
    server.tls.serve(certificate(first))
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=trusting(first), server_hostname=NAME
        )
        server.tls.serve(certificate(authority()))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"200" in await reader.read()
        writer.close()
        await writer.wait_closed()


async def test_clients_with_a_certificate(server: Server) -> None:
    own, front, stranger = authority(), authority(), authority()
    server.tls.serve(certificate(own))
    server.tls.trust_clients(front.certificate)
    assert b" 200 " in (await server.get("/healthz", trusting(own)))[0], "none is fine"

    def showing(signer: Pair) -> ssl.SSLContext:
        context = trusting(own)
        # In TLS 1.3 a client learns of a refusal late; the first read fails, with what depends on timing.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        pair = certificate(signer, "client")
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(pair.certificate + pair.key)
            file.flush()
            context.load_cert_chain(file.name)
        return context

    assert b" 200 " in (await server.get("/healthz", showing(front)))[0]
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await server.get("/healthz", showing(stranger))
