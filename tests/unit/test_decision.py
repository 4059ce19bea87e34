"""What the decision permits, withholds and denies, and with which reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from consent_examples import AT, IDENTITY, PERSON, RECORD, agreement, caller, consent, person, request

from consent.authority import may, roles_in_force
from consent.decision import decide
from consent.models import (
    FETCH,
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
    Assignment,
    Caller,
    Decision,
    EmergencyClaim,
    OpenedGlass,
    RepresentationFact,
    Request,
    RestrictionFact,
    SubjectFacts,
)
from consent.policy import Policy, build_policy, label_rules
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


PLATFORM = caller(client_id="sii", institution="MITIC", roles=frozenset({"system"}))
MEDIATING = {("MITIC", "client:sii"): (Assignment("intermediary", None),)}


def policy(*agreements: Agreement, suspended: tuple[str, ...] = (), **held: Any) -> Policy:
    return build_policy(agreements or (agreement(),), suspended, **held)


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
    ("role-in-agreement", request(caller=caller(roles=frozenset({"supervisor"}))), person(), policy()),
    ("role", request(action="data.drop"), person(), policy()),
    ("role", request(on_behalf_of="MSPBS"), person(), policy(agreement(requester="MSPBS"))),
    ("role", replace(REFERRAL, action="disclosure.fetch"), person(), policy(SERVICE)),
    ("role", request(action=POLL, caller=caller(roles=frozenset({"system"}))), person(), policy()),
    ("role", request(action=SEND), UNKNOWN_SUBJECT, policy()),
    ("role", replace(TAKEN, caller=UTGS), UNKNOWN_SUBJECT, policy(TAKING)),
    ("role", replace(TAKEN, action="disclosure.fetch"), person(), policy(TAKING)),
    ("role-in-agreement", TAKEN, UNKNOWN_SUBJECT, policy(replace(TAKING, roles=frozenset({"operator", "system"})))),
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
    ("volume", request(), person(), policy(agreement(volume_per_day=2))),
    ("sealed", request(), person(sealed=True), policy()),
    ("court-order", request(), person(court_order=True), policy()),
    ("barred", request(), person(barred=frozenset({"MDS"})), policy()),
    (
        "barred",
        request(caller=PLATFORM, on_behalf_of="MDS"),
        person(barred=frozenset({"MITIC"})),
        policy(assignments=MEDIATING),
    ),
    # What is sent is learnt by who receives it.
    ("barred", REFERRAL, person(barred=frozenset({"MDS"})), policy(SERVICE)),
    ("export-ban", request(), person(export_ban=True), policy()),
    ("objection", request(), person(objections=frozenset({"service-provision"})), policy()),
    ("restricted", request(), person(restrictions=(RestrictionFact("", "", AT.date()),)), policy()),
]


@pytest.mark.parametrize(("reason", "asked", "facts", "rules"), DENIALS)
def test_each_reason_denies_alone(reason: str, asked: Request, facts: SubjectFacts, rules: Policy) -> None:
    answer = decide(asked, facts, rules, {"A": 2})
    assert (answer.effect, answer.permit, answer.released) == ("deny", None, frozenset())
    assert answer.reasons == (reason,)
    assert answer.hides_subject is code_list("denial-reasons")[reason]["subject"]
    assert (answer.norm, answer.consent, answer.obligations) == (None, None, ())


def test_every_published_denial_reason_is_reached() -> None:
    reached = {reason for reason, *_ in DENIALS} | {reason for reason, *_ in NO_EMERGENCY}
    assert reached == set(code_list("denial-reasons"))


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
    asked = request(caller=PLATFORM, on_behalf_of="MDS")
    assert decide(asked, person(), policy(assignments=MEDIATING)).effect == "permit"
    suspended = policy(assignments=MEDIATING, suspended=("MITIC",))
    assert decide(asked, person(), suspended).reasons == ("party-suspended",)


def test_a_permit_for_another_names_the_institution_acted_for() -> None:
    answer = decide(request(caller=PLATFORM, on_behalf_of="MDS"), person(), policy(assignments=MEDIATING))
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


HEALTH = agreement(
    code="H",
    requester="MINNA",
    holder="MSPBS",
    datasets={"health-controls": frozenset({"cedula", "controls", "last_control_kind"})},
    labels=frozenset({"identifying", "health", "pregnancy"}),
)
NURSE = caller(institution="MINNA")
CONTROLS = request(
    caller=NURSE, holder="MSPBS", dataset="health-controls", fields=("cedula", "controls", "last_control_kind")
)
HELD = {("MINNA", "operator"): frozenset({"health", "pregnancy"})}


@pytest.mark.parametrize(
    ("held", "basis", "withheld"),
    [
        (HELD, "legal-obligation", {}),
        (HELD, "official-authority", {"last_control_kind": "label-basis"}),
        ({("MINNA", "operator"): frozenset({"health"})}, "legal-obligation", {"last_control_kind": "compartment"}),
        ({("MINNA", "supervisor"): HELD["MINNA", "operator"]}, "legal-obligation", None),
        ({("MDS", "operator"): HELD["MINNA", "operator"]}, "legal-obligation", None),
    ],
)
def test_a_sensitive_label_asks_for_its_bases_and_a_role_that_holds_its_compartment(
    held: dict[tuple[str, str], frozenset[str]], basis: str, withheld: dict[str, str] | None
) -> None:
    answer = decide(replace(CONTROLS, basis=basis), person(), policy(HEALTH, compartments=held))
    if withheld is None:
        withheld = dict.fromkeys(("controls", "last_control_kind"), "compartment")
    assert answer.withheld == withheld
    assert "cedula" in answer.released


def test_a_label_may_ask_for_an_operator_known_more_surely() -> None:
    rules = policy()
    grant = rules.grants["MDS", "PN-IDENT", "identity"][0]
    violence = label_rules()["violence"]
    guarded = replace(grant, guarded={"sex": violence})
    held = {("MDS", "operator"): frozenset({"violence"})}
    rules = replace(rules, grants={("MDS", "PN-IDENT", "identity"): (guarded,)}, compartments=held)
    asked = request(basis="legal-obligation")
    assert decide(asked, person(), rules).withheld == {"sex": "label-assurance"}
    surely = replace(asked, caller=caller(user="u", user_verified=True, assurance=2))
    assert decide(surely, person(), rules).withheld == {}


def test_a_consent_opens_a_sensitive_class_only_if_it_names_it() -> None:
    given = consent(
        agreement="H",
        fields=frozenset({"cedula", "controls", "last_control_kind"}),
        scope_sha256=HEALTH.scope_sha256(),
        labels=frozenset({"health"}),
    )
    answer = decide(replace(CONTROLS, basis="consent"), person(consents=(given,)), policy(HEALTH, compartments=HELD))
    assert answer.withheld == {"last_control_kind": "consent-sensitive"}
    assert "watermark" in answer.obligations


def test_when_all_that_was_asked_is_closed_by_labels_the_person_is_not_looked_at() -> None:
    asked = replace(CONTROLS, fields=("controls",))
    for facts in (person(), person(sealed=True), UNKNOWN_SUBJECT):
        answer = decide(asked, facts, policy(HEALTH))
        assert (answer.reasons, answer.hides_subject) == (("fields",), False)
        assert answer.withheld == {"controls": "compartment"}


def test_a_purpose_that_needs_no_identity_sees_identifying_fields_reduced_or_not_at_all() -> None:
    rules = policy(agreement(purposes=frozenset({"official-statistics"})))
    answer = decide(request(purpose="official-statistics"), person(), rules)
    assert answer.released == frozenset({"cedula", "birth_date", "sex"})
    assert answer.treatments == {"cedula": "mask", "birth_date": "age-band"}
    assert answer.withheld == {"given_names": "not-identified", "surnames": "not-identified"}


def test_an_agreement_may_reduce_a_field_and_the_strictest_treatment_counts() -> None:
    bands = agreement(code="A", treatments={"identity": {"birth_date": "age-band", "cedula": "keep"}})
    masked = agreement(code="B", treatments={"identity": {"birth_date": "mask"}})
    for order in ((bands, masked), (masked, bands)):
        assert decide(request(), person(), policy(*order)).treatments == {"birth_date": "mask"}
    assert decide(request(), person(), policy(bands)).treatments == {"birth_date": "age-band"}


def test_a_verb_that_cannot_reduce_a_field_withholds_it() -> None:
    reduced = replace(TAKING, treatments={"identity": {"birth_date": "age-band"}})
    answer = decide(TAKEN, UNKNOWN_SUBJECT, policy(reduced))
    assert answer.withheld == {"birth_date": "not-identified"}
    rules = policy(replace(SERVICE, purposes=frozenset({"official-statistics"})))
    assert decide(replace(REFERRAL, purpose="official-statistics"), person(), rules).reasons == ("fields",)


def test_the_shortest_term_to_keep_the_data_is_an_obligation() -> None:
    rules = policy(agreement(code="A", retention_days=90), agreement(code="B", retention_days=30), agreement(code="C"))
    answer = decide(request(), person(), rules)
    assert "retention" in answer.obligations
    assert answer.retention_days == 30
    assert "retention" not in decide(request(), person(), policy()).obligations


def test_a_volume_counts_until_it_is_used_up() -> None:
    rules = policy(agreement(volume_per_day=2))
    assert decide(request(), person(), rules, {"A": 1}).effect == "permit"
    assert decide(request(), person(), rules, {"B": 9}).effect == "permit"
    assert decide(request(), person(), rules, {"A": 2}).reasons == ("volume",)


@pytest.mark.parametrize("cited", [None, "W"])
def test_the_narrower_agreement_goes_on_narrowing_when_it_is_used_up(cited: str | None) -> None:
    narrow = agreement(code="N", datasets={"identity": frozenset({"cedula"})}, volume_per_day=1)
    rules = policy(narrow, agreement(code="W"))
    assert decide(request(agreement=cited), person(), rules).released == frozenset({"cedula"})
    assert decide(request(agreement=cited), person(), rules, {"N": 1}).reasons == ("volume",)


def test_every_published_withholding_reason_is_reached() -> None:
    reached = {"not-released"}  # the neutral one, which the gateway shows in place of the true one
    # These are asserted one by one in the tests around.
    reached |= {
        "consent-sensitive",
        "compartment",
        "label-assurance",
        "label-basis",
        "not-identified",
        "emergency-scope",
    }
    reached |= set(decide(request(), person(objections=frozenset({"service-provision"})), policy()).withheld.values())
    reached |= set(consented(fields=frozenset({"cedula"})).withheld.values())
    rules = policy(agreement(datasets={"identity": frozenset({"cedula", "profession"})}))
    reached |= set(decide(request(fields=("cedula", "profession", "sex")), person(), rules).withheld.values())
    assert reached == set(code_list("withheld-reasons"))


MOTHER, CHILD_BORN = UUID("01980000-0000-7000-8000-00000000000a"), date(2015, 1, 1)
MANDATE = RepresentationFact(
    id=UUID("01980000-0000-7000-8000-00000000000b"),
    representative=MOTHER,
    kind="parent",
    valid_from=AT - timedelta(days=30),
)


def represented(mandate: RepresentationFact | None = MANDATE, **changes: Any) -> Decision:
    given = consent(representation=MANDATE.id)
    facts = person(**({"birth_date": CHILD_BORN} | changes), consents=(given,))
    mandates = () if mandate is None else (mandate,)
    return decide(request(basis="consent"), replace(facts, representations=mandates), policy())


def test_a_parent_consents_for_a_child() -> None:
    assert represented().effect == "permit"


@pytest.mark.parametrize(
    ("mandate", "changes"),
    [
        (None, {}),
        (replace(MANDATE, id=MOTHER), {}),
        (MANDATE, {"birth_date": date(2008, 6, 1)}),
        (MANDATE, {"birth_date": None}),
        (MANDATE, {"barred": frozenset({str(MOTHER)})}),
        (replace(MANDATE, ended_at=AT), {}),
        (replace(MANDATE, valid_to=AT), {}),
        (replace(MANDATE, valid_from=AT - timedelta(days=9)), {}),
        (replace(MANDATE, kind="guardian"), {"birth_date": date(1980, 1, 1)}),
    ],
)
def test_a_mandate_counts_while_it_lasts_and_a_parents_ends_when_the_child_is_of_age(
    mandate: RepresentationFact | None, changes: dict[str, Any]
) -> None:
    answer = represented(mandate, **changes)
    assert answer.reasons == ("consent",)
    assert "consent:A:representative" in answer.trace


@pytest.mark.parametrize("kind", ["curator", "proxy"])
def test_a_curator_or_proxy_consents_for_an_adult_until_the_mandate_ends(kind: Any) -> None:
    lasting = replace(MANDATE, kind=kind, valid_to=AT + timedelta(seconds=1), ended_at=AT + timedelta(seconds=1))
    assert represented(lasting, birth_date=date(1980, 1, 1)).effect == "permit"


def test_a_consent_under_another_scope_of_the_agreement_does_not_count() -> None:
    assert consented(scope_sha256=b"another").reasons == ("consent",)
    assert consented(scope_sha256=None).reasons == ("consent",)


CLAUSE = agreement(
    code="E",
    datasets={"identity": frozenset({"cedula", "given_names", "surnames"})},
    bases=(AgreedBasis("vital-interest", "Ley 7593/2025"),),
    minimum_assurance=2,
    roles=frozenset({"emergency"}),
)
RESCUER = caller(
    user="ana",
    user_verified=True,
    roles=frozenset({"operator", "emergency"}),
    assurance=2,
    authenticated_at=AT - timedelta(minutes=15),
)
RESCUERS = {("MDS", "ana"): (Assignment("emergency", AT + timedelta(days=1)),)}
CLAIM = EmergencyClaim(reason="danger-to-life", incident="911-2026-1")
RESCUE = request(caller=RESCUER, emergency=CLAIM, purpose="service-provision", basis="consent")


def rescue_policy(*more: Agreement, **held: Any) -> Policy:
    return policy(CLAUSE, *more, **({"assignments": RESCUERS} | held))


def test_an_emergency_opens_the_small_set_of_its_clause_and_says_what_must_follow() -> None:
    answer = decide(RESCUE, person(), rescue_policy())
    assert answer.emergency
    assert answer.released == frozenset({"cedula", "given_names", "surnames"})
    assert answer.withheld == {"birth_date": "emergency-scope", "sex": "emergency-scope"}
    assert (answer.agreement, answer.norm) == (("E", 3), "Ley 7593/2025")
    assert {"notify-officer", "notify-subject", "review-due-72h", "no-onward-sharing"} <= set(answer.obligations)
    assert set(answer.obligations) <= OBLIGATIONS


def test_a_request_that_is_permitted_anyway_breaks_no_glass() -> None:
    answer = decide(replace(RESCUE, basis="official-authority"), person(), rescue_policy(agreement()))
    assert answer.effect == "permit"
    assert not answer.emergency


@pytest.mark.parametrize(
    "lifted",
    [
        {"basis": "consent"},
        {"basis": "vital-interest"},
        {"basis": "official-authority", "agreement": "Z"},
        {"fields": ("cedula", "profession")},
    ],
)
def test_the_denials_of_agreement_and_consent_are_lifted(lifted: dict[str, Any]) -> None:
    rules = rescue_policy(agreement(code="A", datasets={"identity": frozenset({"sex"})}))
    assert decide(replace(RESCUE, **lifted), person(), rules).emergency


@pytest.mark.parametrize(
    ("reason", "facts"),
    [
        ("sealed", person(sealed=True)),
        ("court-order", person(court_order=True)),
        ("barred", person(barred=frozenset({"MDS"}))),
        ("export-ban", person(export_ban=True)),
        ("objection", person(objections=frozenset({"service-provision"}))),
        ("unknown-subject", UNKNOWN_SUBJECT),
    ],
)
def test_nothing_that_protects_the_person_is_lifted(reason: str, facts: SubjectFacts) -> None:
    for rules in (rescue_policy(), rescue_policy(agreement())):
        answer = decide(RESCUE, facts, rules)
        assert answer.reasons == (reason,)
        assert answer.hides_subject


@pytest.mark.parametrize(
    ("reason", "facts"),
    [
        ("objection", person(objections=frozenset({"service-provision"}))),
        ("unknown-subject", UNKNOWN_SUBJECT),
    ],
)
def test_in_an_emergency_the_person_is_judged_on_its_basis_and_not_on_the_one_refused(
    reason: str, facts: SubjectFacts
) -> None:
    asked = replace(RESCUE, basis="legal-obligation")
    assert decide(asked, facts, rescue_policy()).reasons == (reason,)


def rescuer(**changes: Any) -> Request:
    return replace(RESCUE, caller=replace(RESCUER, **changes))


def opened(**changes: Any) -> SubjectFacts:
    glass = OpenedGlass(institution="MDS", user="ana", dataset="identity", incident=CLAIM.incident, expires_at=AT)
    return person(glasses=(replace(glass, **changes),))


NO_EMERGENCY: list[tuple[str, Request, SubjectFacts, Policy]] = [
    ("emergency-role", RESCUE, person(), rescue_policy(assignments={})),
    ("emergency-role", RESCUE, person(), rescue_policy(assignments={("MDS", "ana"): (Assignment("emergency", AT),)})),
    ("emergency-role", rescuer(roles=frozenset({"operator"})), person(), rescue_policy()),
    ("emergency-role", replace(rescuer(), action="status.query"), person(), rescue_policy()),
    ("emergency-login", rescuer(authenticated_at=None), person(), rescue_policy()),
    ("emergency-login", rescuer(authenticated_at=AT - timedelta(minutes=15, seconds=1)), person(), rescue_policy()),
    ("emergency-login", rescuer(authenticated_at=AT + timedelta(seconds=1)), person(), rescue_policy()),
    ("emergency-login", rescuer(assurance=1), person(), rescue_policy()),
    (
        "emergency-suspended",
        RESCUE,
        person(),
        rescue_policy(unreviewed={("MDS", "ana"): AT - timedelta(hours=72, seconds=1)}),
    ),
    ("emergency-clause", replace(RESCUE, basis="vital-interest"), person(), policy(agreement(), assignments=RESCUERS)),
    ("emergency-clause", RESCUE, person(), policy(replace(CLAUSE, valid_to=AT), assignments=RESCUERS)),
    ("emergency-clause", RESCUE, person(), policy(replace(CLAUSE, minimum_assurance=3), assignments=RESCUERS)),
    ("emergency-clause", replace(RESCUE, fields=("sex",)), person(), rescue_policy()),
    ("emergency-clause", replace(RESCUE, purpose="public-benefit"), person(), rescue_policy()),
    ("emergency-expired", RESCUE, opened(), rescue_policy()),
]


@pytest.mark.parametrize(("reason", "asked", "facts", "rules"), NO_EMERGENCY)
def test_each_condition_of_an_emergency_denies_alone(
    reason: str, asked: Request, facts: SubjectFacts, rules: Policy
) -> None:
    answer = decide(asked, facts, rules)
    assert answer.reasons == (reason,)
    assert answer.permit is None
    assert answer.hides_subject is code_list("denial-reasons")[reason]["subject"]


@pytest.mark.parametrize(
    ("asked", "rules"),
    [
        (RESCUE, policy(agreement(), assignments=RESCUERS)),
        (RESCUE, rescue_policy(agreement(), assignments={})),
        (rescuer(authenticated_at=None), rescue_policy(agreement())),
    ],
)
def test_claiming_an_emergency_does_not_tell_a_missing_consent_from_an_unknown_or_sealed_person(
    asked: Request, rules: Policy
) -> None:
    for facts in (person(), person(sealed=True), UNKNOWN_SUBJECT):
        answer = decide(asked, facts, rules)
        assert (answer.effect, answer.hides_subject) == ("deny", True)


def test_nobody_breaks_the_glass_for_a_person_unknown_here() -> None:
    asked = replace(RESCUE, basis="official-authority")
    assert decide(asked, person(), rescue_policy()).emergency
    answer = decide(asked, UNKNOWN_SUBJECT, rescue_policy())
    assert (answer.reasons, answer.hides_subject) == (("unknown-subject",), True)


def test_an_emergency_keeps_the_treatments_and_the_term_of_its_clause() -> None:
    clause = replace(CLAUSE, treatments={"identity": {"cedula": "mask", "sex": "mask"}}, retention_days=2)
    answer = decide(RESCUE, person(), policy(clause, assignments=RESCUERS))
    assert answer.emergency
    assert answer.treatments == {"cedula": "mask"}
    assert answer.retention_days == 2
    assert answer.obligations[-1] == "retention"


def test_a_clause_that_has_nothing_of_what_was_asked_stands_in_no_way() -> None:
    other = replace(CLAUSE, code="D", datasets={"identity": frozenset({"sex"})})
    answer = decide(replace(RESCUE, fields=("cedula",)), person(), rescue_policy(other))
    assert answer.agreement == ("E", 3)
    assert decide(replace(RESCUE, fields=("cedula", "sex")), person(), rescue_policy(other)).reasons == (
        "emergency-clause",
    )


def test_an_emergency_waiting_for_review_stops_the_next_only_after_72_hours() -> None:
    waiting = rescue_policy(unreviewed={("MDS", "ana"): AT - timedelta(hours=72)})
    assert decide(RESCUE, person(), waiting).emergency
    of_another = rescue_policy(unreviewed={("MDS", "eva"): AT - timedelta(days=9)})
    assert decide(RESCUE, person(), of_another).emergency


@pytest.mark.parametrize(
    "changes",
    [
        {"expires_at": AT + timedelta(seconds=1)},
        {"incident": "another"},
        {"user": "eva"},
        {"institution": "MINNA"},
        {"dataset": "birth-entry"},
    ],
)
def test_another_emergency_or_one_that_still_lasts_stands_in_no_way(changes: dict[str, Any]) -> None:
    assert decide(RESCUE, opened(**changes), rescue_policy()).emergency


def test_nobody_breaks_the_glass_for_another_institution_and_no_system_does() -> None:
    for another in ("MINNA",):
        asked = replace(RESCUE, on_behalf_of=another)
        assert decide(asked, person(), rescue_policy()).reasons == ("role",)
    system = replace(RESCUER, user=None, user_verified=False, roles=frozenset({"system"}))
    held = {("MDS", "client:mds-core"): (Assignment("emergency", None),)}
    answer = decide(replace(RESCUE, caller=system), person(), rescue_policy(assignments=held))
    assert "emergency-role" in answer.reasons


ADMINISTRATOR = {("MDS", "ana"): (Assignment("administrator", AT + timedelta(seconds=1)),)}
AUDITOR = {("MDS", "ana"): (Assignment("auditor", AT + timedelta(days=1)),)}
ANA = caller(user="ana", user_verified=True, roles=frozenset({"operator", "administrator"}))


@pytest.mark.parametrize(
    ("who", "at", "held", "in_force"),
    [
        (ANA, AT, ADMINISTRATOR, {"operator", "administrator"}),
        (ANA, AT + timedelta(seconds=1), ADMINISTRATOR, {"operator"}),
        (ANA, AT, {}, {"operator"}),
        (replace(ANA, user="eva"), AT, ADMINISTRATOR, {"operator"}),
        (replace(ANA, institution="MINNA"), AT, ADMINISTRATOR, {"operator"}),
        (replace(ANA, user_verified=False), AT, ADMINISTRATOR, {"operator"}),
        (replace(ANA, roles=frozenset({"operator"})), AT, ADMINISTRATOR, {"operator"}),
        (replace(ANA, roles=frozenset({"citizen"})), AT, ADMINISTRATOR, set()),
        (replace(ANA, person=PERSON, roles=frozenset({"citizen", "administrator"})), AT, ADMINISTRATOR, {"citizen"}),
        (PLATFORM, AT, MEDIATING, {"system", "intermediary"}),
        (replace(ANA, user="client:sii", institution="MITIC", roles=frozenset({"intermediary"})), AT, MEDIATING, set()),
        (replace(ANA, roles=frozenset({"operator", "system"})), AT, AUDITOR, set()),
        (replace(ANA, roles=frozenset({"operator"}), user_verified=False), AT, AUDITOR, set()),
        (replace(ANA, roles=frozenset({"operator", "auditor"})), AT, AUDITOR, {"auditor"}),
        (replace(ANA, roles=frozenset({"operator"})), AT + timedelta(days=1), AUDITOR, {"operator"}),
        (replace(PLATFORM, client_id="other"), AT, MEDIATING, {"system"}),
    ],
)
def test_a_role_that_must_be_granted_counts_for_a_known_operator_who_holds_it_and_acts_in_it(
    who: Caller, at: datetime, held: dict[tuple[str, str], tuple[Assignment, ...]], in_force: set[str]
) -> None:
    assert roles_in_force(who, policy(assignments=held), at) == in_force


def test_what_a_role_may_do_ends_with_the_suspension_of_its_institution() -> None:
    assert may(ANA, "agreement.manage", policy(assignments=ADMINISTRATOR), AT)
    assert not may(ANA, "agreement.sign", policy(assignments=ADMINISTRATOR), AT)
    assert not may(ANA, "agreement.manage", policy(assignments=ADMINISTRATOR, suspended=("MDS",)), AT)


def test_an_auditor_changes_nothing_and_an_administrator_sees_nobodys_data() -> None:
    roles = code_list("roles")
    assert set(roles["auditor"]["actions"]) == {"audit.read", "decision.explain"}
    assert not {FETCH, "status.query", "referral.read"} & set(roles["administrator"]["actions"])


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


@pytest.mark.parametrize("codes", ["AB", "BA"])
@pytest.mark.parametrize("cited", [None, "A", "B"])
def test_of_agreements_that_contradict_each_other_the_narrower_counts(codes: str, cited: str | None) -> None:
    narrow = agreement(code=codes[0], datasets={"identity": frozenset({"cedula", "sex"})})
    wide = agreement(code=codes[1])
    answer = decide(request(agreement=cited), person(), policy(wide, narrow))
    assert answer.agreement == (codes[0], 3)
    assert answer.released == frozenset({"cedula", "sex"})
    assert answer.trace[-2] == "narrower:A,B"


def test_agreements_that_share_nothing_open_nothing_however_it_is_asked() -> None:
    first = agreement(code="A", datasets={"identity": frozenset({"cedula"})})
    second = agreement(code="B", datasets={"identity": frozenset({"cedula", "sex"})})
    assert decide(request(fields=("cedula", "sex")), person(), policy(first, second)).withheld == {
        "sex": "not-in-agreement"
    }
    # Field by field nothing more comes out.
    assert decide(request(fields=("sex",)), person(), policy(first, second)).reasons == ("fields",)
    assert decide(request(fields=("sex",), agreement="B"), person(), policy(first, second)).reasons == ("fields",)


def test_on_consent_an_agreement_without_one_narrows_nothing() -> None:
    first = agreement(code="A", datasets={"identity": frozenset({"cedula"})})
    second = agreement(code="B", datasets={"identity": frozenset({"sex"})})
    given = consent(agreement="B", scope_sha256=second.scope_sha256())
    asked = request(basis="consent", fields=("cedula", "sex"))
    answer = decide(asked, person(consents=(given,)), policy(first, second))
    assert answer.released == frozenset({"sex"})
    assert answer.agreement == ("B", 3)


def test_of_agreements_that_release_as_much_the_first_code_counts() -> None:
    for order in (("A", "B"), ("B", "A")):
        answer = decide(request(), person(), policy(*(agreement(code=code) for code in order)))
        assert answer.agreement == ("A", 3)


def test_the_agreement_claimed_is_the_one_cited() -> None:
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
    facts = person(consents=(consent(agreement="B", scope_sha256=narrow.scope_sha256()),))
    answer = decide(request(basis="consent"), facts, policy(wide, narrow))
    assert answer.agreement == ("B", 3)
    assert answer.released == frozenset({"cedula"})


def test_a_role_must_both_allow_the_action_and_be_in_the_agreement() -> None:
    asked = request(caller=caller(roles=frozenset({"operator", "auditor"})))
    rules = policy(agreement(roles=frozenset({"auditor"})))
    assert decide(asked, person(), rules).reasons == ("role-in-agreement",)
