"""Which certificate is to be made next (pure); `keeper` observes and acts.

One authority signs. Long before it ends its successor is made and trusted, beside it; only when everybody has had time
to learn of the successor it takes over, and the old one stays trusted until it ends. So no client ever meets a
certificate whose signer it does not know, whoever is restarted when.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, Literal

from qvirt_api.authority import Facts, Identity
from qvirt_crds.model import Model
from qvirt_crds.names import (
    API_SECRET,
    API_SERVICE,
    HANDLER_CLIENT_CN,
    HANDLER_CLIENT_SECRET,
    HANDLER_SECRET,
    HANDLER_SERVER_CN,
    HANDLER_SERVER_NAME,
)

#: Of a life, after which a successor is due.
DUE: Final = 0.8
#: Between making an authority known and signing with it: every reader looks much more often.
OVERLAP: Final = timedelta(minutes=30)

Step = Literal["create", "prepare", "promote", "retire"]


class Lives(Model, frozen=True, kw_only=True):
    """How long what is made is valid. An authority's last fifth must outlast a certificate."""

    authority: timedelta = timedelta(days=90)
    certificate: timedelta = timedelta(days=14)


class Authorities(Model, frozen=True, kw_only=True):
    """Those in the Secret; None: not there, or can't be read."""

    signer: Facts | None = None
    #: Trusted already, signs later.
    upcoming: Facts | None = None
    #: Trusted still, signs no more.
    previous: Facts | None = None


class Seen(Model, frozen=True, kw_only=True):
    """What the cluster holds."""

    now: datetime
    authorities: Authorities
    #: Name of a Secret -> its certificate; None: not there, or can't be read.
    certificates: dict[str, Facts | None]
    #: Whoever must trust us has all our authorities: ConfigMap, webhook configurations, CRDs.
    published: bool


class Decision(Model, frozen=True, kw_only=True):
    """What to do: the authorities first, and when they have changed, look again."""

    authorities: Step | None = None
    #: Secrets whose certificate is to be issued now.
    issue: tuple[str, ...] = ()


def identities(namespace: str) -> dict[str, Identity]:
    """Name of a Secret -> whom the certificate in it names.

    :param namespace: where virt-api's Service is.
    """
    service = f"{API_SERVICE}.{namespace}"
    return {
        API_SECRET: Identity(
            common_name=f"{service}.svc",
            # The API server asks for the name with `.svc`; people use the others.
            dns_names=(API_SERVICE, service, f"{service}.svc", f"{service}.svc.cluster.local"),
            usage="server",
        ),
        HANDLER_SECRET: Identity(
            common_name=HANDLER_SERVER_CN, dns_names=(HANDLER_SERVER_NAME,), usage="server"
        ),
        HANDLER_CLIENT_SECRET: Identity(common_name=HANDLER_CLIENT_CN, usage="client"),
    }


def decide(seen: Seen, wanted: Mapping[str, Identity]) -> Decision:
    """The next step. Applied again and again it ends in a decision that does nothing."""
    step = _step(seen)
    if step is not None:
        return Decision(authorities=step)
    signer = seen.authorities.signer
    assert signer is not None, "without one there is a step"
    due = (
        name
        for name, identity in wanted.items()
        if not _is_good(seen.certificates.get(name), identity, signer, seen.now)
    )
    return Decision(issue=tuple(due))


def _step(seen: Seen) -> Step | None:
    signer, upcoming = seen.authorities.signer, seen.authorities.upcoming
    previous = seen.authorities.previous
    if upcoming is not None and has_ended(upcoming, seen.now):
        upcoming = None
    if signer is None or has_ended(signer, seen.now):
        # Nothing that was signed is worth anything: no reason to wait.
        return "create" if upcoming is None else "promote"
    if upcoming is None:
        if is_due(signer, seen.now):
            return "prepare"
    elif seen.published and seen.now >= upcoming.made + OVERLAP:
        return "promote"
    return "retire" if previous is not None and has_ended(previous, seen.now) else None


def _is_good(facts: Facts | None, identity: Identity, signer: Facts, now: datetime) -> bool:
    return (
        facts is not None
        and not is_due(facts, now)
        and facts.signer == signer.key
        and facts.common_name == identity.common_name
        and facts.dns_names == identity.dns_names
        and facts.usages == (identity.usage,)
    )


def is_due(facts: Facts, now: datetime) -> bool:
    """Whether four fifths of its life are over."""
    return now >= facts.made + (facts.ends - facts.made) * DUE


def has_ended(facts: Facts, now: datetime) -> bool:
    """Whether nobody trusts it any more."""
    return now >= facts.ends
