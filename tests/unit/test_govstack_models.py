"""Our agreements and consents in the words of the Consent building block, and what may be signed and called."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from consent_examples import AT, PERSON, RECORD, agreement

from consent.agreement_life import History, Version
from consent.models import AgreedBasis
from gateway.errors import BadRequest
from gateway.standards.govstack import models
from gateway.standards.govstack.agreements import Shown
from gateway.standards.govstack.revisions import Revision, revision_json
from schemas.canonical import sha256
from schemas.codes import code_list

PAYLOAD = models.verification_payload(agreement(), "ab" * 32, PERSON, opt_in=True, text=("1", "es"))


def test_every_legal_basis_has_a_word_of_theirs_and_the_way_back() -> None:
    assert models.LAWFUL_BASES.keys() == code_list("legal-bases").keys()
    assert all(models.our_basis(word) == code for code, word in models.LAWFUL_BASES.items())


@pytest.mark.parametrize("word", ["contract", "legitimate_interest", "official-authority", ""])
def test_a_basis_that_frees_no_public_body_is_refused_with_those_that_do(word: str) -> None:
    with pytest.raises(BadRequest) as caught:
        models.our_basis(word)
    assert set(caught.value.allowed) == set(models.LAWFUL_BASES.values())


def test_an_agreement_that_rests_on_consent_among_others_is_shown_as_one_to_consent_to() -> None:
    assert models.lawful_basis(agreement()) == "consent"
    duty = agreement(bases=(AgreedBasis("legal-obligation", "Ley"), AgreedBasis("official-authority", "Decreto")))
    assert models.lawful_basis(duty) == "legal_obligation"


@pytest.mark.parametrize(
    ("status", "active", "name"),
    [
        ("draft", False, "Draft"),
        ("signed", False, "Draft"),
        ("active", True, "Complete"),
        ("expired", False, "Complete"),
    ],
)
def test_the_lifecycle_is_that_of_the_agreement(status: Any, active: bool, name: str) -> None:
    told = models.data_agreement_json(agreement(status=status), dpia="", policy=None, signature=None)
    assert (told["active"], told["lifecycle"]) == (active, {"id": status, "name": name})
    assert told["forgettable"] is False


def test_attributes_carry_the_labels_as_sensitivity() -> None:
    health = agreement(datasets={"health-controls": frozenset({"controls"})}, labels=frozenset({"health"}))
    [attribute] = models.attributes_json(health)
    assert (attribute["name"], attribute["category"], attribute["sensitivity"]) == (
        "controls",
        "health-controls",
        "health",
    )


def test_what_a_person_signs_names_the_sensitive_classes_and_the_text_they_read() -> None:
    both = agreement(labels=frozenset({"identifying", "health", "pregnancy"}))
    signed = json.loads(models.verification_payload(both, "ab" * 32, PERSON, opt_in=True, text=("3", "gn")))
    assert (signed["sensitiveClasses"], signed["textVersion"], signed["language"]) == (
        ["health", "pregnancy"],
        "3",
        "gn",
    )


def test_a_prepared_signature_is_taken_once_it_is_signed() -> None:
    ready = models.unsigned(PAYLOAD, at="2026-06-01T00:00:00+00:00", asked={"verificationMethod": "ES256"})
    assert ready["verificationPayloadHash"] == sha256(PAYLOAD.encode()).hex()
    with pytest.raises(BadRequest):
        models.signed(PAYLOAD, ready)
    kept = models.signed(PAYLOAD, {**ready, "signature": "MEUC", "verificationSignedBy": "clave-1", "id": "x"})
    assert kept["signature"] == "MEUC"
    assert "id" not in kept


@pytest.mark.parametrize("state", ["refused", "withdrawn", "revoked", "invalidated", "expired"])
def test_only_a_given_consent_is_opted_in_and_one_only_asked_says_neither(state: str) -> None:
    assert models.answer_of(state) is False
    assert models.answer_of("given") is True
    assert models.answer_of("requested") is None


def revision(number: int, at: datetime) -> Revision:
    before = None if number == 1 else bytes([number - 1])
    return Revision(UUID(int=number), "Policy", "x", number, "{}", bytes([number]), before, at, None, None)


def test_a_revision_names_the_one_before_and_the_one_after() -> None:
    chain = [revision(number, AT) for number in (1, 2, 3)]
    first, middle, last = (revision_json(chain, each) for each in chain)
    assert "predecessorHash" not in first
    assert (middle["predecessorHash"], middle["successor"]["id"]) == (first["serializedHash"], last["id"])
    assert "successor" not in last
    assert revision_json(chain) == last


def test_a_record_is_under_the_revision_its_version_had_at_that_time() -> None:
    days = [AT + timedelta(days=day) for day in range(4)]
    versions = [Version(agreement=agreement(version=number), by=None, at=AT) for number in (1, 2, 2, 3)]
    shown = Shown(
        history=History(versions=(versions[0], versions[1], versions[3]), signatures=()),
        extras=[],
        revisions=[revision(number, at) for number, at in enumerate(days, 1)],
        versions=versions,
    )
    assert [shown.revision_of(2, at).number for at in days] == [2, 2, 3, 3]
    assert shown.revision_of(1, datetime(2030, 1, 1, tzinfo=UTC)).number == 1


def test_a_draft_has_an_empty_id_and_the_hash_of_its_revision() -> None:
    found = {"id": str(RECORD), "serializedHash": "ab"}
    told = models.consent_record_json(None, subject=PERSON, agreement={}, revision=found, signature=None, opt_in=True)
    assert (told["id"], told["dataAgreementRevisionHash"], told["state"]) == ("", "ab", "unsigned")
