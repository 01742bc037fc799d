"""Where the API server is and how to show who we are: as a pod, by its service account."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from qvirt_kube.address import in_cluster_server
from qvirt_kube.errors import NoAccess

#: Where the kubelet puts a pod's own (Kubernetes' convention, the same in every release).
SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
#: Seconds that a token is used before its file is read again: the kubelet replaces it long before its end.
_FRESH: Final = 60.0


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """All that a connection needs."""

    #: URL without a path, or with one that stands before every other.
    server: str
    tls: ssl.SSLContext
    #: The Authorization header of a request that is made now; None: the certificate says who we are.
    authorization: Callable[[], Awaitable[str | None]]
    proxy: str | None = None
    #: Name that the server's certificate must have; None: that of the URL.
    server_name: str | None = None


def in_pod(folder: Path | None = None) -> Access | None:
    """Of the pod that we are; None: we are in none.

    :param folder: the service account's; None: where the kubelet puts it.
    :raise NoAccess: there is a service account, and it can't be used.
    """
    folder = folder or SERVICE_ACCOUNT
    server = in_cluster_server("")
    token, authority = folder / "token", folder / "ca.crt"
    if not server or not token.is_file():
        return None
    try:
        # Given a file it loads no other authorities.
        tls = ssl.create_default_context(cafile=authority)
    except OSError as error:
        raise NoAccess(f"{authority}: not usable as the API server's authority: {error}") from error
    return Access(server=server, tls=tls, authorization=_Token(token).header)


class _Token:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._read_at = float("-inf")
        self._header = ""

    async def header(self) -> str:
        """:raise OSError: the kubelet has taken it away."""
        now = time.monotonic()
        if now - self._read_at > _FRESH:
            # A few hundred bytes in memory: no thread is worth it.
            with open(os.fspath(self._file), encoding="ascii") as file:  # noqa: ASYNC230
                self._header = f"Bearer {file.read().strip()}"
            self._read_at = now
        return self._header
