"""Identifiers, keys, permits and code lists: the ground floor."""

from __future__ import annotations

import dataclasses
import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import crypto
from schemas.canonical import canonical_json
from schemas.codes import code_list, require_code
from schemas.errors import DecryptionError, InvalidIdentifier, UnknownCode
from schemas.ids import parse_cedula, parse_ruc, parse_uuid, ruc_check_digit, uuid7
from schemas.permit import Permit, issue
from schemas.text import _, set_language


def test_our_ids_are_version_7_unique_and_in_order() -> None:
    made = [uuid7() for _number in range(5000)]
    assert made == sorted(set(made))
    assert all(value.version == 7 and value.variant == uuid.RFC_4122 for value in made)


@pytest.mark.parametrize(
    ("text", "key"), [("4123456", "4123456"), ("004123456", "4123456"), ("0012345a", "12345A"), (" 99 ", "99")]
)
def test_a_cedula_has_one_key(text: str, key: str) -> None:
    assert parse_cedula(text) == key


@pytest.mark.parametrize("text", ["", "0", "4.123.456", "12x", "1" * 30, "123456789", "-5", "12A3", "٤١٢"])
def test_what_is_no_cedula_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(InvalidIdentifier) as refused:
        parse_cedula(text)
    assert not text or text not in str(refused.value)


def test_the_check_digit_of_a_ruc() -> None:
    assert ruc_check_digit("88888801") == 5
    assert parse_ruc("88888801-5") == "88888801-5"
    with pytest.raises(InvalidIdentifier):
        parse_ruc("88888801-6")


@pytest.mark.parametrize(
    "text", ["", "x", "{019a0000-0000-7000-8000-000000000000}", "019a00000000700080000000000000ab"]
)
def test_only_the_canonical_form_of_a_uuid_is_read(text: str) -> None:
    with pytest.raises(InvalidIdentifier):
        parse_uuid(text)


@given(st.binary(max_size=200), st.binary(max_size=40), st.integers(min_value=0))
def test_a_sealed_field_opens_only_unchanged_and_in_its_place(plain: bytes, context: bytes, at: int) -> None:
    key = crypto.new_key()
    sealed = crypto.encrypt(key, plain, context)
    assert crypto.decrypt(key, sealed, context) == plain
    place = at % len(sealed)
    changed = sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
    for wrong in ((key, changed, context), (key, sealed, context + b"x"), (crypto.new_key(), sealed, context)):
        with pytest.raises(DecryptionError):
            crypto.decrypt(*wrong)


def test_a_blind_index_depends_on_system_value_and_key() -> None:
    key = crypto.new_key()
    index = crypto.blind_index(key, "cedula", "12345A")
    assert index == crypto.blind_index(key, "cedula", "12345a")
    others = {crypto.blind_index(key, "ruc", "12345A"), crypto.blind_index(crypto.new_key(), "cedula", "12345A")}
    assert index not in others
    assert len(index) == 16


def test_nobody_makes_a_permit_by_hand() -> None:
    with pytest.raises(TypeError):
        Permit(
            decision_id=uuid7(),
            action="disclosure.fetch",
            requester="MDS",
            holder="PN-IDENT",
            dataset="identity",
            subject=None,
            released=frozenset(),
            purpose="public-benefit",
            issued_at=datetime.now(UTC),
            _seal=object(),
        )


def test_a_permit_cannot_be_copied_into_a_wider_one() -> None:
    permit = issue(
        decision_id=uuid7(),
        action="disclosure.fetch",
        requester="MDS",
        holder="PN-IDENT",
        dataset="identity",
        subject=None,
        released=frozenset({"cedula"}),
        purpose="public-benefit",
        issued_at=datetime.now(UTC),
    )
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(permit, released=frozenset({"cedula", "profession"}))


def test_canonical_json_is_one_byte_string_and_refuses_floats() -> None:
    assert canonical_json({"b": 1, "a": ["ñ"]}) == '{"a":["ñ"],"b":1}'.encode()
    with pytest.raises(TypeError):
        canonical_json({"a": [1.5]})


def test_unknown_codes_are_refused() -> None:
    with pytest.raises(UnknownCode):
        require_code("purposes", "curiosity")


@pytest.mark.parametrize(
    "name",
    [
        "institutions",
        "datasets",
        "purposes",
        "legal-bases",
        "life-cycle",
        "services",
        "reasons",
        "outcomes",
        "referral-events",
        "denial-reasons",
        "withheld-reasons",
        "roles",
        "scopes",
        "labels",
        "treatments",
        "obligations",
        "emergency-reasons",
        "consent-problems",
        "consent-channels",
        "consent-end-reasons",
        "representation-end-reasons",
        "notices",
        "rights",
        "rights-outcomes",
        "breach-kinds",
    ],
)
def test_every_code_has_a_spanish_and_an_english_label(name: str) -> None:
    for code, properties in code_list(name).items():
        assert properties["es"], code
        assert properties["en"], code


def test_fields_roles_and_compartments_use_labels_and_treatments_that_exist() -> None:
    labels, treatments = code_list("labels"), code_list("treatments")
    for dataset, spec in code_list("datasets").items():
        for field, told in spec["fields"].items():
            assert told["label"] in labels, (dataset, field)
            assert told.get("reduced", "keep") in treatments, (dataset, field)
    for institution, roles in code_list("compartments").items():
        assert institution in code_list("institutions")
        for role, held in roles.items():
            assert role in code_list("roles")
            assert all(labels[label]["compartment"] for label in held), (institution, role)
    for label in labels.values():
        assert set(label.get("bases", ())) <= set(code_list("legal-bases"))
    for role in code_list("roles").values():
        assert {*role.get("granted_by", ()), *role.get("excludes", ())} <= set(code_list("roles"))


def test_services_belong_to_institutions_and_categories_that_exist() -> None:
    for code, spec in code_list("services").items():
        assert spec["institution"] in code_list("institutions"), code
        assert set(spec["categories"]) <= set(code_list("life-cycle")), code


def test_texts_are_spanish_until_english_is_chosen() -> None:
    assert _("No se encontró") == "No se encontró"
    with pytest.raises(ValueError, match="language"):
        set_language("gn")
