"""Agreements are read strictly, held against the code lists, and make the policy that the demonstration needs."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from consent_examples import AT, agreement, caller, person, request

from consent.agreements import check_agreement, demonstration_agreements
from consent.decision import decide
from consent.errors import InvalidAgreement
from consent.models import (
    POLL,
    REFERRAL_FIELDS,
    REPLIES,
    REPLY_FIELDS,
    SEND,
    UNKNOWN_SUBJECT,
    AgreedBasis,
    Agreement,
    parse_agreement,
)
from consent.policy import Policy, build_policy
from schemas.codes import code_list


def stored(made: Agreement) -> dict[str, Any]:
    return made.document() | {
        "code": made.code,
        "version": made.version,
        "status": made.status,
        "valid_from": made.valid_from,
        "valid_to": made.valid_to,
    }


def test_an_agreement_survives_its_stored_form() -> None:
    made = agreement(valid_to=AT + timedelta(days=1))
    assert parse_agreement(stored(made)) == made


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"extra": 1}, "extra"),
        ({"requester": ""}, "requester"),
        ({"requester": 7}, "requester"),
        ({"datasets": {}}, "datasets"),
        ({"datasets": {"identity": []}}, "datasets/identity"),
        ({"purposes": []}, "purposes"),
        ({"bases": [{"basis": "consent"}]}, "bases/0/norm"),
        ({"bases": [{"basis": "consent", "norm": "n", "scope": "s"}]}, "bases/0/scope"),
        ({"channels": ["pigeon"]}, "channels/0"),
        ({"minimum_assurance": 0}, "minimum_assurance"),
        ({"minimum_assurance": "1"}, "minimum_assurance"),
        ({"valid_from": "2026-01-01T00:00:00"}, "valid_from"),
        ({"valid_from": "2026-02-31T00:00:00Z"}, "valid_from"),
        ({"status": "agreed"}, "status"),
        ({"code": "A B"}, "code"),
    ],
)
def test_a_malformed_agreement_is_refused_with_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidAgreement) as caught:
        parse_agreement(stored(agreement()) | changes)
    assert caught.value.field == field


def test_a_missing_member_is_refused() -> None:
    document = stored(agreement())
    del document["roles"]
    with pytest.raises(InvalidAgreement) as caught:
        parse_agreement(document)
    assert caught.value.field == "roles"


def test_a_value_json_cannot_hold_is_refused() -> None:
    with pytest.raises(InvalidAgreement):
        parse_agreement(stored(agreement()) | {"requester": object()})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"purposes": frozenset({"curiosity"})}, "purposes"),
        ({"roles": frozenset({"king"})}, "roles"),
        ({"bases": (AgreedBasis("because", "n"),)}, "bases"),
        ({"bases": (AgreedBasis("consent", "n"), AgreedBasis("consent", "m"))}, "bases"),
        ({"valid_to": AT - timedelta(days=100)}, "valid_to"),
        ({"datasets": {"gossip": frozenset({"cedula"})}}, "datasets/gossip"),
        ({"datasets": {"identity": frozenset({"shoe_size"})}}, "datasets/identity"),
        ({"holder": "MDS"}, "datasets/identity"),
        ({"datasets": {"service:tekopora": frozenset({"marital_status"})}}, "datasets/service:tekopora"),
        ({"labels": frozenset({"identifying", "gossip"})}, "labels"),
        ({"treatments": {"identity": {"profession": "mask"}}}, "treatments/identity"),
        ({"treatments": {"birth": {"cedula": "mask"}}}, "treatments/birth"),
    ],
)
def test_an_agreement_outside_the_code_lists_is_refused(changes: dict[str, Any], field: str) -> None:
    check_agreement(agreement())
    with pytest.raises(InvalidAgreement) as caught:
        check_agreement(replace(agreement(), **changes))
    assert caught.value.field == field


def test_a_refusal_names_the_codes_that_could_stand_there() -> None:
    with pytest.raises(InvalidAgreement) as caught:
        check_agreement(replace(agreement(), purposes=frozenset({"curiosity"})))
    assert caught.value.allowed == tuple(sorted(code_list("purposes")))


EMERGENCY = agreement(
    bases=(AgreedBasis("vital-interest", "Ley 836/80"),), roles=frozenset({"emergency"}), minimum_assurance=2
)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"bases": (*EMERGENCY.bases, AgreedBasis("consent", "n"))}, "bases"),
        ({"roles": frozenset({"emergency", "operator"})}, "roles"),
        ({"minimum_assurance": 1}, "minimum_assurance"),
        ({"datasets": {"identity": frozenset(code_list("datasets")["identity"]["fields"])}}, "datasets/identity"),
        ({"datasets": {"service:tekopora": frozenset({"identifiers"})}}, "datasets/service:tekopora"),
    ],
)
def test_an_emergency_clause_opens_little_to_one_role_and_nothing_else(changes: dict[str, Any], field: str) -> None:
    check_agreement(EMERGENCY)
    with pytest.raises(InvalidAgreement) as caught:
        check_agreement(replace(EMERGENCY, **changes))
    assert caught.value.field == field


def test_the_policy_version_names_the_content_and_nothing_else() -> None:
    one, other = agreement(code="A"), agreement(code="B")
    version = build_policy([one, other]).version
    assert build_policy([other, one]).version == version
    same_instant = replace(one, valid_from=datetime.fromisoformat(one.valid_from.isoformat()))
    assert build_policy([same_instant, other]).version == version
    changed = (
        replace(one, version=4),
        replace(one, status="suspended"),
        replace(one, valid_to=AT),
        replace(one, labels=frozenset({"economic"})),
    )
    versions = {build_policy([each, other]).version for each in changed} | {build_policy([one, other], ["MDS"]).version}
    assert len(versions | {version}) == 6


def test_only_active_agreements_are_indexed() -> None:
    for status in ("draft", "proposed", "signed", "suspended", "expired"):
        assert not build_policy([agreement(status=status)]).grants


def test_an_auditor_changes_nothing_and_an_administrator_sees_nobody() -> None:
    policy = build_policy([])
    for role in ("auditor", "administrator"):
        allowed = {action for action, holders in policy.roles_by_action.items() if role in holders}
        kept = {"agreement.manage", "board.manage", "catalogue.manage", "delivery.manage", "event.manage"}
        kept |= {"institution.manage", "role.manage"}
        assert allowed <= {"audit.read", "decision.explain"} | kept
    assert "auditor" not in policy.roles_by_action["agreement.manage"] | policy.roles_by_action["role.manage"]


@pytest.fixture(scope="module")
def demonstration() -> Policy:
    return build_policy(demonstration_agreements())


def test_every_demonstration_agreement_keeps_the_rules_and_says_that_it_is_one() -> None:
    for made in demonstration_agreements():
        check_agreement(made)
        assert made.code.startswith("DEMO-")
        assert {made.requester, made.holder} <= code_list("institutions").keys()
        assert all("demostración" in agreed.norm for agreed in made.bases)


@pytest.mark.parametrize(
    ("institution", "basis", "withheld"),
    [
        ("MDS", "official-authority", set()),
        ("MDS", "legal-obligation", set()),
        ("MSPBS", "official-authority", {"marital_status", "profession"}),
        ("MINNA", "official-authority", {"marital_status", "nationality", "profession"}),
        ("MTESS", "official-authority", {"marital_status", "profession"}),
    ],
)
def test_the_demonstration_gives_each_ministry_its_own_part_of_identity(
    demonstration: Policy, institution: str, basis: str, withheld: set[str]
) -> None:
    everything = tuple(code_list("datasets")["identity"]["fields"])
    asked = request(caller=caller(institution=institution), fields=everything, basis=basis)
    assert set(decide(asked, person(), demonstration).withheld) == withheld


def test_the_demonstration_denies_what_it_should(demonstration: Policy) -> None:
    for institution, reason in (("MEC", "agreement"), ("SNPP", "basis")):
        asked = request(caller=caller(institution=institution))
        assert decide(asked, person(), demonstration).reasons == (reason,)
    snpp = request(caller=caller(institution="SNPP"), basis="consent")
    assert decide(snpp, person(), demonstration).reasons == ("consent",)


@pytest.mark.parametrize(
    ("requester", "holder", "service"),
    [
        ("UTGS", "MDS", "tekopora"),
        ("UTGS", "MDS", "universal-pension"),
        ("UTGS", "MINNA", "abrazo"),
        ("UTGS", "MSPBS", "vaccination"),
        ("UTGS", "MSPBS", "growth-control"),
        ("UTGS", "MSPBS", "prenatal-control"),
        ("UTGS", "MSPBS", "health-control"),
        ("UTGS", "MSPBS", "specialised-consultation"),
        ("MSPBS", "MSPBS", "specialised-consultation"),
        ("MINNA", "MDS", "tekopora"),
    ],
)
def test_the_demonstration_lets_the_referrals_through(
    demonstration: Policy, requester: str, holder: str, service: str
) -> None:
    asked = request(
        action=SEND,
        caller=caller(institution=requester),
        holder=holder,
        dataset=f"service:{service}",
        fields=REFERRAL_FIELDS,
        channel="fhir",
    )
    assert decide(asked, person(), demonstration).effect == "permit"
    assert code_list("services")[service]["institution"] == holder


@pytest.mark.parametrize("holder", ["MDS", "MINNA"])
def test_the_demonstration_lets_the_gateway_poll(demonstration: Policy, holder: str) -> None:
    utgs = caller(institution="UTGS", roles=frozenset({"system"}))
    asked = request(action=POLL, caller=utgs, holder=holder, dataset=REPLIES, fields=REPLY_FIELDS)
    assert decide(asked, UNKNOWN_SUBJECT, demonstration).effect == "permit"
    operator = replace(asked, caller=caller(institution="UTGS"))
    assert decide(operator, UNKNOWN_SUBJECT, demonstration).reasons == ("role",)


@pytest.mark.parametrize("institution", ["MDS", "MSPBS", "MINNA", "UTGS"])
def test_the_demonstration_gives_the_protection_status_whole(demonstration: Policy, institution: str) -> None:
    dataset = code_list("datasets")["protection-status"]
    asked = request(
        action="status.query",
        caller=caller(institution=institution),
        holder=dataset["holder"],
        dataset="protection-status",
        fields=tuple(dataset["fields"]),
    )
    assert decide(asked, person(), demonstration).effect == "permit"
    assert decide(asked, UNKNOWN_SUBJECT, demonstration).reasons == ("unknown-subject",)
