"""YAML text -> plain data with the line of every field. The door to PyYAML.

Scalars are resolved as kubectl does, not as YAML 1.1 does: an unquoted MAC address is a string (YAML 1.1 would read
``52:54:00:12:34:56`` as a base-60 number), so is a date.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import yaml

from qvirt_crds import fieldpath
from qvirt_crds.errors import Cause, SpecError
from qvirt_crds.model import Model

#: Larger texts are refused before parsing; the API server takes 3 MiB a request.
MAX_CHARACTERS: Final = 4 * 2**20
#: Values that one text may stand for after its aliases are expanded; a few nested aliases can stand for billions.
MAX_VALUES: Final = 200_000

_TAG: Final = "tag:yaml.org,2002:"


class Document(Model, frozen=True, kw_only=True):
    """One YAML document that has content."""

    source: str
    data: dict[str, object]
    #: Path of a field -> line of its value, from 1.
    lines: dict[str, int]

    def where(self, path: str) -> str:
        """``file:line`` of a field, or of the nearest thing around it that the user wrote."""
        while path and path not in self.lines:
            path = fieldpath.parent(path)
        return f"{self.source}:{self.lines[path]}"


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of kubectl's YAML reader."""


_Loader.yaml_implicit_resolvers = {}
for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"(?:yes|no|true|false|on|off)|(?:Y|N)(?:es|ES|o|O)|(?:T|F)(?:rue|RUE|alse|ALSE)|O(?:n|N|ff|FF)", list("yYnNtTfFoO")),
    ("int", r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", list("-+0123456789.")),
    ("merge", r"<<", ["<"]),
):  # fmt: skip
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), _first)


def parse(text: str, source: str) -> tuple[Document, ...]:
    """All documents of a text that are not empty.

    :param source: the file's name, for messages.
    :raise SpecError: not YAML, a key twice in one object, or not an object; with file, line and column.
    """
    if len(text) > MAX_CHARACTERS:
        raise _refusal(f"{source}: the text is longer than {MAX_CHARACTERS} characters")
    try:
        return tuple(_documents(text, source))
    except yaml.MarkedYAMLError as error:
        raise _refusal(_syntax_error(error, source)) from error
    except yaml.YAMLError as error:
        raise _refusal(f"{source}: this is not YAML text: {error}".replace("\n", " ")) from error
    except RecursionError as error:
        raise _refusal(f"{source}: lists and objects are nested too deeply") from error


def _documents(text: str, source: str) -> Iterator[Document]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is None or _is_empty(node):
                continue
            builder = _Builder(loader, source)
            data = builder.build(node, "")
            if not isinstance(data, dict):
                raise builder.error(node, "expected an object with apiVersion and kind")
            yield Document(source=source, data=data, lines=builder.lines)
    finally:
        loader.dispose()


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "null"


class _Builder:
    """Turns one document's nodes into dicts, lists and scalars, noting where each stood."""

    def __init__(self, loader: _Loader, source: str) -> None:
        self._loader = loader
        self._source = source
        self._values = 0
        self._open: set[int] = set()
        self.lines: dict[str, int] = {}

    def error(self, node: yaml.Node, message: str) -> SpecError:
        mark = node.start_mark
        return _refusal(f"{self._source}:{mark.line + 1}:{mark.column + 1}: {message}")

    def build(self, node: yaml.Node, path: str) -> object:
        self._values += 1
        if self._values > MAX_VALUES:
            raise self.error(node, f"aliases expand to more than {MAX_VALUES} values")
        if id(node) in self._open:
            raise self.error(node, "an alias refers to something that contains it")
        self._open.add(id(node))
        self.lines.setdefault(path, node.start_mark.line + 1)
        try:
            return self._content(node, path)
        finally:
            self._open.remove(id(node))

    def _content(self, node: yaml.Node, path: str) -> object:
        kind = node.tag.removeprefix(_TAG)
        match node:
            case yaml.MappingNode() if kind == "map":
                return self._mapping(node, path)
            case yaml.SequenceNode() if kind == "seq":
                return [
                    self.build(item, fieldpath.join(path, index))
                    for index, item in enumerate(node.value)
                ]
            case yaml.ScalarNode():
                return self._scalar(node, kind)
            case _:
                raise self.error(node, f"the tag {node.tag} has no place in a manifest")

    def _mapping(self, node: yaml.MappingNode, path: str) -> dict[str, object]:
        result: dict[str, object] = {}
        first: dict[str, int] = {}
        merged: dict[str, object] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                merged = self._merge(value_node, path) | merged
                continue
            key = self._key(key_node)
            line = key_node.start_mark.line + 1
            if key in result:
                message = (
                    f"{fieldpath.join(path, key)} is written twice (first in line {first[key]})"
                )
                raise self.error(key_node, message)
            first[key] = line
            self.lines[fieldpath.join(path, key)] = line
            result[key] = self.build(value_node, fieldpath.join(path, key))
        return merged | result

    def _merge(self, node: yaml.Node, path: str) -> dict[str, object]:
        built = self.build(node, path)
        parts = built if isinstance(built, list) else [built]
        merged: dict[str, object] = {}
        for part in parts:
            if not isinstance(part, dict):
                raise self.error(node, "<< takes an object or a list of objects")
            merged = part | merged
        return merged

    def _key(self, node: yaml.Node) -> str:
        value = self.build(node, "") if isinstance(node, yaml.ScalarNode) else None
        match value:
            case str():
                return value
            case bool():
                return "true" if value else "false"
            case int():
                return str(value)
            case _:
                raise self.error(node, "a key must be a string")

    def _scalar(self, node: yaml.ScalarNode, kind: str) -> object:
        try:
            match kind:
                case "str":
                    return _with_pairs_joined(str(node.value))
                case "null":
                    return None
                case "bool":
                    return self._loader.construct_yaml_bool(node)
                case "int":
                    return self._loader.construct_yaml_int(node)
                case "float":
                    return self._loader.construct_yaml_float(node)
                case _:
                    raise self.error(node, f"the tag {node.tag} has no place in a manifest")
        except (ValueError, KeyError, OverflowError) as error:
            raise self.error(node, f"{node.value[:40]!r} is not a value of type {kind}") from error


def _with_pairs_joined(text: str) -> str:
    """JSON writers escape a character beyond 16 bits as two surrogates; YAML has no such rule, so PyYAML keeps both."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _syntax_error(error: yaml.MarkedYAMLError, source: str) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
    said = error.problem or error.context or "unreadable"
    context = f" ({error.context})" if error.context and error.problem else ""
    hint = "; YAML is indented with spaces, not tabs" if "\\t" in said else ""
    return f"{place}: not YAML: {said}{context}{hint}"


def _refusal(message: str) -> SpecError:
    return SpecError((Cause(path="", message=message),))
