"""Secrets and ConfigMaps <-> certificates (pure): what our authorities and certificates look like when stored."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from qvirt_api.authority import Facts, Pair, make_authority, read, read_certificate
from qvirt_api.certificates import Authorities, Lives, Step, has_ended
from qvirt_api.errors import BadCertificate
from qvirt_crds.meta import JsonObject
from qvirt_crds.model import Model
from qvirt_crds.names import CA_BUNDLE_KEY

CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
_UPCOMING: Final = ("next.crt", "next.key")
_PREVIOUS: Final = "previous.crt"


class Vault(Model, frozen=True, kw_only=True):
    """The authorities, with the keys of those that sign or will."""

    signer: Pair | None = None
    upcoming: Pair | None = None
    #: A certificate alone: its key is forgotten.
    previous: str = ""


def vault_of(secret: JsonObject | None) -> Vault:
    """What can be read of the authorities' Secret; the rest counts as absent."""
    previous = _text(secret, _PREVIOUS)
    return Vault(
        signer=_good(_pair(secret, CERTIFICATE, KEY)),
        upcoming=_good(_pair(secret, *_UPCOMING)),
        previous=previous if _facts_of(previous) else "",
    )


def authorities_of(vault: Vault) -> Authorities:
    """What `certificates.decide` wants to know of them."""
    return Authorities(
        signer=read(vault.signer) if vault.signer else None,
        upcoming=read(vault.upcoming) if vault.upcoming else None,
        previous=_facts_of(vault.previous),
    )


def data_of(vault: Vault) -> JsonObject:
    """``data`` of the authorities' Secret."""
    texts = {CERTIFICATE: "", KEY: ""}
    if vault.signer:
        texts |= {CERTIFICATE: vault.signer.certificate, KEY: vault.signer.key}
    if vault.upcoming:
        texts |= dict(zip(_UPCOMING, (vault.upcoming.certificate, vault.upcoming.key), strict=True))
    if vault.previous:
        texts[_PREVIOUS] = vault.previous
    return {key: encode(text) for key, text in texts.items()}


def after(step: Step, vault: Vault, now: datetime, lives: Lives) -> Vault:
    """The authorities when a step is done; new keys are drawn here."""
    match step:
        case "create":
            return Vault(signer=_make(now, lives))
        case "prepare":
            return replace(vault, upcoming=_make(now, lives))
        case "promote":
            old = vault.signer
            kept = old is not None and not has_ended(read(old), now)
            previous = old.certificate if old is not None and kept else ""
            return Vault(signer=vault.upcoming, previous=previous)
        case "retire":
            return replace(vault, previous="")


def bundle_of(vault: Vault, now: datetime) -> str:
    """All that is to be trusted, as PEM; the same text whoever makes it."""
    signer, upcoming = vault.signer, vault.upcoming
    texts = [pair.certificate for pair in (signer, upcoming) if pair is not None]
    if vault.previous:
        texts.append(vault.previous)
    return "".join(text for text in texts if not has_ended(read_certificate(text), now))


def pair_of(secret: JsonObject | None) -> Pair | None:
    """The certificate and key of a ``kubernetes.io/tls`` Secret, if they can be read."""
    return _good(_pair(secret, CERTIFICATE, KEY))


def certificate_data(pair: Pair) -> JsonObject:
    """``data`` of a ``kubernetes.io/tls`` Secret."""
    return {CERTIFICATE: encode(pair.certificate), KEY: encode(pair.key)}


def config_map_bundle(config_map: JsonObject | None) -> str:
    """The bundle that a ConfigMap holds; empty when there is none."""
    held = ((config_map or {}).get("data") or {}).get(CA_BUNDLE_KEY, "")
    return held if isinstance(held, str) else ""


def encode(text: str) -> str:
    """As ``data`` of Secrets and ``caBundle`` have it."""
    return base64.b64encode(text.encode()).decode()


def _make(now: datetime, lives: Lives) -> Pair:
    # The time is in the name: chains are found by it, and people read it.
    return make_authority(f"kubevirt.io@{int(now.timestamp())}", now, lives.authority)


def _text(secret: JsonObject | None, key: str) -> str:
    try:
        return base64.b64decode(((secret or {}).get("data") or {}).get(key, "")).decode()
    except (binascii.Error, UnicodeDecodeError, TypeError):
        return ""


def _pair(secret: JsonObject | None, certificate: str, key: str) -> Pair:
    return Pair(certificate=_text(secret, certificate), key=_text(secret, key))


def _good(pair: Pair) -> Pair | None:
    try:
        read(pair)
    except BadCertificate:
        return None
    return pair


def _facts_of(pem: str) -> Facts | None:
    try:
        return read_certificate(pem) if pem else None
    except BadCertificate:
        return None
