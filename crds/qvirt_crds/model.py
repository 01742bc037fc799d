"""The base of every struct in the contract.

`frozen` and `kw_only` are repeated on each subclass because msgspec inherits neither for type checkers.
JSON names are camelCase as Kubernetes has them; attributes are snake_case. Unknown fields are refused;
fields at their default are left out when encoding, so that a manifest round-trips to itself.
"""

from __future__ import annotations

import msgspec


class Model(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    rename="camel",
):
    """Frozen, keyword-only, camelCase on the wire, unknown fields refused."""


class Empty(Model, frozen=True, kw_only=True):
    """An object whose presence is its meaning, e.g. ``bridge: {}``."""
