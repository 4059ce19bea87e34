"""The table of fields: what each converter does, and that a value that does not fit is named, never guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapters.converters import CONVERTERS
from adapters.mapping import FieldTable, Mapped, compile_field

SCHEMA = Path(__file__).resolve().parents[2] / "schemas" / "manifest.schema.json"


def read(spec: Any, document: Any) -> Mapped:
    return FieldTable([compile_field("field", spec)]).read(document)


@pytest.mark.parametrize(
    ("through", "value", "expected"),
    [
        (["strip"], "  a ", "a"),
        (["upper"], "ñandú", "ÑANDÚ"),
        (["lower"], "ÑANDÚ", "ñandú"),
        (["collapse-spaces"], " María \t del\r\n Carmen ", "María del Carmen"),
        (["no-control"], "Nu\x15ñez\x00\x85", "Nuñez"),
        (["no-control"], "Vy'a Pavẽ g̃uahẽ", "Vy'a Pavẽ g̃uahẽ"),
        (["date10"], "1980-02-29", "1980-02-29"),
        (["date10"], "1931-10-10T00:00:00-03:40", "1931-10-10"),
        (["date10"], "1980-01-01T23:30:00-04:00", "1980-01-01"),
        (["date10"], "1980-01-01T00:00:00Z", "1980-01-01"),
        (["date10"], "1980-01-01 00:00:00.0", "1980-01-01"),
        (["date-dmy"], "29/02/2024", "2024-02-29"),
        (["to-dmy"], "2024-02-29", "29/02/2024"),
        (["cedula"], "04123456", "4123456"),
        (["cedula"], "0123456a", "123456A"),
        (["lower", "uuid"], "019A2B3C-4D5E-7F60-8A1B-2C3D4E5F6071", "019a2b3c-4d5e-7f60-8a1b-2c3d4e5f6071"),
        (["text"], 4123456, "4123456"),
        ([], "as it is ", "as it is "),
    ],
)
def test_a_converter_gives(through: list[str], value: Any, expected: str) -> None:
    assert read({"from": "a", "through": through}, {"a": value}).values == {"field": expected}


@pytest.mark.parametrize(
    ("through", "value", "what"),
    [
        (["date10"], "1980-02-31T00:00:00-04:00", "no such day in the calendar"),
        (["date10"], "2023-02-29", "no such day in the calendar"),
        (["date10"], "01/02/1980", "not a date"),
        (["date10"], "1980-01-011", "not a date"),
        (["date10"], "1980-01", "not a date"),
        (["date10"], "١٩٨٠-٠١-٠١", "not a date"),
        (["date-dmy"], "31/02/2024", "no such day in the calendar"),
        (["date-dmy"], "2024-02-01", "not a dd/mm/yyyy date"),
        (["date-dmy"], "1/2/2024", "not a dd/mm/yyyy date"),
        (["cedula"], "4.123.456", "not a cédula"),
        (["uuid"], "42", "not a UUID"),
        ([], 4123456, "not a text"),
        ([], True, "not a text"),
        (["text"], True, "not a text"),
        (["text"], 1.5, "not a text"),
        ([], ["a"], "not a text"),
        ([], {"a": "b"}, "not a text"),
    ],
)
def test_a_value_that_does_not_fit_is_named_without_its_content(through: list[str], value: Any, what: str) -> None:
    mapped = read({"from": "a", "through": through}, {"a": value})
    assert mapped == Mapped({}, {}, (("field", what),))


def test_a_code_is_translated_and_kept_raw() -> None:
    spec = {"from": "sexo", "through": ["strip", "upper"], "codes": {"F": "female"}}
    assert read(spec, {"sexo": " f"}) == Mapped({"field": "female"}, {"field": " f"}, ())


def test_an_unknown_code_is_a_problem_unless_the_manifest_says_otherwise() -> None:
    spec = {"from": "a", "codes": {"1": "one"}}
    assert read(spec, {"a": "9"}).problems == (("field", "unknown code"),)
    assert read({**spec, "otherwise": "other"}, {"a": "9"}) == Mapped({"field": "other"}, {"field": "9"}, ())
    assert read({**spec, "otherwise": None}, {"a": "9"}) == Mapped({}, {"field": "9"}, ())


@pytest.mark.parametrize("document", [{}, {"a": None}, {"a": ""}, {"a": "  "}, None, [], "text"])
def test_an_absent_field_is_left_out_or_defaulted_or_missing(document: Any) -> None:
    assert read({"from": "a", "through": ["strip"]}, document) == Mapped({}, {}, ())
    assert read({"from": "a", "through": ["strip"], "default": "x"}, document).values == {"field": "x"}
    assert read({"from": "a", "through": ["strip"], "required": True}, document).problems == (("field", "missing"),)


def test_a_constant_stands_for_itself() -> None:
    assert read({"const": 100}, {}).values == {"field": 100}


def test_an_expression_finds_what_is_deeper() -> None:
    document = {"identifiers": [{"system": "cedula", "value": "1"}, {"system": "x", "value": "2"}]}
    assert read("identifiers[?system!='cedula'].value | [0]", document).values == {"field": "2"}
    assert read("identifiers[0].system", {"identifiers": []}).values == {}


def test_an_expression_over_another_type_is_a_problem() -> None:
    assert read("max(a)", {"a": "text"}).problems == (("field", "of another type than the contract's"),)


def test_a_wrong_expression_or_converter_is_refused_when_compiled() -> None:
    with pytest.raises(ValueError, match="JMESPath"):
        compile_field("field", "a..b")
    with pytest.raises(ValueError, match="guess"):
        compile_field("field", {"from": "a", "through": ["guess"]})


def test_the_schema_names_the_converters_there_are() -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert schema["$defs"]["converter"]["enum"] == sorted(CONVERTERS)
