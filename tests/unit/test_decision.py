"""What the decision permits, withholds and denies, and with which reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from consent_examples import AT, IDENTITY, PERSON, RECORD, agreement, caller, consent, person, request

from consent.decision import decide
from consent.models import (
    OBLIGATIONS,
    POLL,
    REFERRAL_FIELDS,
    REPLIES,
    REPLY_FIELDS,
    SEND,
    TAKE,
    UNKNOWN_SUBJECT,
    AgreedBasis,
    Agreement,
    Decision,
    Request,
    SubjectFacts,
)
from consent.policy import Policy, build_policy
from schemas.codes import code_list
from schemas.permit import Permit

SERVICE = agreement(code="S", holder="MDS", requester="UTGS", datasets={"service:tekopora": frozenset(REFERRAL_FIELDS)})
POLLING = agreement(code="P", holder="MDS", requester="UTGS", datasets={REPLIES: frozenset(REPLY_FIELDS)})
UTGS = caller(institution="UTGS", roles=frozenset({"system"}))
REFERRAL = request(action=SEND, caller=UTGS, holder="MDS", dataset="service:tekopora", fields=REFERRAL_FIELDS)
TAKING = agreement(requester="UTGS", roles=frozenset({"intake"}), channels=frozenset({"file"}))
INTAKE = caller(institution="UTGS", roles=frozenset({"intake"}))
TAKEN = request(action=TAKE, caller=INTAKE, channel="file")
POLLED = request(action=POLL, caller=UTGS, holder="MDS", dataset=REPLIES, fields=REPLY_FIELDS)


def policy(*agreements: Agreement, suspended: tuple[str, ...] = ()) -> Policy:
    return build_policy(agreements or (agreement(),), suspended)


def test_everything_agreed_is_released_with_a_permit_that_says_the_same() -> None:
    answer = decide(request(), person(), policy())
    assert answer.effect == "permit"
    assert answer.released == frozenset(IDENTITY)
    assert answer.withheld == {}
    assert (answer.reasons, answer.hides_subject) == ((), False)
    assert answer.agreement == ("A", 3)
    assert answer.norm == "Decreto 4775/2021"
    assert isinstance(answer.permit, Permit)
    assert answer.permit.decision_id == answer.id
    assert answer.permit.action == "disclosure.fetch"
    assert (answer.permit.requester, answer.permit.holder, answer.permit.dataset) == ("MDS", "PN-IDENT", "identity")
    assert (answer.permit.subject, answer.permit.released) == (PERSON, answer.released)
    assert (answer.permit.purpose, answer.permit.issued_at) == ("service-provision", AT)
    assert set(answer.obligations) <= OBLIGATIONS
    assert "audit-before-release" in answer.obligations
    assert answer.policy_version == policy().version


DENIALS: list[tuple[str, Request, SubjectFacts, Policy]] = [
    ("unknown-purpose", request(purpose="curiosity"), person(), policy()),
    ("unknown-basis", request(basis="because"), person(), policy()),
    ("party-suspended", request(), person(), policy(suspended=("MDS",))),
    ("party-suspended", request(), person(), policy(suspended=("PN-IDENT",))),
    ("role", request(caller=caller(roles=frozenset())), person(), policy()),
    ("role", request(caller=caller(roles=frozenset({"auditor"}))), person(), policy()),
    ("role", request(caller=caller(roles=frozenset({"supervisor"}))), person(), policy()),
    ("role", request(action="data.drop"), person(), policy()),
    ("role", request(on_behalf_of="MSPBS"), person(), policy(agreement(requester="MSPBS"))),
    ("role", replace(REFERRAL, action="disclosure.fetch"), person(), policy(SERVICE)),
    ("role", request(action=POLL, caller=caller(roles=frozenset({"system"}))), person(), policy()),
    ("role", request(action=SEND), UNKNOWN_SUBJECT, policy()),
    ("role", replace(TAKEN, caller=UTGS), UNKNOWN_SUBJECT, policy(TAKING)),
    ("role", replace(TAKEN, action="disclosure.fetch"), person(), policy(TAKING)),
    ("role", TAKEN, UNKNOWN_SUBJECT, policy(replace(TAKING, roles=frozenset({"operator", "system"})))),
    ("assurance", request(), person(), policy(agreement(minimum_assurance=2))),
    ("assurance", request(caller=caller(assurance=3)), person(), policy(agreement(minimum_assurance=2))),
    ("agreement", request(caller=caller(institution="MEC")), person(), policy()),
    ("agreement", request(dataset="birth-entry"), person(), policy()),
    ("agreement", request(agreement="B"), person(), policy()),
    ("agreement", request(channel="file"), person(), policy()),
    ("agreement", request(at=AT - timedelta(days=101)), person(), policy()),
    ("agreement", request(), person(), policy(agreement(valid_to=AT))),
    ("agreement", request(), person(), policy(agreement(status="suspended"))),
    ("agreement", request(), person(), policy(agreement(status="draft"))),
    ("purpose", request(purpose="public-benefit"), person(), policy()),
    ("basis", request(), person(), policy(agreement(bases=(AgreedBasis("consent", "norm"),)))),
    (
        "basis",
        request(basis="vital-interest"),
        person(),
        policy(agreement(bases=(AgreedBasis("vital-interest", "norm"),))),
    ),
    ("fields", request(fields=("profession",)), person(), policy()),
    ("fields", request(fields=()), person(), policy()),
    ("fields", request(), person(), policy(agreement(labels=frozenset({"economic"})))),
    ("unknown-subject", request(basis="consent"), UNKNOWN_SUBJECT, policy()),
    ("unknown-subject", REFERRAL, UNKNOWN_SUBJECT, policy(SERVICE)),
    ("consent", request(basis="consent"), person(), policy()),
    ("sealed", request(), person(sealed=True), policy()),
    ("objection", request(), person(objections=frozenset({"service-provision"})), policy()),
]


@pytest.mark.parametrize(("reason", "asked", "facts", "rules"), DENIALS)
def test_each_reason_denies_alone(reason: str, asked: Request, facts: SubjectFacts, rules: Policy) -> None:
    answer = decide(asked, facts, rules)
    assert (answer.effect, answer.permit, answer.released) == ("deny", None, frozenset())
    assert answer.reasons == (reason,)
    assert answer.hides_subject is code_list("denial-reasons")[reason]["subject"]
    assert (answer.norm, answer.consent, answer.obligations) == (None, None, ())


def test_every_published_denial_reason_is_reached() -> None:
    assert {reason for reason, *_ in DENIALS} == set(code_list("denial-reasons"))


def test_reasons_about_the_request_are_given_together_and_say_nothing_of_the_person() -> None:
    asked = request(purpose="curiosity", basis="because", caller=caller(roles=frozenset()))
    for facts in (person(), person(sealed=True), UNKNOWN_SUBJECT):
        answer = decide(asked, facts, policy(suspended=("PN-IDENT",)))
        assert answer.reasons == ("unknown-purpose", "unknown-basis", "party-suspended", "role")
        assert not answer.hides_subject


@pytest.mark.parametrize("basis", ["official-authority", "legal-obligation", "consent"])
def test_a_seal_overrides_every_basis(basis: str) -> None:
    answer = decide(request(basis=basis), person(sealed=True, consents=(consent(),)), policy())
    assert answer.reasons == ("sealed",)
    assert answer.permit is None


def test_suspension_of_the_mediating_institution_denies() -> None:
    platform = caller(institution="MITIC", roles=frozenset({"system", "intermediary"}))
    asked = request(caller=platform, on_behalf_of="MDS")
    assert decide(asked, person(), policy()).effect == "permit"
    assert decide(asked, person(), policy(suspended=("MITIC",))).reasons == ("party-suspended",)


def test_a_permit_for_another_names_the_institution_acted_for() -> None:
    platform = caller(institution="MITIC", roles=frozenset({"system", "intermediary"}))
    answer = decide(request(caller=platform, on_behalf_of="MDS"), person(), policy())
    assert answer.permit is not None
    assert answer.permit.requester == "MDS"


def test_a_verified_operator_keeps_its_assurance() -> None:
    asked = request(caller=caller(user="u", user_verified=True, assurance=2))
    assert decide(asked, person(), policy(agreement(minimum_assurance=2))).effect == "permit"
    assert decide(asked, person(), policy(agreement(minimum_assurance=3))).reasons == ("assurance",)


def test_the_start_of_validity_is_included_and_the_end_is_not() -> None:
    rules = policy(agreement(valid_from=AT, valid_to=AT + timedelta(seconds=1)))
    assert decide(request(at=AT), person(), rules).effect == "permit"
    assert decide(request(at=AT + timedelta(seconds=1)), person(), rules).reasons == ("agreement",)


def test_fields_outside_the_agreement_or_its_labels_are_withheld_with_the_true_reason() -> None:
    rules = policy(agreement(datasets={"identity": frozenset({"cedula", "profession"})}))
    answer = decide(request(fields=("cedula", "profession", "sex", "nonsense")), person(), rules)
    assert answer.effect == "permit_redacted"
    assert answer.released == frozenset({"cedula"})
    assert answer.withheld == {
        "profession": "label-not-covered",
        "sex": "not-in-agreement",
        "nonsense": "not-in-agreement",
    }
    assert answer.permit is not None
    assert answer.permit.released == frozenset({"cedula"})


def consented(**changes: object) -> Decision:
    return decide(request(basis="consent"), person(consents=(consent(**changes),)), policy())


def test_consent_in_force_releases_what_it_covers_and_is_cited() -> None:
    answer = consented(fields=frozenset({"cedula", "sex", "profession"}))
    assert answer.effect == "permit_redacted"
    assert answer.released == frozenset({"cedula", "sex"})
    assert set(answer.withheld.values()) == {"consent-scope"}
    assert answer.consent == RECORD
    assert answer.norm == "Ley 7593/2025"


def test_consent_is_not_cited_where_the_basis_is_another() -> None:
    assert decide(request(), person(consents=(consent(),)), policy()).consent is None


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "withdrawn"},
        {"state": "refused"},
        {"state": "expired"},
        {"agreement": "B"},
        {"purposes": frozenset({"public-benefit"})},
        {"fields": frozenset({"profession"})},
        {"expires_at": AT},
        {"given_at": AT + timedelta(seconds=1)},
    ],
)
def test_consent_that_does_not_cover_the_request_denies_as_if_not_found(changes: dict[str, object]) -> None:
    answer = consented(**changes)
    assert answer.reasons == ("consent",)
    assert answer.hides_subject


def test_consent_counts_from_the_instant_given_to_just_before_it_expires() -> None:
    assert consented(given_at=AT, expires_at=AT + timedelta(microseconds=1)).effect == "permit"


def test_withdrawal_flips_the_next_decision() -> None:
    given = person(consents=(consent(),))
    withdrawn = person(consents=(consent(state="withdrawn"),))
    asked, rules = request(basis="consent"), policy()
    assert decide(asked, given, rules).effect == "permit"
    assert decide(asked, withdrawn, rules).effect == "deny"


def test_only_the_newest_answer_under_the_agreement_counts() -> None:
    older = consent()
    newer = consent(state="withdrawn", given_at=AT - timedelta(days=1))
    for order in ((older, newer), (newer, older)):
        assert decide(request(basis="consent"), person(consents=order), policy()).reasons == ("consent",)


def test_of_two_answers_of_the_same_instant_the_refusal_counts() -> None:
    for order in ((consent(), consent(state="refused")), (consent(state="refused"), consent())):
        assert decide(request(basis="consent"), person(consents=order), policy()).reasons == ("consent",)


@pytest.mark.parametrize(
    ("facts", "effect"),
    [
        (person(birth_date=None), "deny"),
        (person(deceased=True), "deny"),
        (person(birth_date=date(2008, 6, 2)), "deny"),
        (person(birth_date=date(2008, 6, 1)), "permit"),
    ],
)
def test_only_a_living_known_adult_consents_alone(facts: SubjectFacts, effect: str) -> None:
    facts = replace(facts, consents=(consent(),))
    assert decide(request(basis="consent"), facts, policy()).effect == effect


def test_majority_begins_at_midnight_in_paraguay() -> None:
    facts = person(birth_date=date(2008, 6, 2), consents=(consent(),))
    midnight = datetime(2026, 6, 2, 3, 0, tzinfo=UTC)
    before = request(basis="consent", at=midnight - timedelta(seconds=1))
    assert decide(before, facts, policy()).effect == "deny"
    assert decide(replace(before, at=midnight), facts, policy()).effect == "permit"


def test_an_objection_yields_to_a_legal_obligation_only() -> None:
    facts = person(objections=frozenset({"service-provision"}), consents=(consent(),))
    effects = {basis: decide(request(basis=basis), facts, policy()).effect for basis in code_list("legal-bases")}
    assert effects == {
        "official-authority": "deny",
        "legal-obligation": "permit",
        "consent": "deny",
        "vital-interest": "deny",
    }


def test_an_objection_to_another_purpose_changes_nothing() -> None:
    assert decide(request(), person(objections=frozenset({"public-benefit"})), policy()).effect == "permit"


def test_an_objection_withholds_every_field_with_its_reason() -> None:
    answer = decide(request(), person(objections=frozenset({"service-provision"})), policy())
    assert answer.withheld == dict.fromkeys(IDENTITY, "objection")


def test_every_published_withholding_reason_is_reached() -> None:
    reached = {"not-released"}  # the neutral one, which the gateway shows in place of the true one
    reached |= set(decide(request(), person(objections=frozenset({"service-provision"})), policy()).withheld.values())
    reached |= set(consented(fields=frozenset({"cedula"})).withheld.values())
    rules = policy(agreement(datasets={"identity": frozenset({"cedula", "profession"})}))
    reached |= set(decide(request(fields=("cedula", "profession", "sex")), person(), rules).withheld.values())
    assert reached == set(code_list("withheld-reasons"))


def test_a_protected_person_is_denied_with_all_the_reasons_that_hold() -> None:
    facts = person(sealed=True, objections=frozenset({"service-provision"}))
    assert decide(request(), facts, policy()).reasons == ("sealed", "objection")


def test_identity_of_an_unknown_person_may_be_asked_under_a_public_duty_only() -> None:
    answer = decide(request(), UNKNOWN_SUBJECT, policy())
    assert answer.effect == "permit"
    assert answer.permit is not None
    assert answer.permit.subject is None
    assert decide(request(basis="consent"), UNKNOWN_SUBJECT, policy()).reasons == ("unknown-subject",)


def test_a_dataset_that_is_not_identity_is_closed_for_unknown_persons() -> None:
    rules = replace(policy(), identity_datasets=frozenset())
    assert decide(request(), UNKNOWN_SUBJECT, rules).reasons == ("unknown-subject",)


def test_a_referral_may_make_a_person_known() -> None:
    assert decide(REFERRAL, person(), policy(SERVICE)).effect == "permit"
    assert decide(replace(REFERRAL, registers_subject=True), UNKNOWN_SUBJECT, policy(SERVICE)).effect == "permit"


def test_registering_a_person_opens_no_disclosure() -> None:
    rules = replace(policy(), identity_datasets=frozenset())
    answer = decide(request(registers_subject=True), UNKNOWN_SUBJECT, rules)
    assert answer.reasons == ("unknown-subject",)


def test_a_poll_concerns_nobody_in_particular() -> None:
    answer = decide(POLLED, UNKNOWN_SUBJECT, policy(POLLING))
    assert answer.effect == "permit"
    assert answer.permit is not None
    assert (answer.permit.action, answer.permit.dataset) == (POLL, REPLIES)


def test_a_whole_register_is_taken_on_an_agreement_made_for_that_and_concerns_nobody_in_particular() -> None:
    answer = decide(TAKEN, UNKNOWN_SUBJECT, policy(TAKING))
    assert answer.permit is not None
    assert (answer.permit.action, answer.permit.dataset, answer.permit.subject) == (TAKE, "identity", None)


def test_of_several_agreements_the_one_that_releases_most_counts() -> None:
    narrow = agreement(code="A", datasets={"identity": frozenset({"cedula"})})
    wide = agreement(code="B")
    answer = decide(request(), person(), policy(wide, narrow))
    assert answer.agreement == ("B", 3)
    assert answer.effect == "permit"


def test_of_agreements_that_release_as_much_the_first_code_counts() -> None:
    for order in (("A", "B"), ("B", "A")):
        answer = decide(request(), person(), policy(*(agreement(code=code) for code in order)))
        assert answer.agreement == ("A", 3)


def test_the_agreement_claimed_counts_even_if_another_gives_more() -> None:
    narrow = agreement(code="B", datasets={"identity": frozenset({"cedula"})})
    answer = decide(request(agreement="B"), person(), policy(agreement(), narrow))
    assert answer.agreement == ("B", 3)
    assert answer.released == frozenset({"cedula"})


def test_the_agreement_that_came_furthest_gives_the_reason() -> None:
    for first, second in ("AB", "BA"):
        elsewhere = agreement(code=first, purposes=frozenset({"public-benefit"}))
        stricter = agreement(code=second, minimum_assurance=2)
        assert decide(request(), person(), policy(elsewhere, stricter)).reasons == ("assurance",)


def test_a_denial_over_the_person_cites_the_agreement_it_was_asked_under() -> None:
    for asked, facts in ((request(), person(sealed=True)), (request(basis="consent"), person())):
        assert decide(asked, facts, policy()).agreement == ("A", 3)


def test_a_denial_for_want_of_consent_says_so_of_every_field_agreed() -> None:
    answer = decide(request(basis="consent", fields=("cedula", "nationality")), person(), policy())
    assert answer.withheld == {"cedula": "consent-scope", "nationality": "not-in-agreement"}


def test_consent_under_one_agreement_does_not_open_another() -> None:
    wide = agreement(code="A")
    narrow = agreement(code="B", datasets={"identity": frozenset({"cedula"})})
    facts = person(consents=(consent(agreement="B"),))
    answer = decide(request(basis="consent"), facts, policy(wide, narrow))
    assert answer.agreement == ("B", 3)
    assert answer.released == frozenset({"cedula"})


def test_a_role_must_both_allow_the_action_and_be_in_the_agreement() -> None:
    asked = request(caller=caller(roles=frozenset({"operator", "auditor"})))
    rules = policy(agreement(roles=frozenset({"auditor"})))
    assert decide(asked, person(), rules).reasons == ("role",)
