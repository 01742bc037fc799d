"""Directories of a guest's, removed."""

from __future__ import annotations

import contextlib
import os


def remove_tree(top: str) -> None:
    """Whatever is in it, as far as it can be; one that is not there is fine. (shutil would bring every compressor that Python has.)"""
    with contextlib.suppress(OSError):
        _empty(top)
        os.rmdir(top)


def _empty(top: str) -> None:
    for _, directories, files, place in os.fwalk(top, topdown=False):
        for name in files:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=place)
        for name in directories:
            with contextlib.suppress(OSError):
                try:
                    os.rmdir(name, dir_fd=place)
                except NotADirectoryError:  # a link to one
                    os.unlink(name, dir_fd=place)
