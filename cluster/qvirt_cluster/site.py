"""What `up` decided, kept in the state directory: later commands need no environment variables for it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from qvirt_cluster.binaries import Binaries
from qvirt_cluster.components import Site
from qvirt_cluster.errors import UsageError
from qvirt_cluster.host import Host
from qvirt_cluster.layout import Layout
from qvirt_cluster.version import Version


def _path(layout: Layout) -> Path:
    return layout.state / "site.json"


def save_site(site: Site) -> None:
    """Write it, whole or not at all."""
    document = {
        "host": asdict(site.host),
        "folder": str(site.binaries.folder),
        "cni": str(site.binaries.cni),
        "version": [site.binaries.version.major, site.binaries.version.minor],
    }
    partial = _path(site.layout).with_suffix(".partial")
    partial.write_text(json.dumps(document))
    partial.rename(_path(site.layout))


def load_site(layout: Layout) -> Site | None:
    """What `up` wrote, None if it did not get so far.

    :raise UsageError: the file is damaged.
    """
    try:
        found = json.loads(_path(layout).read_text())
        version = Version(*found["version"])
        binaries = Binaries(Path(found["folder"]), Path(found["cni"]), version)
        return Site(layout, Host(**found["host"]), binaries)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{_path(layout)} is damaged ({error}); run `down`, then `up`") from error
