"""Quantities are exact: against decimal arithmetic done another way, and against hand-computed ones."""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qvirt_crds.quantity import parse_bytes, parse_quantity

EXACT = Context(prec=2000)
#: Written out, so that they don't come from the same formula.
FACTORS = {
    "n": "0.000000001",
    "u": "0.000001",
    "m": "0.001",
    "": "1",
    "k": "1000",
    "M": "1000000",
    "G": "1000000000",
    "T": "1000000000000",
    "P": "1000000000000000",
    "E": "1000000000000000000",
    "Ki": "1024",
    "Mi": "1048576",
    "Gi": "1073741824",
    "Ti": "1099511627776",
    "Pi": "1125899906842624",
    "Ei": "1152921504606846976",
}
NUMBERS = st.from_regex(r"\A[+-]?([0-9]{1,20}(\.[0-9]{0,12})?|\.[0-9]{1,12})\Z")


def exact(number: str) -> Decimal:
    return EXACT.create_decimal(number)


@given(NUMBERS, st.sampled_from(sorted(FACTORS)))
def test_value_is_that_of_decimal_arithmetic(number: str, suffix: str) -> None:
    expected = EXACT.multiply(exact(number), exact(FACTORS[suffix]))
    parsed = parse_quantity(number + suffix)
    assert EXACT.multiply(expected, Decimal(parsed.denominator)) == parsed.numerator


@given(NUMBERS, st.integers(-30, 30), st.sampled_from("eE"))
def test_decimal_exponents(number: str, exponent: int, letter: str) -> None:
    parsed = parse_quantity(f"{number}{letter}{exponent}")
    expected = exact(number).scaleb(exponent, EXACT)
    assert EXACT.multiply(expected, Decimal(parsed.denominator)) == parsed.numerator


@given(st.integers(-(2**63), 2**63 - 1))
def test_whole_numbers_round_trip(value: int) -> None:
    assert parse_bytes(value) == parse_bytes(str(value)) == value


@given(NUMBERS)
def test_bytes_round_up(number: str) -> None:
    assert parse_bytes(number) == int(exact(number).to_integral_value(ROUND_CEILING))


@given(st.integers(0, 10**6), st.sampled_from([("Ki", "Mi"), ("Mi", "Gi"), ("Gi", "Ti")]))
def test_1024_of_one_unit_are_one_of_the_next(count: int, units: tuple[str, str]) -> None:
    small, large = units
    assert parse_bytes(f"{count * 1024}{small}") == parse_bytes(f"{count}{large}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("64M", 64_000_000),
        ("64Mi", 67_108_864),
        (67108864, 67_108_864),
        ("1E", 10**18),
        ("1E3", 1000),
        ("1e3", 1000),
        (1e3, 1000),
        ("0.5Gi", 536_870_912),
        ("1.", 1),
        (".5k", 500),
        ("100m", 1),
        ("-1.5", -1),
        ("1.0000000001Ki", 1025),
    ],
)
def test_examples(text: str | int | float, value: int) -> None:
    assert parse_bytes(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "lots", "64 M", "64MB", "64mb", "Mi", "1,5G", "0x10", "1e", "1e1.5", "--1", "1Mi ", " 1", "٣M", "1_000", "1\n", "inf", "nan", "1e1234", "K", "1K", "."],
)  # fmt: skip
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity: write a number with a unit"):
        parse_quantity(text)
