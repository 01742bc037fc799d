"""`Machine` -> argv. The door to jinja2, and the only place that knows QEMU's quoting.

The template chooses options and their order, one a line; the rest of a line after the flag is one argument, so neither
blanks nor quotes in a value mean anything. Two filters write values: ``kv`` (key=value, commas doubled as QEMU's
QemuOpts wants) and ``json``. Bare values go through `checked` as well: a value with a line break could otherwise start an
option of its own.

Everything is loaded when this module is imported; rendering opens no file, so that it works after privileges were dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Final

import jinja2

from qvirt_launcher.arguments import Json
from qvirt_launcher.errors import RenderError
from qvirt_launcher.machine import Machine

_KEY: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
_UNWRITABLE: Final = re.compile("[\n\r\0]")


def render(machine: Machine) -> tuple[str, ...]:
    """QEMU's argv, with argv[0]. The same machine gives the same argv.

    :raise RenderError: a value with a line break, NUL or half a surrogate pair.
    """
    return (checked(machine.binary), *_split(_TEMPLATES[machine.abi].render(m=machine)))


def checked(value: object) -> str:
    """A bare value as text.

    :raise RenderError: a character that could not be one argument's.
    """
    text = str(value)
    if _UNWRITABLE.search(text):
        raise RenderError(f"{text!r}: QEMU can't be given a line break or NUL: remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RenderError(f"{text!r} is not valid Unicode: remove what is not") from None
    return text


def kv(options: Mapping[str, str | int | bool | None]) -> str:
    """QEMU's key=value list: ``a=1,b=on``; None is left out.

    :raise RenderError: as `checked`.
    """
    pairs = []
    for key, value in options.items():
        if value is None:
            continue
        assert _KEY.fullmatch(key), f"not an option's name: {key!r}"
        text = ("on" if value else "off") if isinstance(value, bool) else checked(value)
        pairs.append(f"{key}={text.replace(',', ',,')}")
    return ",".join(pairs)


def to_json(value: Json) -> str:
    """One line of JSON, ASCII only.

    :raise RenderError: as `checked`, in any string within.
    """
    _check_strings(value)
    return json.dumps(value)


def _check_strings(value: Json) -> None:
    if isinstance(value, str):
        checked(value)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            checked(key)
            _check_strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_strings(inner)


def _split(text: str) -> list[str]:
    """Lines to arguments. Only ``\\n`` ends a line: `str.splitlines` would end one at U+2028 as well."""
    arguments: list[str] = []
    for line in text.split("\n"):
        if not line or line.startswith("#"):
            continue
        flag, blank, rest = line.partition(" ")
        assert flag.startswith("-"), f"the template has a line that is no option: {line!r}"
        arguments.append(flag)
        if blank:
            arguments.append(rest)
    return arguments


def _load() -> dict[int, jinja2.Template]:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        finalize=checked,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # this is no HTML; `kv` and `json` are the escaping
    )
    environment.filters = {"kv": kv, "json": to_json}
    folder = resources.files("qvirt_launcher") / "templates"
    return {
        abi: environment.from_string((folder / f"qemu.{abi}.args.j2").read_text()) for abi in (1,)
    }


_TEMPLATES: Final = _load()
