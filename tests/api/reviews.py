"""Reviews as the API server sends them, and what it does with a patch."""

from __future__ import annotations

import base64
import copy
from typing import Any

import msgspec

from qvirt_api import review

Object = dict[str, Any]


def ask(
    manifest: Object,
    operation: str = "CREATE",
    old: Object | None = None,
    user: str = "jane",
    **extra: list[str],
) -> review.Request:
    """The request of a review, through its JSON."""
    group, _, version = manifest["apiVersion"].partition("/")
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": group, "version": version, "kind": manifest["kind"]},
        "resource": {
            "group": group,
            "version": version,
            "resource": f"{manifest['kind'].lower()}s",
        },
        "operation": operation,
        "name": manifest["metadata"].get("name", ""),
        "namespace": "default",
        "userInfo": {"username": user, "groups": ["system:authenticated"], "extra": extra},
        "object": manifest,
        "oldObject": old,
        "dryRun": False,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
    }
    body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    return review.read(msgspec.json.encode(body))


def apply_patch(held: Object, answer: Object) -> Object:
    """The object after the patch of an answer (RFC 6902: add, replace, remove)."""
    response = answer["response"]
    assert response["allowed"] is True
    if "patch" not in response:
        return held
    assert response["patchType"] == "JSONPatch"
    changed = copy.deepcopy(held)
    for step in msgspec.json.decode(base64.b64decode(response["patch"])):
        keys = [key.replace("~1", "/").replace("~0", "~") for key in step["path"].split("/")[1:]]
        place: Any = changed
        for key in keys[:-1]:
            place = place[int(key)] if isinstance(place, list) else place[key]
        _do(place, keys[-1], step)
    return changed


def _do(place: Any, key: str, step: Object) -> None:
    match step["op"], place:
        case "add", list():
            place.insert(len(place) if key == "-" else int(key), step["value"])
        case "add", dict():
            place[key] = step["value"]
        case "replace", list():
            place[int(key)] = step["value"]
        case "replace", dict():
            assert key in place
            place[key] = step["value"]
        case "remove", dict():
            del place[key]
        case _:
            raise AssertionError(step)
