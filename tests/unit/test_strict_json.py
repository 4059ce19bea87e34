"""JSON at the door is read strictly; the published must-reject texts are refused and the must-accept ones taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import SchemaError
from schemas.validation import is_valid, parse_json, schema, validate

MESSAGES = sorted(path.name.removesuffix(".schema.json") for path in Path("schemas/messages").glob("*.schema.json"))
# The suite's must-accept texts that we refuse on purpose: repeated keys, NUL and lone surrogates (stricter).
STRICTER = {
    "y_object_duplicated_key.json",
    "y_object_duplicated_key_and_value.json",
    "y_object_escaped_null_in_key.json",
    "y_string_null_escape.json",
}


def test_the_published_suite_gets_its_verdicts(samples: Path) -> None:
    seen = 0
    for path in sorted((samples / "attack" / "json-parsing").glob("[yn]_*.json")):
        seen += 1
        if path.name.startswith("n_") or path.name in STRICTER:
            with pytest.raises(SchemaError):
                parse_json(path.read_bytes())
        else:
            parse_json(path.read_bytes())
    assert seen > 100


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (b'{"a":1,"a":2}', "duplicate-key"),
        (b'["\\ud800"]', "surrogate"),
        (b'{"\\udc00":1}', "surrogate"),
        (b'["\\u0000"]', "nul"),
        (b"[" * 40 + b"]" * 40, "depth"),
        (b'{"a":NaN}', "number"),
        (b"\xff\xfe", "utf-8"),
        (b"", "json"),
        (b'{"a":1}{"b":2}', "json"),
        (b"1" * 5000, "json"),
    ],
)
def test_broken_texts_are_named(body: bytes, rule: str) -> None:
    with pytest.raises(SchemaError) as refused:
        parse_json(body)
    assert [violation.rule for violation in refused.value.violations] == [rule]


def test_brackets_inside_strings_are_no_depth() -> None:
    assert parse_json(b'["' + b"[" * 100 + b'\\"' + b"{" * 100 + b'"]')


def test_a_surrogate_pair_is_one_character() -> None:
    assert parse_json(b'["\\ud83d\\ude00"]') == ["\U0001f600"]


def test_the_31st_of_february_is_refused_with_its_field() -> None:
    with pytest.raises(SchemaError) as refused:
        validate("counter-referral", {"event": "accept", "message_id": "1", "occurred_on": "2026-02-31"})
    assert [(v.pointer, v.rule) for v in refused.value.violations] == [("/occurred_on", "format")]


def test_missing_and_unknown_fields_are_named() -> None:
    with pytest.raises(SchemaError) as refused:
        validate("disclosure-request", {"dataset": "identity", "extra": 1})
    found = {(violation.pointer, violation.rule) for violation in refused.value.violations}
    assert {("/subject", "required"), ("/fields", "required"), ("/extra", "additionalProperties")} <= found


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("instance", [None, [], "x", 1, {}, {"subject": 1}], ids=repr)
def test_both_validators_give_the_same_verdict(name: str, instance: object) -> None:
    from jsonschema import Draft202012Validator, FormatChecker

    slow = Draft202012Validator(schema(name), format_checker=FormatChecker())
    assert is_valid(name, instance) == slow.is_valid(instance)
