"""Rules as nested netlink attributes, in the shape that pyroute2 encodes. Pure.

What was loaded lies in register 1 all the time. Enumerations are given as numbers, which is what the encoder takes.
"""

from __future__ import annotations

import ipaddress
import sys
from typing import Final, assert_never

from qvirt_netsetup.nft import (
    AF_INET,
    AF_INET6,
    Chain,
    Compare,
    Count,
    CtState,
    Decide,
    Family,
    Mask,
    Masquerade,
    Meta,
    Payload,
    Step,
    Steps,
    Translate,
)

Attributes = dict[str, list[tuple[str, object]]]

_REGISTER: Final = 1
_VERDICT_REGISTER: Final = 0
_META: Final = {"iifname": 6, "oifname": 7, "nfproto": 15, "l4proto": 16}
_BASE: Final = {"link": 0, "network": 1, "transport": 2}
_HOOKS: Final = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
#: NF_CT_STATE_BIT of established and related, in the kernel's own byte order.
_ANSWER_BITS: Final = (2 | 4).to_bytes(4, sys.byteorder)

FAMILIES: Final[dict[Family, int]] = {"inet": 1, "ip": 2, "bridge": 7, "ip6": 10}


def _nested(*attributes: tuple[str, object]) -> Attributes:
    return {"attrs": list(attributes)}


def _expression(name: str, *attributes: tuple[str, object]) -> Attributes:
    prefix = f"NFTA_{name.upper()}_"
    data = _nested(*((prefix + key, value) for key, value in attributes))
    return _nested(("NFTA_EXPR_NAME", name), ("NFTA_EXPR_DATA", data))


def _value(raw: bytes) -> Attributes:
    return _nested(("NFTA_DATA_VALUE", raw))


def _mask(mask: bytes) -> Attributes:
    return _expression(
        "bitwise",
        ("SREG", _REGISTER),
        ("DREG", _REGISTER),
        ("LEN", len(mask)),
        ("MASK", _value(mask)),
        ("XOR", _value(bytes(len(mask)))),
    )


def _translate(step: Translate) -> list[Attributes]:
    address = ipaddress.ip_address(step.address)
    family = AF_INET6 if address.version == 6 else AF_INET
    load = _expression("immediate", ("DREG", _REGISTER), ("DATA", _value(address.packed)))
    nat = _expression(
        "nat",
        ("TYPE", 0 if step.which == "source" else 1),
        ("FAMILY", family),
        ("REG_ADDR_MIN", _REGISTER),
    )
    return [load, nat]


def _step(step: Step) -> list[Attributes]:
    match step:
        case Meta(key=key):
            return [_expression("meta", ("DREG", _REGISTER), ("KEY", _META[key]))]
        case Payload(base=base, offset=offset, length=length):
            where = (("BASE", _BASE[base]), ("OFFSET", offset), ("LEN", length))
            return [_expression("payload", ("DREG", _REGISTER), *where)]
        case CtState():
            return [
                _expression("ct", ("DREG", _REGISTER), ("KEY", 0)),
                _mask(_ANSWER_BITS),
            ]
        case Mask(mask=mask):
            return [_mask(mask)]
        case Compare(value=value, equal=equal):
            what = (("OP", 0 if equal else 1), ("DATA", _value(value)))
            return [_expression("cmp", ("SREG", _REGISTER), *what)]
        case Count():
            return [_expression("counter")]
        case Decide(verdict=verdict):
            code = _nested(("NFTA_VERDICT_CODE", 1 if verdict == "accept" else 0))
            data = _nested(("NFTA_DATA_VERDICT", code))
            return [_expression("immediate", ("DREG", _VERDICT_REGISTER), ("DATA", data))]
        case Masquerade():
            return [_expression("masq")]
        case Translate():
            return _translate(step)
        case _:
            assert_never(step)


def expressions(rule: Steps) -> list[Attributes]:
    """The value of NFTA_RULE_EXPRESSIONS."""
    return [encoded for step in rule for encoded in _step(step)]


def hook(chain: Chain) -> Attributes:
    """The value of NFTA_CHAIN_HOOK."""
    return _nested(
        ("NFTA_HOOK_HOOKNUM", _HOOKS[chain.hook]), ("NFTA_HOOK_PRIORITY", chain.priority)
    )
