"""What can go wrong on a monitor, as a tree.

QmpError
├── ConnectFailed    no session: nobody listens, no greeting in time, or not QMP at all
├── ListenFailed     our own socket can't be made
├── CommandFailed    the peer refused: it answered with an error (its class and description inside)
├── CommandTimeout   no answer within the deadline; the command may still be carried out
├── Interrupted      the connection ended before the answer; the outcome is unknowable
├── Disconnected     the connection has ended, or takes nothing more: the command was not sent, nothing has happened
└── Refused          our own policy; the command never reached the peer

The root stands alone: this room knows no other.
"""

from __future__ import annotations

from typing import ClassVar, Literal


class QmpError(Exception):
    """The root of this room's errors."""

    #: CamelCase, becomes the reason of a Condition or Event.
    reason: ClassVar[str] = "MonitorError"
    #: Whether trying the same thing again can help, and how soon.
    retry: ClassVar[Literal["never", "soon", "later"]] = "never"


class ConnectFailed(QmpError):
    """There is no session with the peer."""

    reason = "MonitorConnectFailed"
    retry = "soon"

    def __init__(self, name: str, cause: str) -> None:
        self.name = name
        self.cause = cause
        super().__init__(f"{name}: can't connect: {cause}")


class ListenFailed(QmpError):
    """A socket of ours can't be bound; nothing of it is left behind."""

    reason = "MonitorListenFailed"

    def __init__(self, path: str, cause: str) -> None:
        self.path = path
        self.cause = cause
        super().__init__(f"{path}: can't listen: {cause}")


class CommandFailed(QmpError):
    """The peer answered with an error, so it knows what it did: nothing, unless the description says otherwise.

    :param error_class: QMP's class, e.g. ``GenericError``, ``CommandNotFound``, ``DeviceNotFound``.
    """

    reason = "MonitorCommandFailed"

    def __init__(self, command: str, error_class: str, description: str) -> None:
        self.command = command
        self.error_class = error_class
        self.description = description
        super().__init__(f"{command}: {description}")


class CommandTimeout(QmpError):
    """No answer within ``seconds``. The command may have been, or may still be, carried out."""

    reason = "MonitorCommandTimeout"
    retry = "later"

    def __init__(self, command: str, seconds: float) -> None:
        self.command = command
        self.seconds = seconds
        super().__init__(f"{command}: no answer within {seconds:g} s; it may still be carried out")


class Interrupted(QmpError):
    """The connection ended while the answer was awaited: whether the command was carried out is unknowable."""

    reason = "MonitorInterrupted"

    def __init__(self, command: str, cause: str) -> None:
        self.command = command
        self.cause = cause
        super().__init__(f"{command}: no answer, its outcome is unknown: {cause}")


class Disconnected(QmpError):
    """The connection has ended, or takes nothing more; the command was not sent."""

    reason = "MonitorDisconnected"

    def __init__(self, name: str, cause: str) -> None:
        self.name = name
        self.cause = cause
        super().__init__(f"{name}: not connected: {cause}")


class Refused(QmpError):
    """Policy says no; the peer never saw the command.

    :param why: cause and, where there is one, the way that is open instead.
    """

    reason = "MonitorCommandRefused"

    def __init__(self, command: str, why: str) -> None:
        self.command = command
        self.why = why
        super().__init__(f"{command}: refused: {why}")
