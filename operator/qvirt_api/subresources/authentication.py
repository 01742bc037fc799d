"""Who asks: the API server says it in headers, and proves with its certificate that it may.

The names of the headers, the authority and the allowed names are in the ConfigMap that every API server publishes
(https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import unquote

import msgspec
from multidict import CIMultiDict, CIMultiDictProxy

from qvirt_crds.model import Model
from qvirt_kube.client import Kube, Object
from qvirt_kube.errors import KubeError

_log = logging.getLogger(__name__)

CONFIG_MAP: Final = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
#: Seconds; API servers change it when their certificates do: every few months.
_REFRESH: Final = 60.0
#: Seconds while nobody is believed: an API server that has just started publishes it a moment later.
_AGAIN: Final = 5.0

#: As `ssl.SSLSocket.getpeercert` gives it: verified, else empty.
Certificate = Mapping[str, Any]
Headers = CIMultiDict[str] | CIMultiDictProxy[str]


class FrontProxy(Model, frozen=True, kw_only=True):
    """Whom to believe about users, and where it is written."""

    #: PEM; empty: the API server has no front proxy, and nobody is believed.
    authority: str = ""
    #: Common names; empty: any that the authority has signed.
    names: tuple[str, ...] = ()
    user_headers: tuple[str, ...] = ()
    group_headers: tuple[str, ...] = ()
    extra_prefixes: tuple[str, ...] = ()


class User(Model, frozen=True, kw_only=True):
    """As a SubjectAccessReview wants it."""

    name: str
    groups: tuple[str, ...] = ()
    extra: dict[str, tuple[str, ...]] = {}


def decode(config_map: Object) -> FrontProxy:
    """What the ConfigMap says; lists that make no sense are empty."""
    data: Mapping[str, str] = config_map.get("data") or {}

    def words(key: str) -> tuple[str, ...]:
        try:
            return msgspec.json.decode(data.get(f"requestheader-{key}", "[]"), type=tuple[str, ...])
        except msgspec.DecodeError:
            return ()

    return FrontProxy(
        authority=data.get("requestheader-client-ca-file", ""),
        names=words("allowed-names"),
        user_headers=words("username-headers"),
        group_headers=words("group-headers"),
        extra_prefixes=words("extra-headers-prefix"),
    )


def user_of(front: FrontProxy, certificate: Certificate | None, headers: Headers) -> User | None:
    """The user of a request; None: nobody who is believed says who it is."""
    if not front.authority or not certificate:
        return None
    if front.names and not set(front.names) & set(_common_names(certificate)):
        return None
    name = next((headers[key] for key in front.user_headers if headers.get(key)), "")
    if not name:
        return None
    groups = [group for key in front.group_headers for group in headers.getall(key, [])]
    return User(name=name, groups=tuple(groups), extra=_extra(front, headers))


def _common_names(certificate: Certificate) -> list[str]:
    return [
        value
        for part in certificate.get("subject", ())
        for key, value in part
        if key == "commonName"
    ]


def _extra(front: FrontProxy, headers: Headers) -> dict[str, tuple[str, ...]]:
    extra: dict[str, tuple[str, ...]] = {}
    for prefix in front.extra_prefixes:
        for header in dict.fromkeys(key.lower() for key in headers):
            if header.startswith(prefix.lower()):
                key = unquote(header[len(prefix) :])
                extra[key] = (*extra.get(key, ()), *headers.getall(header))
    return extra


class FrontProxySource:
    """The current `FrontProxy`. Before the first `refresh` nobody is believed.

    :param changed: called with each new authority (PEM). The server must ask clients for a certificate and accept only
        those that this authority has signed, or none: then who has shown one is the front proxy.
    """

    def __init__(self, kube: Kube, changed: Callable[[str], None]) -> None:
        self._kube = kube
        self._changed = changed
        self.current = FrontProxy()

    async def refresh(self) -> None:
        """Read it.

        :raise KubeError: it can't be read now.
        """
        found = decode(await self._kube.get(CONFIG_MAP))
        if found != self.current:
            self._changed(found.authority)
            self.current = found
            _log.info("front proxy: allowed names %s", ", ".join(found.names) or "any")

    @property
    def known(self) -> bool:
        """Whether anybody can be believed."""
        return bool(self.current.authority)

    async def look(self) -> None:
        """Refresh; what is known stays in force while it can't be read."""
        try:
            await self.refresh()
        except (KubeError, ssl.SSLError) as error:
            _log.warning("front proxy: %s; asking again soon", error)

    async def follow(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await asyncio.sleep(_REFRESH if self.known else _AGAIN)
