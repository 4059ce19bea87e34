"""What an entry says of a request: who from where, about whom, on what it rested, and how it went."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from uuid import UUID

import pytest
from consent_examples import AT, RECORD, agreement, caller, consent, person, request

from adapters.models import Provenance
from audit.models import Receipt
from consent.decision import decide
from consent.models import UNKNOWN_SUBJECT, RepresentationFact, SubjectFacts
from consent.policy import build_policy
from gateway import evidence
from gateway.commands import receipt_headers, receipt_json

POLICY = build_policy((agreement(),), ())
MANDATE = UUID("01980000-0000-7000-8000-000000000007")
GLASS = UUID("01980000-0000-7000-8000-000000000008")
RECEIPT = Receipt(GLASS, bytes(32), None)


@pytest.mark.parametrize(
    ("facts", "about"),
    [
        (person(), {"kind": "person", "minor": False}),
        (person(birth_date=date(2015, 1, 1)), {"kind": "person", "minor": True}),
        (person(birth_date=None), {"kind": "person"}),
        (UNKNOWN_SUBJECT, {"kind": "person"}),
    ],
)
def test_an_entry_says_of_its_person_what_is_known(facts: SubjectFacts, about: dict[str, object]) -> None:
    decision = decide(request(), facts, POLICY)
    entry = evidence.decided("disclosure.denied", request(), decision, subject=facts.subject, facts=facts)
    assert entry.groups["subject"] == about
    assert entry.groups["what"]["persons"] == 1


def test_an_entry_about_nobody_has_no_person_and_one_about_somebody_says_so() -> None:
    nobody = evidence.entry("log.read", "done", at=AT, policy_version="none")
    assert "subject" not in nobody.groups
    somebody = evidence.entry("consent.read", "done", at=AT, policy_version="none", subject=GLASS)
    assert somebody.groups["subject"] == {"kind": "person"}


def test_a_release_on_consent_names_its_scope_and_by_which_mandate_it_was_given() -> None:
    mandate = RepresentationFact(id=MANDATE, representative=GLASS, kind="parent", valid_from=consent().given_at)
    facts = person(birth_date=date(2015, 1, 1), consents=(consent(representation=MANDATE),), representations=(mandate,))
    asked = request(basis="consent")
    decision = decide(asked, facts, POLICY)
    entry = evidence.decided("disclosure.released", asked, decision, subject=facts.subject, facts=facts)
    assert entry.groups["why"]["consent"] == str(RECORD)
    assert entry.groups["why"]["consent_scope_sha256"] == agreement().scope_sha256().hex()
    assert entry.groups["subject"] == {"kind": "person", "minor": True, "representative": str(MANDATE)}


def test_labels_are_those_of_what_left_and_a_permit_names_its_emergency() -> None:
    decision = decide(request(), person(), POLICY)
    entry = evidence.decided("x.y", request(), decision, subject=None, facts=person(), emergency=GLASS)
    assert entry.groups["what"]["labels"] == ["identifying"]
    assert entry.groups["decision"]["emergency"] == str(GLASS)
    denied = decide(request(purpose="public-benefit"), person(), POLICY)
    nothing = evidence.decided("x.y", request(), denied, subject=None, facts=person())
    assert "labels" not in nothing.groups["what"]


def test_an_actor_is_named_with_address_and_what_its_token_is_bound_to() -> None:
    assert {"address", "bound_to", "pilot"}.isdisjoint(evidence.actor(caller()))
    seen = evidence.actor(caller(address="192.0.2.7", bound_to="aGFzaA", pilot=True))
    assert (seen["address"], seen["bound_to"], seen["pilot"]) == ("192.0.2.7", "aGFzaA", True)


def test_a_call_is_told_with_its_protocol_and_the_ids_of_our_own_message() -> None:
    made = Provenance("a", "IPS", datetime(2026, 1, 1, tzinfo=UTC), b"\x01", 5, 2, message_id="m-1", signature=b"\x02")
    said = evidence.told(made, "soap")
    assert (said["protocol"], said["answer_sha256"]) == ("soap", "01")
    assert (said["message_id"], said["signature_sha256"]) == ("m-1", "02")
    taken = evidence.told(replace(made, register="a.csv", message_id="", signature=None), "file")
    assert (taken["protocol"], taken["register"]) == ("register", "a.csv")
    assert {"message_id", "signature_sha256"}.isdisjoint(taken)


def test_a_receipt_says_the_same_in_json_in_a_header_and_to_the_other_institution() -> None:
    shown = receipt_json(RECEIPT)
    assert shown == {"entry_id": str(GLASS), "leaf_hash": "00" * 32, "proof": f"/audit/log/proof/{GLASS}"}
    written = f"entry_id={GLASS};leaf={'00' * 32};proof="
    assert receipt_headers(shown) == {"X-SIIS-Receipt": f"{written}/audit/log/proof/{GLASS}"}
    # A command remembered from before receipts had an address.
    assert receipt_headers({"entry_id": str(GLASS), "leaf_hash": "00" * 32}) == receipt_headers(shown)
    handed = evidence.to_hand_over(RECEIPT, "https://siis.example")
    assert str(handed) == f"{written}https://siis.example/audit/log/proof/{GLASS}"
    assert receipt_headers(None) == {}
