"""Who may take the lease, and when."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from qvirt_operator.lease import DURATION, RENEW_DEADLINE, RETRY_EVERY, claimable, held

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_free_lease_and_ones_own_are_taken_at_once() -> None:
    for spec in ({}, {"holderIdentity": ""}, {"holderIdentity": "me"}, {"holderIdentity": None}):
        assert claimable(None, spec, "me", 0.0)[1]


def test_anothers_is_taken_when_it_was_not_renewed_for_its_duration() -> None:
    spec = {"holderIdentity": "other", "renewTime": "t1", "leaseDurationSeconds": 10}
    seen, free = claimable(None, spec, "me", 100.0)
    assert not free
    seen, free = claimable(seen, spec, "me", 110.0)
    assert not free
    assert claimable(seen, spec, "me", 110.1)[1]


def test_a_renewal_starts_the_waiting_again() -> None:
    """However wrong the holder's clock is: only that the time changed counts."""
    seen, _ = claimable(None, {"holderIdentity": "other", "renewTime": "t1"}, "me", 0.0)
    seen, free = claimable(seen, {"holderIdentity": "other", "renewTime": "t0"}, "me", DURATION + 1)
    assert not free
    assert seen.since == DURATION + 1


def test_taking_over_counts_as_a_transition_and_renewing_does_not() -> None:
    first = held({}, "a", NOW)
    assert first["leaseTransitions"] == 1
    assert held(first, "a", NOW)["leaseTransitions"] == 1
    later = held(first, "a", NOW.replace(minute=1))
    assert later["acquireTime"] == first["acquireTime"]
    assert later["renewTime"] != first["renewTime"]
    assert held(later, "b", NOW)["leaseTransitions"] == 2


@pytest.mark.parametrize("odd", ["x", None, -1, 0])
def test_an_odd_duration_counts_as_ours(odd: object) -> None:
    spec = {"holderIdentity": "other", "leaseDurationSeconds": odd}
    seen, free = claimable(None, spec, "me", 0.0)
    assert not free
    assert claimable(seen, spec, "me", DURATION + 0.1)[1]


def test_the_old_leader_stops_before_the_new_one_starts() -> None:
    assert RENEW_DEADLINE + RETRY_EVERY < DURATION
    assert DURATION + RETRY_EVERY < 15
