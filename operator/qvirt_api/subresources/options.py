"""Bodies of requests: optional, JSON or YAML, unknown fields ignored (as Go reads them)."""

from __future__ import annotations

from typing import TypeVar

import msgspec
import yaml

from qvirt_api.subresources.errors import bad_request


class Options(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What every verb takes."""

    dry_run: tuple[str, ...] | None = None

    @property
    def is_dry(self) -> bool:
        """Everything is to be checked and nothing done."""
        return bool(self.dry_run)


class StartOptions(Options, frozen=True, kw_only=True):
    """Of ``start``."""

    paused: bool = False


class StopOptions(Options, frozen=True, kw_only=True):
    """Of ``stop``. ``grace_period`` in seconds instead of the instance's own; 0: at once."""

    grace_period: int | None = None


class RestartOptions(Options, frozen=True, kw_only=True):
    """Of ``restart``. ``grace_period_seconds`` 0: without waiting for the guest."""

    grace_period_seconds: int | None = None


class FreezeOptions(Options, frozen=True, kw_only=True):
    """Of ``freeze``. ``unfreeze_timeout`` as Go writes a duration, e.g. ``5m0s``."""

    unfreeze_timeout: str = ""


_O = TypeVar("_O", bound=Options)


def decode(body: bytes, kind: type[_O]) -> _O:
    """The options of a body; of an empty one: the defaults.

    :raise StatusError: 400, it is neither JSON nor YAML, or a field has the wrong type.
    """
    try:
        return msgspec.convert(_without_nulls(load(body)), kind)
    except msgspec.ValidationError as error:
        raise unreadable(error) from error


def load(body: bytes) -> dict[str, object]:
    """The object in a body; an empty one has none of its fields.

    :raise StatusError: 400, there is no object in it.
    """
    if not body.strip():
        return {}
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        try:
            found = yaml.safe_load(body)
        except yaml.YAMLError as error:
            raise unreadable(error) from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise unreadable("it is no object")
    return {str(key): value for key, value in found.items()}


def unreadable(error: object) -> Exception:
    """400 in KubeVirt's words."""
    return bad_request(f"Can not unmarshal Request body to struct, error: {error}")


def _without_nulls(found: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in found.items() if value is not None}
