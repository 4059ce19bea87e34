"""What is hashed and what is hidden: the envelope tells nothing personal, and every byte of an entry counts."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest

from audit.envelope import GENESIS, Link, Row, SubjectKey, finish, open_detail, read_envelope, seal, terms_digest
from audit.errors import LogBroken
from audit.models import LOG_SUBJECT, Entry
from audit.verify import leaf_hash
from audit.walk import StoredEntry, examine
from schemas.canonical import canonical_json
from schemas.errors import DecryptionError

KEY = SubjectKey(uuid4(), os.urandom(32))
GROUPS: dict[str, dict[str, Any]] = {
    "actor": {"institution": "MDS", "user": "Ña Ramona Núñez", "roles": ["operadora"], "assurance": 2},
    "subject": {"cedula": "4123456", "minor": False},
    "why": {"purpose": "protection", "norm": 'Ley "4087/2011"'},
}


def an_entry(**changes: Any) -> Entry:
    values = {
        "at": datetime(2026, 10, 13, 14, 5, 6, 7, tzinfo=UTC),
        "type": "disclosure.permitted",
        "outcome": "permit",
        "policy_version": "2026.1",
        "subject": uuid4(),
        "correlation": "0af7651916cd43dd8448eb211c80319c",
        "groups": GROUPS,
    }
    return Entry(**{**values, **changes})


def a_row(entry: Entry) -> Row:
    return finish(seal(entry, KEY, "gateway-1", bytes(32)), Link(3, 41, GENESIS))


def as_stored(row: Row) -> StoredEntry:
    entry = row.sealed.entry
    at = f"AD {entry.at:%Y-%m-%dT%H:%M:%S.%f}Z"
    pseudonym = None if row.sealed.pseudonym is None else str(row.sealed.pseudonym)
    copies = (entry.type, entry.outcome, at, pseudonym, row.link.slot, row.link.counter)
    return StoredEntry(str(entry.id), row.envelope, row.link.leaf, row.sealed.detail, *copies, row.sealed.terms)


def test_the_envelope_says_what_the_design_says_and_nothing_else() -> None:
    entry = an_entry()
    row = a_row(entry)
    said = json.loads(row.envelope)
    assert {name: said[name] for name in ("version", "id", "at", "type", "outcome", "recorder", "policy_version")} == {
        "version": 2,
        "id": str(entry.id),
        "at": "2026-10-13T14:05:06.000007Z",
        "type": "disclosure.permitted",
        "outcome": "permit",
        "recorder": "gateway-1",
        "policy_version": "2026.1",
    }
    assert said["correlation"] == entry.correlation
    assert said["subject"] == str(KEY.pseudonym)
    assert said["writer"] == {"slot": 3, "counter": 42, "previous": base64.b64encode(GENESIS).decode()}
    assert said["detail_sha256"] == base64.b64encode(hashlib.sha256(row.sealed.detail).digest()).decode()
    assert said["commitments"].keys() == GROUPS.keys()
    assert said["terms_sha256"] == terms_digest(row.sealed.terms)
    assert len(said) == 13
    assert row.envelope == canonical_json(said)
    assert row.link == Link(3, 42, leaf_hash(row.envelope))


def test_nothing_of_the_person_is_in_the_stored_bytes() -> None:
    entry = an_entry()
    row = a_row(entry)
    for secret in (b"4123456", "Núñez".encode(), b"Ramona", str(entry.subject).encode(), b"MDS", b"operadora"):
        assert secret not in row.envelope + row.sealed.detail


def test_the_same_group_is_committed_to_differently_each_time() -> None:
    one, other = (json.loads(a_row(an_entry()).envelope)["commitments"] for _ in range(2))
    assert one.keys() == other.keys()
    assert not set(one.values()) & set(other.values())


def test_the_detail_opens_to_the_groups_and_only_with_the_key() -> None:
    row = a_row(an_entry())
    envelope = read_envelope(row.envelope)
    assert open_detail(envelope, row.sealed.detail, KEY.key) == GROUPS
    with pytest.raises(DecryptionError):
        open_detail(envelope, row.sealed.detail, os.urandom(32))


def test_a_detail_moved_to_another_entry_does_not_open() -> None:
    one, other = a_row(an_entry()), a_row(an_entry())
    with pytest.raises(DecryptionError):
        open_detail(read_envelope(one.envelope), other.sealed.detail, KEY.key)


def test_a_detail_other_than_committed_to_is_not_believed() -> None:
    row = a_row(an_entry())
    envelope = read_envelope(row.envelope)
    envelope["commitments"]["why"] = envelope["commitments"]["actor"]
    with pytest.raises(LogBroken):
        open_detail(envelope, row.sealed.detail, KEY.key)


def test_an_entry_about_nobody_has_no_pseudonym() -> None:
    row = a_row(an_entry(subject=None, groups={}))
    assert row.sealed.pseudonym is None
    assert json.loads(row.envelope)["subject"] is None
    assert open_detail(read_envelope(row.envelope), row.sealed.detail, KEY.key) == {}


def test_every_byte_of_envelope_leaf_and_detail_counts() -> None:
    stored = as_stored(a_row(an_entry()))
    assert examine(stored).wrong is None
    for column in ("envelope", "leaf", "detail"):
        data: bytes = getattr(stored, column)
        for place in range(len(data)):
            changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
            assert examine(stored._replace(**{column: changed})).wrong is not None, (column, place)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", "5d3d664b-86a8-4457-954a-b6dfbe1b148d"),
        ("type", "disclosure.denied"),
        ("outcome", "deny"),
        ("at", "AD 2026-10-13T14:05:06.000008Z"),
        ("at", "BC 2026-10-13T14:05:06.000007Z"),
        ("at", None),
        ("pseudonym", None),
        ("pseudonym", "5d3d664b-86a8-4457-954a-b6dfbe1b148d"),
        ("slot", 4),
        ("counter", 43),
        ("terms", []),
        ("terms", ["type=other"]),
    ],
)
def test_every_copied_column_is_held_to_the_envelope(column: str, value: object) -> None:
    assert examine(as_stored(a_row(an_entry()))._replace(**{column: value})).wrong is not None


@pytest.mark.parametrize(
    "envelope",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"writer":[]}',
        b'{"writer":{"slot":[],"counter":{},"previous":1},"id":5,"type":1,"outcome":1,"at":1,"subject":1,'
        b'"detail_sha256":1}',
        b'{"writer":{"slot":"x","counter":"y","previous":1},"id":"00000000-0000-0000-0000-000000000001","type":1,'
        b'"outcome":1,"at":1,"subject":1,"detail_sha256":1}',
    ],
)
def test_envelopes_of_any_shape_are_reported_not_stumbled_over(envelope: bytes) -> None:
    stored = as_stored(a_row(an_entry()))._replace(envelope=envelope, leaf=leaf_hash(envelope))
    seen = examine(stored)
    assert seen.wrong is not None
    assert isinstance(seen.slot, int)
    assert UUID(seen.id)


@pytest.mark.parametrize("value", [1.5, {"deep": [{"x": 0.1}]}, float("nan")])
def test_floating_point_numbers_are_refused(value: object) -> None:
    with pytest.raises(TypeError):
        seal(an_entry(groups={"what": {"value": value}}), KEY, "gateway-1")


def test_times_are_kept_in_utc() -> None:
    local = datetime(2026, 10, 13, 11, 5, tzinfo=timezone(timedelta(hours=-3)))
    assert json.loads(a_row(an_entry(at=local)).envelope)["at"] == "2026-10-13T14:05:00.000000Z"


@pytest.mark.parametrize(
    "wrong",
    [
        {"at": datetime(2026, 10, 13)},
        {"type": "Disclosure Of 4123456"},
        {"type": "disclosure"},
        {"outcome": "maybe"},
        {"policy_version": "two words"},
        {"correlation": "4123456"},
        {"correlation": "María González"},
        {"groups": {"person": {}}},
        {"subject": LOG_SUBJECT},
    ],
)
def test_what_could_carry_a_person_into_the_clear_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="entry:") as raised:
        an_entry(**wrong)
    assert "4123456" not in str(raised.value)
