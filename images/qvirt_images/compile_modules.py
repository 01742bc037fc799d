"""Compile every module below some directories; run by the Python of the image that they are for, never imported.

``compile_modules.py ROOT keep|drop DIRECTORY...``: ROOT is taken off the names that tracebacks show; ``drop`` leaves docstrings
out. A module that can't be loaded, as one of the standard library was left out of the image, is an error.
Source: PEP 552 (byte code that is not checked against its source).
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator

# The one place that knows the file's form; py_compile uses it too, but can't be given a changed tree.
from importlib._bootstrap_external import _code_to_hash_pyc  # type: ignore[attr-defined]

#: Modules without a file.
_MADE_BY_PYTHON = ("__main__", "os.path", "_frozen_importlib", "_frozen_importlib_external")
#: Of qemu.qmp: `qvirt_qmp.library` gives it another ssl, and its shell is for people with a terminal elsewhere.
_DONE_WITHOUT = {("protocol.py", "ssl"), ("qmp_shell.py", "readline")}


def main(root: str, docstrings: str, *directories: str) -> None:
    """Write `__pycache__` beside every module."""
    known = {*sys.builtin_module_names, *_MADE_BY_PYTHON}
    found: list[tuple[str, str]] = []
    for directory in directories:
        for place, _, files in os.walk(directory):
            within = os.path.relpath(place, directory).replace(os.sep, ".").removeprefix(".")
            package = "" if within == "lib-dynload" else within
            for name in sorted(files):
                if name.endswith((".py", ".so")):
                    known.add(_module(package, name))
                if name.endswith(".py"):
                    found.append((os.path.join(place, name), package))
    lost = [
        f"{path.removeprefix(root)}: imports {name}, which was left out"
        for path, package in found
        for name in _compile(path, root, package, keep=docstrings == "keep") - known
        if name.partition(".")[0] in sys.stdlib_module_names
        and (os.path.basename(path), name) not in _DONE_WITHOUT
    ]
    if lost:
        sys.exit("\n".join(sorted(lost)))


def _module(package: str, file: str) -> str:
    name = file.partition(".")[0]
    return ".".join(part for part in (package, name if name != "__init__" else "") if part)


def _compile(path: str, root: str, package: str, *, keep: bool) -> set[str]:
    """Names of the modules that it can't do without."""
    with open(path, "rb") as file:
        source = file.read()
    shown = path.removeprefix(root)
    try:
        tree = ast.parse(source, shown)
    except SyntaxError as error:
        sys.exit(f"{shown}: {error}")
    if not keep:
        _drop_docstrings(tree)
    code = compile(tree, shown, "exec", dont_inherit=True)
    compiled = importlib.util.cache_from_source(path)
    os.makedirs(os.path.dirname(compiled), exist_ok=True)
    with open(compiled, "wb") as file:
        file.write(_code_to_hash_pyc(code, importlib.util.source_hash(source), False))
    return set(_needed(tree, package))


def _needed(tree: ast.Module, package: str) -> Iterator[str]:
    """What is imported whenever the module is, under no condition."""
    for node in tree.body:
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield module
            case ast.ImportFrom():
                above = package.split(".")[: len(package.split(".")) + 1 - node.level]
                yield ".".join([*above, node.module] if node.module else above)


def _drop_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        # Several strings in a row: each would be the docstring once the one before it is gone.
        while node.body and _is_text(node.body[0]):
            del node.body[0]
        if not node.body and not isinstance(node, ast.Module):
            node.body.append(ast.copy_location(ast.Pass(), node))


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])
