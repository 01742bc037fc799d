"""Where a launcher lives."""

from __future__ import annotations

import os

import msgspec

from qvirt_launcher.errors import HostError
from qvirt_launcher.options import Options
from qvirt_launcher.privileges import User
from qvirt_launcher.removal import remove_tree


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where this launcher lives, and what it is called until its guest says so."""

    run_dir: str
    disk_dir: str
    #: Whether `disk_dir` was made for this guest, and so goes with it, whatever is in it.
    owns_disk_dir: bool = False
    name: str = ""
    namespace: str = ""
    #: Whether the kubelet made it: volumes are found here, and sidecars are to end with the guest.
    pod: bool = False


def settle_in(options: Options, user: User | None) -> Place:
    """Make both directories, unless they are there. Root's become the user's; others are left as they are.

    :raise HostError: one can't be made.
    """
    run_dir = os.path.abspath(options.run_dir)
    disk_dir = os.path.abspath(options.disk_dir or os.path.join(run_dir, "disks"))
    _make(run_dir)
    if options.vm_from:
        # Of a predecessor that was killed: a pod's containers start again, and its volumes stay.
        remove_tree(disk_dir)
    place = Place(
        run_dir=run_dir,
        disk_dir=disk_dir,
        owns_disk_dir=_make(disk_dir),
        name=options.name,
        namespace=options.namespace,
        pod=options.pod,
    )
    for directory in (run_dir, disk_dir):
        if user is not None and os.stat(directory).st_uid == 0:
            os.chown(directory, user.uid, user.gid)
    return place


def _make(directory: str) -> bool:
    """Whether the directory had to be made."""
    try:
        os.makedirs(directory, mode=0o700)
    except FileExistsError:
        return False
    except OSError as error:
        raise HostError(f"{directory} can't be made ({error.strerror}): choose another") from error
    return True
