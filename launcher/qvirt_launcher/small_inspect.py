"""What asyncio and qemu.qmp use of `inspect`, for a launcher that has no use for the rest.

The real one brings parsers, disassembler and tokenizer with it: 0.9 MiB for as long as a guest lives, for six questions of one
line each (docs/adr/0007). Whatever else somebody asks for comes from the real one, which is loaded then.
"""

from __future__ import annotations

import functools
import importlib
import sys
import types
from collections.abc import Awaitable, Callable
from typing import Final

_NAME: Final = "inspect"
#: Flags of code objects (CPython's Include/cpython/code.h).
_COROUTINE: Final = 0x80
_ITERABLE_COROUTINE: Final = 0x100


def take_its_place() -> None:
    """From now on ``import inspect`` gives this module, unless the real one is loaded already."""
    sys.modules.setdefault(_NAME, sys.modules[__name__])


def isfunction(thing: object) -> bool:
    """Whether it was made by ``def`` or ``lambda``."""
    return isinstance(thing, types.FunctionType)


def isgenerator(thing: object) -> bool:
    """Whether it is a generator's iterator."""
    return isinstance(thing, types.GeneratorType)


def iscoroutine(thing: object) -> bool:
    """Whether it came from calling an ``async def``."""
    return isinstance(thing, types.CoroutineType)


def isawaitable(thing: object) -> bool:
    """Whether ``await`` takes it."""
    if isinstance(thing, types.GeneratorType):
        return bool(thing.gi_code.co_flags & _ITERABLE_COROUTINE)
    return isinstance(thing, types.CoroutineType | Awaitable)


def iscoroutinefunction(thing: object) -> bool:
    """Whether it is an ``async def``, also as a method, also with some of its arguments given."""
    while isinstance(thing, types.MethodType | functools.partial):
        thing = thing.__func__ if isinstance(thing, types.MethodType) else thing.func
    return isinstance(thing, types.FunctionType) and bool(thing.__code__.co_flags & _COROUTINE)


def unwrap(thing: Callable[..., object]) -> Callable[..., object]:
    """What decorators have wrapped, innermost.

    :raise ValueError: they go round in a circle.
    """
    seen = {id(thing)}
    while hasattr(thing, "__wrapped__"):
        thing = thing.__wrapped__
        if id(thing) in seen:
            raise ValueError(f"{thing!r} wraps itself")
        seen.add(id(thing))
    return thing


def __getattr__(name: str) -> object:
    if sys.modules.get(_NAME) is sys.modules[__name__]:
        if name.startswith("__"):
            # The import system's own questions (is it a package? where from?), and nobody's use of it.
            raise AttributeError(name)
        del sys.modules[_NAME]
    return getattr(importlib.import_module(_NAME), name)
