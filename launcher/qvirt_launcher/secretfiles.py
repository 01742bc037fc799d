"""Secrets of access credentials as files: the keys and passwords in them. Read anew each time, as the kubelet keeps them up to date."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Final, Literal

from qvirt_crds.model import Model
from qvirt_launcher.errors import HostError

#: A Secret holds at most 1 MiB in all (Kubernetes' limit).
_LONGEST: Final = 1 << 20


class Credential(Model, frozen=True, kw_only=True):
    """A Secret that the guest's agent is to carry into the guest."""

    kind: Literal["keys", "passwords"]
    secret: str
    directory: str
    #: Of keys: whose account they open.
    users: tuple[str, ...] = ()


def values(secret: str, directory: str) -> dict[str, str]:
    """The Secret's keys and values.

    :raise HostError: it can't be read.
    """
    try:
        # What begins with two dots is the kubelet's own.
        names = sorted(name for name in os.listdir(directory) if not name.startswith(".."))
        return {name: _read(os.path.join(directory, name)) for name in names}
    except OSError as error:
        raise HostError(f"Secret {secret}: {error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise HostError(f"Secret {secret}: {error}") from error


def _read(path: str) -> str:
    with open(path, "rb") as file:
        data = file.read(_LONGEST + 1)
    if len(data) > _LONGEST:
        raise ValueError(f"{os.path.basename(path)} is larger than a Secret can be (1 MiB)")
    return data.decode()


def keys(files: Iterable[str]) -> tuple[str, ...]:
    """ssh public keys: one a line, in order, each once; comments and empty lines are none."""
    return tuple(dict.fromkeys(_lines(files)))


def _lines(files: Iterable[str]) -> Iterator[str]:
    for text in files:
        for line in text.splitlines():
            key = line.strip()
            if key and not key.startswith("#"):
                yield key


def keys_by_user(credentials: Iterable[Credential]) -> dict[str, tuple[str, ...]]:
    """User of the guest -> the keys of all Secrets that are for that user.

    :raise HostError: a Secret can't be read.
    """
    found: dict[str, tuple[str, ...]] = {}
    for credential in credentials:
        if credential.kind == "keys":
            new = keys(values(credential.secret, credential.directory).values())
            for user in credential.users:
                found[user] = tuple(dict.fromkeys((*found.get(user, ()), *new)))
    return found


def passwords(credentials: Iterable[Credential]) -> dict[str, str]:
    """User of the guest -> password, without the line's end that a file has.

    :raise HostError: a Secret can't be read.
    """
    found: dict[str, str] = {}
    for credential in credentials:
        if credential.kind == "passwords":
            given = values(credential.secret, credential.directory)
            found |= {user: password.rstrip("\r\n") for user, password in given.items()}
    return found
