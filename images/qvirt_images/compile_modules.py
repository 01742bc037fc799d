"""Compile every module below some directories; run by the Python of the image that they are for, never imported.

``compile_modules.py ROOT keep|drop DIRECTORY...``: ROOT is taken off the names that tracebacks show; ``drop`` leaves docstrings
out. Source: PEP 552 (byte code that is not checked against its source).
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
import warnings

# The one place that knows the file's form; py_compile uses it too, but can't be given a changed tree.
from importlib._bootstrap_external import _code_to_hash_pyc  # type: ignore[attr-defined]


def main(root: str, docstrings: str, *directories: str) -> None:
    """Write `__pycache__` beside every module."""
    for directory in directories:
        for place, _, files in os.walk(directory):
            for name in sorted(files):
                if name.endswith(".py"):
                    _compile(os.path.join(place, name), root, keep=docstrings == "keep")


def _compile(path: str, root: str, *, keep: bool) -> None:
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
