"""A VM that nobody hands over: it stands in the environment of a pod on a node without a control plane (`qvirt pod`)."""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec

from qvirt_launcher.errors import HostError
from qvirt_launcher.taken import Taken


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler would send: the arguments of ``vm-sync`` as the launcher sees them, and as they came."""

    taken: Taken
    message: Mapping[str, object]


def take(variable: str) -> Order:
    """The VM in an environment variable. It is taken out: QEMU has no business with what cloud-init may hold.

    :raise HostError: it isn't there, or isn't what `qvirt pod` writes.
    """
    text = os.environ.pop(variable, "")
    if not text:
        raise HostError(f"{variable}: no VM is in the environment; `qvirt pod` writes such a pod")
    try:
        message = msgspec.json.decode(text, type=dict[str, object])
        return Order(taken=msgspec.convert(message, Taken), message=message)
    except msgspec.MsgspecError as error:
        raise HostError(
            f"{variable}: the VM in the environment can't be understood ({error}); write the pod anew with `qvirt pod`"
        ) from None
