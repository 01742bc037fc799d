"""What the API says of itself: version, health, and the image that guestfs tools are in."""

from __future__ import annotations

import platform
import sys

from qvirt_crds.meta import JsonObject as Object
from qvirt_crds.model import Model
from qvirt_crds.version import VERSION


class About(Model, frozen=True, kw_only=True):
    """Set at start."""

    version: str
    #: A whole image name; empty: there is none, and ``virtctl guestfs`` can't work.
    guestfs_image: str = ""


def about(guestfs_image: str = "") -> About:
    """Of the installed qvirt."""
    return About(version=VERSION, guestfs_image=guestfs_image)


def version(facts: About) -> Object:
    """As apimachinery's ``version.Info``; what is Go's there is Python's here."""
    return {
        "gitVersion": f"v{facts.version}",
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": f"python{platform.python_version()}",
        "compiler": sys.implementation.name,
        "platform": f"{sys.platform}/{'amd64' if platform.machine() == 'x86_64' else platform.machine()}",
    }


def guestfs(facts: About) -> Object:
    """Which image ``virtctl guestfs`` is to run."""
    return {
        "registry": "",
        "tag": "",
        "digest": "",
        "imagePrefix": "",
        "gsImage": facts.guestfs_image,
    }
