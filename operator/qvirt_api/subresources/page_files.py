"""The files of the page that shows a screen: ours, and of Debian's package novnc the modules that they import."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from qvirt_crds.model import Model

#: Where Debian's package has them.
NOVNC: Final = Path("/usr/share/novnc")
_OWN: Final = Path(__file__).with_name("page")
#: What is served, by its suffix; all else in the directories is not.
_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
#: Of noVNC's: its library, and what that is made of. Its own page (app) is not used.
_LIBRARY: Final = ("core", "vendor/pako")


class PageFile(Model, frozen=True, kw_only=True):
    """One of them."""

    path: str
    content_type: str


class PageFiles:
    """Looked for once; a name that is not among them leads nowhere, wherever it points.

    :param novnc: directory of noVNC's ``core`` and ``vendor``.
    """

    def __init__(self, novnc: Path = NOVNC) -> None:
        scripts = [path for part in _LIBRARY for path in (novnc / part).rglob("*.js")]
        #: Whether there is a page to show.
        self.complete = bool(scripts)
        found = {path.name: path for path in _OWN.iterdir() if path.suffix in _TYPES}
        found |= {f"novnc/{path.relative_to(novnc).as_posix()}": path for path in scripts}
        self._files = {
            name: PageFile(path=str(path), content_type=_TYPES[path.suffix])
            for name, path in found.items()
        }

    def find(self, name: str) -> PageFile | None:
        """By its path below the page; None: there is none."""
        return self._files.get(name)
