"""The root of all our errors, and those of the contract.

QvirtError
├── SpecError        one or more fields of a manifest are wrong (each with its path)
└── (one subtree per room, in that room's errors.py)
"""

from __future__ import annotations

from typing import ClassVar, Literal

from qvirt_crds.model import Model

#: Whether trying the same thing again can help, and how soon. virt-controller and virt-handler turn it into kopf's words.
Retry = Literal["never", "soon", "later"]


class QvirtError(Exception):
    """Something a user can act on: the message names object or field, cause and remedy."""

    #: CamelCase, becomes the reason of a Condition or Event.
    reason: ClassVar[str] = "Error"
    retry: ClassVar[Retry] = "never"


class Cause(Model, frozen=True, kw_only=True):
    """One refused field, as Kubernetes' StatusCause has it."""

    path: str
    message: str
    #: ``file:line`` when the object was read from a file.
    where: str = ""

    def __str__(self) -> str:
        path = "" if self.message.startswith(self.path) else self.path
        return ": ".join(part for part in (self.where, path, self.message) if part)


class SpecError(QvirtError):
    """A manifest that can't be accepted.

    :param causes: at least one; each names the path of a field as a user would write it,
        e.g. ``spec.template.spec.domain.devices.disks[0].name``.
    """

    reason = "FailedCreateValidation"

    def __init__(self, causes: tuple[Cause, ...]) -> None:
        assert causes
        self.causes = causes
        super().__init__("\n".join(map(str, causes)))
