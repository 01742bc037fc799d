"""Plain data against a struct type: every unknown field, missing field and wrong type at once, each with its path.

msgspec's own conversion stops at the first; a user who gets a manifest from elsewhere wants the whole list. What passes
here converts, so a message never shows msgspec's names.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Mapping
from typing import Final

from msgspec import inspect

from qvirt_crds import fieldpath
from qvirt_crds.errors import Cause
from qvirt_crds.model import Model

#: Go's int64, the widest that a Kubernetes API carries.
_INT64: Final = range(-(2**63), 2**63)


def check(
    data: object, kind: type[Model], known: Mapping[str, str], path: str = ""
) -> tuple[object, tuple[Cause, ...]]:
    """The data with null members dropped (Kubernetes reads null as absent), and all that is wrong with it.

    When no cause is returned, ``msgspec.convert(data, kind)`` succeeds.

    :param known: fields that exist elsewhere but not in `kind`, by path with ``[]`` for indices, and what to say of each.
    :param path: where `data` stands in what the user wrote.
    """
    walker = _Walker(known)
    clean = walker.walk(data, _type_info(kind), path)
    return clean, tuple(walker.causes)


@functools.cache
def _type_info(kind: type[Model]) -> inspect.Type:
    """It takes milliseconds for a whole instance; a kind stays what it is."""
    return inspect.type_info(kind)


class _Walker:
    def __init__(self, known: Mapping[str, str]) -> None:
        self._known = known
        self.causes: list[Cause] = []

    def walk(self, value: object, info: inspect.Type, path: str) -> object:
        match info:
            case inspect.StructType():
                return self._struct(value, info, path)
            case inspect.VarTupleType(item_type=item):
                return self._list(value, item, path)
            case inspect.DictType(value_type=inner):
                return self._map(value, inner, path)
            case inspect.AnyType():
                return self._opaque(value, path)
            case inspect.UnionType(types=types):
                return self._union(value, types, path)
            case _:
                return self._scalar(value, (info,), path)

    def _refuse(self, path: str, message: str) -> None:
        self.causes.append(Cause(path=path, message=message))

    def _struct(self, value: object, info: inspect.StructType, path: str) -> object:
        if not isinstance(value, dict):
            self._refuse(path, f"expected an object, found {describe(value)}")
            return value
        fields = {field.encode_name: field for field in info.fields}
        clean: dict[str, object] = {}
        for key, inner in value.items():
            inner_path = fieldpath.join(path, key)
            if key not in fields:
                self._refuse(inner_path, self._unknown(key, inner_path, fields))
            elif inner is not None:
                clean[key] = self.walk(inner, fields[key].type, inner_path)
        for name, field in fields.items():
            if field.required and value.get(name) is None:
                self._refuse(fieldpath.join(path, name), "this field is required")
        return clean

    def _unknown(self, key: str, path: str, fields: Mapping[str, object]) -> str:
        if said := self._known.get(fieldpath.without_indices(path)):
            return said
        return f"unknown field{suggestion(key, fields)}"

    def _list(self, value: object, item: inspect.Type, path: str) -> object:
        if not isinstance(value, list):
            self._refuse(path, f"expected a list, found {describe(value)}")
            return value
        return [self.walk(inner, item, fieldpath.join(path, i)) for i, inner in enumerate(value)]

    def _map(self, value: object, item: inspect.Type, path: str) -> object:
        if not isinstance(value, dict):
            self._refuse(path, f"expected an object, found {describe(value)}")
            return value
        for key in value:
            self._text(key, path)
        return {
            key: self.walk(inner, item, fieldpath.join(path, key))
            for key, inner in value.items()
            if inner is not None
        }

    def _opaque(self, value: object, path: str) -> object:
        """A part that is Kubernetes' own to check; only what JSON can't carry is refused."""
        match value:
            case dict():
                return self._map(value, inspect.AnyType(), path)
            case list():
                return self._list(value, inspect.AnyType(), path)
            case str():
                self._text(value, path)
            case float() if not math.isfinite(value):
                self._refuse(path, f"expected a finite number, found {value}")
            case _:
                pass
        return value

    def _union(self, value: object, types: tuple[inspect.Type, ...], path: str) -> object:
        members = [t for t in types if not isinstance(t, inspect.NoneType)]
        if len(members) == 1:
            return self.walk(value, members[0], path)
        return self._scalar(value, tuple(members), path)

    def _scalar(self, value: object, types: tuple[inspect.Type, ...], path: str) -> object:
        if isinstance(value, str):
            self._text(value, path)
        if not any(_fits(value, t) for t in types):
            self._refuse(path, _expected(value, types))
        return value

    def _text(self, value: str, path: str) -> None:
        if "\0" in value:
            self._refuse(path, "a NUL character has no place in a manifest")
        elif not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            self._refuse(path, "half of a surrogate pair is not a character")


def describe(value: object) -> str:
    """What a value of YAML or JSON is, in words: ``the string "x"``, ``a list``."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return "the boolean true" if value else "the boolean false"
        case int() | float():
            return f"the number {value!r:.40}"
        case str():
            return f'the string "{value[:40]}{"…" if len(value) > 40 else ""}"'
        case list():
            return "a list"
        case _:
            return "an object"


def suggestion(word: str, candidates: Mapping[str, object] | tuple[str, ...]) -> str:
    """``; did you mean "x"?`` when some candidate is close to the word, else nothing."""
    close = {c.lower(): c for c in candidates}
    found = difflib.get_close_matches(word.lower(), close, n=1)
    return f'; did you mean "{close[found[0]]}"?' if found else ""


def _fits(value: object, info: inspect.Type) -> bool:
    match info:
        case inspect.LiteralType(values=values):
            return isinstance(value, str) and value in values
        case inspect.StrType():
            return isinstance(value, str)
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType():
            return isinstance(value, int) and not isinstance(value, bool) and value in _INT64
        case inspect.FloatType():
            return isinstance(value, float) and math.isfinite(value)
        case _:
            raise NotImplementedError(f"a field of type {info} in the contract")


def _expected(value: object, types: tuple[inspect.Type, ...]) -> str:
    words = tuple(
        str(word) for t in types if isinstance(t, inspect.LiteralType) for word in t.values if word
    )
    found = describe(value)
    if words:
        hint = suggestion(value, words) if isinstance(value, str) else ""
        wanted = f'"{words[0]}"' if len(words) == 1 else f"one of {', '.join(words)}"
        return f"expected {wanted}, found {found}{hint}"
    match types:
        case (inspect.StrType(),):
            return f"expected a string, found {found}{_quote_it(value)}"
        case (inspect.BoolType(),):
            return f"expected true or false, found {found}"
        case (inspect.IntType(),):
            return f"expected a whole number, found {found}"
        case _:
            return f"expected a string or a number, found {found}"


def _quote_it(value: object) -> str:
    return "; put it in quotes" if isinstance(value, bool | int | float) else ""
