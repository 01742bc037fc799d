"""Fields that are refused by name must reach the webhook that refuses them: the API server prunes what no schema names.

Naming each of them, rather than letting every object hold anything, keeps ``kubectl explain`` and kubectl's own check
for misspelt fields: an API server publishes nothing of the inside of objects that may hold anything.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

from qvirt_crds.meta import JsonObject


def with_refused_fields(root: JsonObject, known: Mapping[str, str]) -> JsonObject:
    """The schema of an object with these fields in it, which may hold anything.

    :param known: path with ``[]`` for indices -> what the webhook says of it.
    :raise KeyError: a path leads through a field that the schema does not have.
    """
    changed = copy.deepcopy(root)
    for path, sentence in known.items():
        *around, name = path.split(".")
        schema = changed
        for step in around:
            schema = schema["properties"][step.removesuffix("[]")]
            if step.endswith("[]"):
                schema = schema["items"]
        fields = schema.setdefault("properties", {})
        assert name not in fields, f"{path} is refused, and part of the contract"
        fields[name] = {
            "description": f"Refused: {sentence}.",
            "x-kubernetes-preserve-unknown-fields": True,
        }
    return changed
