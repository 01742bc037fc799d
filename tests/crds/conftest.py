"""Any object of the contract, for hypothesis: ``st.from_type(VirtualMachine)`` and the like."""

from __future__ import annotations

import string
from functools import partial
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from qvirt_crds import v1alpha1
from qvirt_crds.vm import VirtualMachine, VirtualMachineInstance

#: Few names, so that disks and volumes meet.
NAMES = st.sampled_from(["a", "b", "root", "x.y", "Z_1", ""])
TEXT = st.text(string.ascii_letters + "é\n .", max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
QUANTITIES = st.sampled_from(["1", "64M", "1Gi", "0", "-5", "lots", "1500m"])


def of_type(info: inspect.Type, name: str = "") -> st.SearchStrategy[Any]:
    """JSON that converts to a type; `name` is the wire name of the field it is for."""
    match info:
        case inspect.StructType(fields=fields):
            given = {f.encode_name: of_type(f.type, f.encode_name) for f in fields}
            required = {f.encode_name for f in fields if f.required}
            return st.fixed_dictionaries(
                {key: value for key, value in given.items() if key in required},
                optional={key: value for key, value in given.items() if key not in required},
            )
        case inspect.VarTupleType(item_type=item):
            return st.lists(of_type(item), max_size=3)
        case inspect.DictType(value_type=value):
            return st.dictionaries(NAMES, of_type(value), max_size=2)
        case inspect.UnionType(types=types):
            kept = [t for t in types if not isinstance(t, inspect.NoneType)]
            is_quantity = any(isinstance(t, inspect.FloatType) for t in kept)
            return st.one_of(*(of_type(t, name) for t in kept), *([QUANTITIES] * is_quantity))
        case inspect.LiteralType(values=values):
            return st.sampled_from(list(values))
        case inspect.StrType():
            return NAMES if name in ("name", "volumeName") else TEXT
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType():
            return st.integers(-2, 5)
        case inspect.FloatType():
            return st.floats(-4, 4)
        case inspect.AnyType():
            return JSON
        case _:
            raise NotImplementedError(info)


for _kind in (VirtualMachine, VirtualMachineInstance, v1alpha1.VirtualMachine):
    st.register_type_strategy(
        _kind, of_type(inspect.type_info(_kind)).map(partial(msgspec.convert, type=_kind))
    )
