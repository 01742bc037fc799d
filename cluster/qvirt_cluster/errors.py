"""What can go wrong, always with a remedy.

ClusterError
├── UsageError          the request makes no sense on this machine (exit status 2)
├── MissingPackages     programs are not installed
├── CommandFailed       a program that we ran failed or was late
├── BuildFailed         Kubernetes could not be built or downloaded
├── ComponentFailed     a component ended, or did not become healthy in time
└── NotRemoved          `down` could not remove something
"""

from __future__ import annotations


class ClusterError(Exception):
    """Something the user can act on: the message has the cause and the remedy."""

    exit_status = 1


class UsageError(ClusterError):
    """Asked for something that can't be done here; nothing was changed."""

    exit_status = 2


class MissingPackages(ClusterError):
    """:param packages: names of Debian packages."""

    def __init__(self, packages: tuple[str, ...]) -> None:
        self.packages = packages
        super().__init__(
            f"these Debian packages are missing: {', '.join(packages)}; install them with\n"
            f"    apt-get install --no-install-recommends {' '.join(packages)}"
        )


class CommandFailed(ClusterError):
    """A program that was expected to end with status 0 in time did not."""


class BuildFailed(ClusterError):
    """Kubernetes' programs could not be made."""


class ComponentFailed(ClusterError):
    """:param component: its name as `status` shows it.
    :param cause: what was seen of it from outside.
    :param tail: the end of its log.
    :param log: where the rest is.
    """

    def __init__(self, component: str, cause: str, tail: str, log: str) -> None:
        self.component = component
        quoted = "\n".join(f"    {line}" for line in tail.splitlines()) or "    (nothing)"
        super().__init__(f"{component} {cause}; the end of its log ({log}):\n{quoted}")


class NotRemoved(ClusterError):
    """:param left: one line for each thing that is still there."""

    def __init__(self, left: tuple[str, ...]) -> None:
        self.left = left
        listed = "\n".join(f"    {line}" for line in left)
        super().__init__(f"could not remove everything; run `down` again, or look at:\n{listed}")
