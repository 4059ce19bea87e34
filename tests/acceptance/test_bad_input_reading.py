"""Whatever the bytes of a body are, reading them ends in a JSON value or in one rule; in this process, no house."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as some

from schemas.errors import SchemaError
from schemas.validation import UNREADABLE, parse_json

_JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(), inner, max_size=4),
    max_leaves=12,
)
_TEXT = some.text(alphabet=some.characters(exclude_categories=()), max_size=200)


@given(some.binary(max_size=200) | _TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")))
@settings(deadline=None)
def test_arbitrary_bytes_end_in_a_value_or_in_one_named_rule(body: bytes) -> None:
    read_or_refused(body)


@given(some.text(alphabet='[]{}",:0123456789.eE+-\\u\x00dDc tfn', max_size=60))
@settings(max_examples=300, deadline=None)
def test_texts_of_the_signs_of_json_do_too(text: str) -> None:
    read_or_refused(text.encode())


@given(_JSON, some.data())
@settings(deadline=None)
def test_json_with_some_bytes_spoiled_does_too(value: object, data: some.DataObject) -> None:
    body = bytearray(json.dumps(value, ensure_ascii=data.draw(some.booleans())).encode("utf-8", "surrogatepass"))
    for _time in range(data.draw(some.integers(0, 3))):
        place = data.draw(some.integers(0, len(body)))
        body[place : place + data.draw(some.integers(0, 2))] = data.draw(some.binary(max_size=3))
    read_or_refused(bytes(body))


def read_or_refused(body: bytes) -> None:
    """Hold the reader to its word: SchemaError and nothing else, or a value that can be written and read again."""
    try:
        value = parse_json(body)
    except SchemaError as error:
        refused = error
    else:
        assert parse_json(json.dumps(value, ensure_ascii=False).encode("utf-8")) == value
        return
    [violation] = refused.violations
    assert violation.rule in UNREADABLE
    assert violation.message
