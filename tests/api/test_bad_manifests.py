"""Each bad manifest has exactly the cause that it is there for; without what spoils it, it has none."""

from __future__ import annotations

import itertools

import pytest
from tests.api.bad_manifests import BAD, Bad, instance, machine, old_machine, replica_set
from tests.api.reviews import Object, apply_patch, ask

from qvirt_api import admission
from qvirt_crds.configuration import DEFAULT


def answer(manifest: Object) -> Object:
    """Mutated, then validated, as the API server does it."""
    numbers = itertools.count()
    request = ask(manifest)
    now = "2026-01-01T00:00:00Z"
    mutated = admission.mutate(
        request, DEFAULT, lambda: f"00000000-0000-4000-8000-{next(numbers):012}", now
    )
    response: Object = admission.validate(ask(apply_patch(manifest, mutated)), DEFAULT)["response"]
    return response


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_refused_for_one_reason(bad: Bad) -> None:
    status = answer(bad.manifest)["status"]
    assert bad.message in status["message"]
    if not bad.path:
        assert status["code"] == 400
        return
    assert bad.path.lower() in status["message"].lower()
    assert (status["code"], status["reason"]) == (422, "Invalid")
    (cause,) = status["details"]["causes"]
    assert (cause["field"], cause["message"]) == (bad.path, bad.message)


@pytest.mark.parametrize(
    "good",
    [instance(), machine(), old_machine(), replica_set({"app": "bad"})],
    ids=lambda g: g["kind"],
)
def test_unspoilt_they_are_good(good: Object) -> None:
    assert answer(good)["allowed"] is True


def test_names_are_unique() -> None:
    assert len({bad.name for bad in BAD}) == len(BAD) >= 15
