"""The converters that files of institutions need: each gives one form, and names the rule a value breaks."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.converters import CONVERTERS
from adapters.files import wording
from adapters.mapping import FieldTable, compile_field


def read(through: list[str], value: Any, **spec: Any) -> Any:
    mapped = FieldTable([compile_field("field", {"from": "a", "through": through, **spec})]).read({"a": value})
    return mapped.problems[0][1] if mapped.problems else mapped.values.get("field")


@pytest.mark.parametrize(
    ("through", "value", "expected"),
    [
        (["date-dmy-loose"], "1/2/1980", "1980-02-01"),
        (["date-dmy-loose"], "01-02-1980", "1980-02-01"),
        (["date-dmy-loose"], "24/06/2019 09:55:53", "2019-06-24"),
        (["date-ymd"], "19800201", "1980-02-01"),
        (["date-ymd"], "2018/03/31", "2018-03-31"),
        (["date-time"], "2026-11-22T08:30:00-03:00", "2026-11-22T08:30:00-03:00"),
        (["date-time"], "2026-11-22T11:30Z", "2026-11-22T11:30Z"),
        (["date-time"], "2026-11-22", "2026-11-22"),
        (["month-year"], "JUNIO/2017", "2017-06"),
        (["month-year"], "setiembre 2017", "2017-09"),
        (["month-year"], "6/2017", "2017-06"),
        (["month-year"], "2017-6", "2017-06"),
        (["date-dmy", "not-future"], "01/01/2020", "2020-01-01"),
        (["month-year", "not-future"], "01/2020", "2020-01"),
        (["integer"], "-42", -42),
        (["integer"], "0", 0),
        (["integer"], 7, 7),
        (["thousand-dots", "integer"], "1.234.567", 1234567),
        (["thousand-dots"], "1234567", "1234567"),
        (["thousand-dots", "cedula"], "4.123.456", "4123456"),
        (["decimal"], "-25.30066", "-25.30066"),
        (["decimal-comma"], "1.234.567,50", "1234567.50"),
        (["decimal-comma"], "1234,5", "1234.5"),
        (["boolean"], True, True),
        (["boolean"], "FALSE", False),
        (["boolean-si-no"], "Sí", True),
        (["boolean-si-no"], "N", False),
        (["ruc"], "80009735-1", "80009735-1"),
        (["mobile"], "0981 123-456", "595981123456"),
        (["mobile"], "+595 981 123 456", "595981123456"),
        (["mobile"], "(0971)123456", "595971123456"),
        (["email"], "ana.benitez@salud.example.py", "ana.benitez@salud.example.py"),
        (["pad2"], "7", "07"),
        (["pad4"], "0116", "0116"),
        (["strip-zeros"], "00123", "123"),
        (["strip-zeros"], "000", "0"),
        (["no-value"], " S/D ", None),
        (["no-value", "month-year"], "No tiene", None),
        (["before-comma", "strip"], "BENITEZ ROJAS, ANA", "BENITEZ ROJAS"),
        (["after-comma", "strip"], "BENITEZ ROJAS, ANA", "ANA"),
        (["after-comma", "strip"], "EMPRESA SA", None),
    ],
)
def test_a_converter_gives(through: list[str], value: Any, expected: Any) -> None:
    found = read(through, value)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("through", "value", "what"),
    [
        (["date-dmy-loose"], "1/2-1980", "not a d/m/yyyy date"),
        (["date-dmy-loose"], "31/2/1980", "no such day in the calendar"),
        (["date-dmy"], "1/02/19800", "not a dd/mm/yyyy date"),
        (["date-dmy"], "W0/W0/2020", "not a dd/mm/yyyy date"),
        (["date-ymd"], "1980/0201", "not a yyyymmdd date"),
        (["date-ymd"], "19801301", "no such day in the calendar"),
        (["date-time"], "2026-11-22T08:30:00", "not a date and time with its offset"),
        (["date-time"], "2026-11-31T08:30:00Z", "not a date and time with its offset"),
        (["date-time"], "2026-11-22, con Ana", "not a date and time with its offset"),
        (["month-year"], "13/2017", "not a month and year"),
        (["month-year"], "JUNIEMBRE/2017", "not a month and year"),
        (["date-dmy", "not-future"], "01/01/2999", "in the future"),
        (["month-year", "not-future"], "01/2999", "in the future"),
        (["integer"], "1.0", "not a whole number"),
        (["integer"], "١", "not a whole number"),
        (["integer"], True, "not a text"),
        (["integer"], 1.0, "not a text"),
        (["boolean"], 1, "not a text"),
        (["boolean"], "1", "neither true nor false"),
        (["boolean-si-no"], "quizás", "neither sí nor no"),
        (["thousand-dots"], "1.23", "not a whole number with dots for thousands"),
        (["decimal"], "1,5", "not a number with a decimal point"),
        (["decimal-comma"], "1.23,5", "not a number with a decimal comma"),
        (["ruc"], "80009735-2", "not a RUC with its check digit"),
        (["mobile"], "021 123 456", "not a mobile number of Paraguay"),
        (["email"], "ana@@salud.py", "not an e-mail address"),
        (["email"], "ana@salud", "not an e-mail address"),
        (["pad2"], "123", "not a code of that many digits"),
        (["pad2"], "a", "not a code of that many digits"),
    ],
)
def test_a_value_that_does_not_fit_is_named_by_its_rule(through: list[str], value: Any, what: str) -> None:
    assert read(through, value) == what


@pytest.mark.parametrize("text", ["E-mail: nobody", "a" * 300 + "@b.py", "@" * 200, "a@" + "b-" * 120 + ".py"])
def test_no_text_takes_long_to_be_no_address(text: str) -> None:
    assert read(["email"], text) == "not an e-mail address"


def test_zero_and_false_are_values() -> None:
    assert read(["integer"], "0", required=True) == 0
    assert read(["boolean"], False, required=True) is False


def test_a_check_digit_is_joined_from_its_column() -> None:
    field = compile_field("ruc", {"from": "join('-', [base, dv])", "through": ["ruc"]})
    assert FieldTable([field]).read({"base": "80009735", "dv": "1"}).values == {"ruc": "80009735-1"}
    assert FieldTable([field]).read({"base": "80009735"}).problems == (("ruc", "of another type than the contract's"),)


@pytest.mark.parametrize(
    "spec",
    [
        {"through": ["integer", "strip"]},
        {"through": ["integer", "boolean"]},
        {"through": ["boolean"], "codes": {"true": "yes"}},
        {"through": ["not-future"]},
        {"through": ["date-dmy", "strip", "not-future"]},
    ],
)
def test_steps_in_an_order_that_means_nothing_are_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"último paso|después de una fecha"):
        compile_field("field", {"from": "a", **spec})


def test_every_rule_of_a_converter_can_be_said_to_people() -> None:
    noise = ["x", "31/02/2020", "2020-02-31", "20200231", "01/01/2999", "99/9999", "2020-99-99T"]
    said = set()
    for name in CONVERTERS:
        steps = ["date-dmy", name] if name == "not-future" else [name]
        for value in noise:
            found = FieldTable([compile_field("a", {"from": "a", "through": steps})]).read({"a": value})
            said |= {what for _field, what in found.problems}
    assert len(said) > 15
    assert {what for what in said if wording.say(what) == what} == set()
