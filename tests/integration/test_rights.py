"""Requests of persons on a real database: where they go, who sees and answers what, when they are overdue."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import prometheus_client
import pytest
from rights_office import OPERATOR, START, Office, citizen, command
from sqlalchemy import insert

from consent import tables as consent_tables
from consent.decision import decide
from consent.models import Request
from gateway import errors
from gateway.registry import service as registry
from gateway.registry.facts import subject_facts
from gateway.rights.models import Answer, NewRequest
from schemas.ids import uuid7

WORDS = "Quiero saber quién miró mis datos; vivo en Ñemby."
GRANTED = Answer(outcome="granted", delivered=("acta 12", "ab" * 32))
REFUSED = Answer(outcome="refused", norm="Ley 7593/2025, art. 31", text="Hay un plazo de conservación en curso.")


_cedulas = iter(range(1_000_000, 2_000_000))


@pytest.fixture
def cedula() -> str:
    return str(next(_cedulas))


async def parts(office: Office, request_id: UUID) -> dict[str, str]:
    found = await office.rights.find(request_id, institution=None, person=None)
    return {part.institution: part.state for part in found.parts}


async def flag(office: Office, subject: UUID, kind: str, target: str = "") -> None:
    async with office.context.database.transaction() as connection:
        row = {"subject": subject, "kind": kind, "target": target, "since": START}
        await connection.execute(insert(consent_tables.protective_flag), row)


async def mandate(office: Office, subject: UUID, representative: UUID, kind: str = "parent", **changes: Any) -> None:
    row = {
        "id": uuid7(),
        "subject": subject,
        "representative": representative,
        "kind": kind,
        "proof_reference": "acta",
        "recorded_by": "MINNA/dpo",
        "valid_from": START - timedelta(days=30),
        **changes,
    }
    async with office.context.database.transaction() as connection:
        await connection.execute(insert(consent_tables.representation), row)


# Where a request goes


async def test_access_to_everything_goes_to_who_the_log_facts_and_consents_say_holds_something(
    office: Office, cedula: str
) -> None:
    person = await office.person(cedula)
    await office.exchanged(person)
    await office.exchanged(person, kind="disclosure.denied", outcome="deny", institution="INDI", holder="SENADIS")
    await office.exchanged(person, kind="disclosure.intent", institution="MEC", holder="DGM")
    await office.exchanged(await office.person(str(next(_cedulas))), institution="SFP", holder="DNIT")
    async with office.context.database.transaction() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO siis.fact (id, person_id, service, protected, source, instrument, observed_on)"
            " VALUES (gen_random_uuid(), %s, 'vaccination', true, 'IPS', 'counter-referral', '2027-01-01')",
            (person,),
        )
        await connection.execute(
            insert(consent_tables.consent_record).values(
                id=uuid7(),
                subject=person,
                agreement="DEMO-MINNA-MSPBS-CONSENT",
                purposes=["public-benefit"],
                fields=["level"],
                state="given",
                text_version="1",
                language="es",
                channel="paper",
                proof_reference="x",
                given_at=START,
            )
        )
    # The first request makes the counter that took it no holder of anything.
    for _time in range(2):
        request = await office.ask(cedula)
        assert await parts(office, request) == dict.fromkeys(
            {"UTGS", "MDS", "PN-IDENT", "IPS", "MSPBS", "MINNA"}, "routed"
        )


async def test_a_request_over_one_dataset_goes_to_its_holder_alone(office: Office, cedula: str) -> None:
    await office.exchanged(await office.person(cedula))
    assert await parts(office, await office.ask(cedula, dataset="vaccination")) == {"MSPBS": "routed"}


async def test_an_institution_barred_from_the_case_is_not_told_of_it(office: Office, cedula: str) -> None:
    person = await office.person(cedula)
    await flag(office, person, "aggressor", "MSPBS")
    assert await parts(office, await office.ask(cedula, dataset="vaccination")) == {"UTGS": "routed"}


@pytest.mark.parametrize("kind", ["sealed", "court-order", "dead"])
async def test_a_protected_case_waits_for_a_person_to_decide(office: Office, cedula: str, kind: str) -> None:
    person = await office.person(cedula, deceased_on=date(2027, 1, 1) if kind == "dead" else None)
    if kind != "dead":
        await flag(office, person, kind)
    await office.exchanged(person)
    assert await parts(office, await office.ask(cedula)) == {"UTGS": "received"}


async def test_the_answer_does_not_tell_whether_the_person_is_known_nor_who_holds_something(
    office: Office, cedula: str
) -> None:
    await office.exchanged(await office.person(cedula))
    new = NewRequest(right="access", subject=("cedula", cedula))
    known = await office.rights.receive(OPERATOR, new, command())
    unknown = await office.rights.receive(OPERATOR, replace(new, subject=("cedula", "9999999")), command())
    forged = await office.rights.receive(OPERATOR, replace(new, representative=("cedula", "9999998")), command())
    assert known.answer.keys() == unknown.answer.keys() == forged.answer.keys()
    varying = {"request", "receipt"}
    told = [{name: done.answer[name] for name in done.answer.keys() - varying} for done in (known, unknown, forged)]
    assert told[0] == told[1] == told[2]
    assert "PN-IDENT" not in json.dumps(known.answer)


async def test_who_is_unknown_is_kept_encrypted_until_the_coordinator_finds_out_who_it_is(
    office: Office, cedula: str
) -> None:
    request = await office.ask("7777777", text=WORDS)
    utgs, mds = await office.officer("UTGS"), await office.officer("MDS")
    [(person, identity)] = await office.rows(
        "SELECT person_id, identity FROM siis.rights_request WHERE id = %s", request
    )
    assert person is None
    assert b"7777777" not in bytes(identity)
    shown, _receipt = await office.rights.read(utgs, request)
    assert shown.subject == (("cedula", "7777777"),)
    with pytest.raises(errors.Conflict, match="rights-unresolved"):
        await office.rights.step(utgs, office.rights.steps.routing(request, ["MDS"], None))
    with pytest.raises(errors.NotFound):
        await office.rights.step(mds, office.rights.steps.routing(request, ["MDS"], ("cedula", cedula)))
    found = await office.person(cedula)
    await office.rights.step(utgs, office.rights.steps.routing(request, ["MDS"], ("cedula", cedula)))
    assert await parts(office, request) == {"MDS": "routed", "UTGS": "answered"}
    [row] = await office.rows("SELECT person_id, identity FROM siis.rights_request WHERE id = %s", request)
    assert row == (found, None)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "routed"),
        ({"ended_at": START - timedelta(days=1), "end_reason": "ended"}, "received"),
        ({"valid_to": START - timedelta(days=1)}, "received"),
        ({"valid_from": START + timedelta(days=1)}, "received"),
    ],
)
async def test_a_representative_needs_a_mandate_in_force(
    office: Office, cedula: str, changes: dict[str, Any], state: str
) -> None:
    child = await office.person(cedula, birth_date=date(2020, 1, 1))
    other = str(next(_cedulas))
    await mandate(office, child, await office.person(other), **changes)
    request = await office.ask(cedula, dataset="vaccination", representative=("cedula", other))
    assert set((await parts(office, request)).values()) == {state}


async def test_a_person_may_name_themselves_by_any_identifier(office: Office, cedula: str) -> None:
    person = await office.person(cedula)
    new = NewRequest(right="access", subject=("cedula", cedula), dataset="vaccination")
    request = UUID((await office.rights.receive(citizen(person), new, command())).answer["request"])
    shown, _receipt = await office.rights.read(citizen(person), request)
    assert ([part.institution for part in shown.parts], shown.representative) == (["MSPBS"], None)


@pytest.mark.parametrize(("born", "kind"), [(date(2000, 1, 1), "parent"), (None, "guardian"), (None, "proxy")])
async def test_parents_act_for_minors_only(office: Office, cedula: str, born: date | None, kind: str) -> None:
    person, other = await office.person(cedula, birth_date=born), str(next(_cedulas))
    await mandate(office, person, await office.person(other), kind)
    request = await office.ask(cedula, dataset="vaccination", representative=("cedula", other))
    expected = {"MSPBS": "routed"} if kind == "proxy" else {"UTGS": "received"}
    assert await parts(office, request) == expected


async def test_a_parent_the_child_is_protected_from_sees_nothing_any_more(office: Office, cedula: str) -> None:
    child, other = await office.person(cedula, birth_date=date(2020, 1, 1)), str(next(_cedulas))
    parent = await office.person(other)
    await mandate(office, child, parent)
    mine = NewRequest(right="access", subject=("cedula", cedula), dataset="vaccination")
    done = await office.rights.receive(citizen(parent), mine, command())
    request = UUID(done.answer["request"])
    shown, _receipt = await office.rights.read(citizen(parent), request)
    assert [part.institution for part in shown.parts] == ["MSPBS"]
    await flag(office, child, "aggressor", str(parent))
    with pytest.raises(errors.NotFound):
        await office.rights.read(citizen(parent), request)
    with pytest.raises(errors.NotFound):
        await office.rights.withdraw(citizen(parent), request)
    later = UUID((await office.rights.receive(citizen(parent), mine, command())).answer["request"])
    assert await parts(office, later) == {"UTGS": "received"}


# Who sees what


async def test_an_officer_sees_and_answers_the_own_part_only(office: Office, cedula: str) -> None:
    person = await office.person(cedula)
    await office.exchanged(person)
    request = await office.ask(cedula, text=WORDS)
    mds, mec = await office.officer("MDS"), await office.officer("MEC")
    shown, receipt = await office.rights.read(mds, request)
    assert [part.institution for part in shown.parts] == ["MDS"]
    assert (shown.text, shown.subject[0], shown.names) == (WORDS, ("cedula", cedula), "Ña Eme Ficticia")
    assert (await office.entries("rights.read"))[0].entry_id == receipt.entry_id
    with pytest.raises(errors.NotFound):
        await office.rights.read(mec, request)
    with pytest.raises(errors.NotFound):
        await office.rights.step(mec, office.rights.steps.answering(request, REFUSED, "MEC"))
    await office.rights.step(mds, office.rights.steps.answering(request, REFUSED, "MDS"))
    states = await parts(office, request)
    assert (states["MDS"], states["PN-IDENT"]) == ("answered", "routed")
    assert request not in {each.id for each in await office.rights.page(mec, overdue=False, after=None, limit=200)}


async def test_who_holds_no_role_for_it_is_denied_and_the_denial_is_an_entry(office: Office, cedula: str) -> None:
    await office.person(cedula)
    request = await office.ask(cedula)
    for attempt in (
        office.rights.read(OPERATOR, request),
        office.rights.page(OPERATOR, overdue=False, after=None, limit=10),
        office.rights.step(OPERATOR, office.rights.steps.starting(request, "MTESS")),
        office.rights.receive(
            replace(await office.officer("MDS"), user_verified=False),
            NewRequest(right="access", subject=("cedula", cedula)),
            command(),
        ),
    ):
        with pytest.raises(errors.Denied) as denied:
            await attempt
        assert denied.value.receipt is not None
        assert (await office.entries("governance.denied"))[0].entry_id == denied.value.receipt.entry_id


async def test_a_person_sees_every_answer_to_their_own_request_and_nobody_elses(office: Office, cedula: str) -> None:
    person, other = await office.person(cedula), await office.person(str(next(_cedulas)))
    await office.exchanged(person)
    new = NewRequest(right="access", subject=("siis", str(person)), text=WORDS)
    request = UUID((await office.rights.receive(citizen(person), new, command())).answer["request"])
    mds = await office.officer("MDS")
    answer = replace(GRANTED, text="Retire el sobre en mesa de entrada.")
    await office.rights.step(mds, office.rights.steps.answering(request, answer, "MDS"))
    shown, _receipt = await office.rights.read(citizen(person), request)
    [mine] = [part for part in shown.parts if part.institution == "MDS"]
    assert (mine.outcome, mine.text, mine.reference, mine.sha256) == ("granted", answer.text, *answer.delivered)
    with pytest.raises(errors.NotFound):
        await office.rights.read(citizen(other), request)
    assert [each.id for each in await office.rights.page(citizen(person), overdue=False, after=None, limit=9)] == [
        request
    ]
    assert await office.rights.page(citizen(other), overdue=False, after=None, limit=9) == []


async def test_what_people_write_is_neither_in_the_tables_nor_in_the_log(office: Office, cedula: str) -> None:
    await office.person(cedula)
    request = await office.ask(cedula, "rectification", dataset="identity", text=WORDS)
    officer = await office.officer("PN-IDENT")
    await office.rights.step(officer, office.rights.steps.answering(request, REFUSED, "PN-IDENT"))
    stored = await office.rows(
        "SELECT r::text || p::text FROM siis.rights_request r JOIN siis.rights_part p ON p.request_id = r.id"
        " WHERE r.id = %s",
        request,
    )
    logged = [each.detail for kind in ("rights.received", "rights.answered") for each in await office.entries(kind)]
    for place in (str(stored), str(logged)):
        assert WORDS not in place
        assert WORDS.encode().hex() not in place
        assert "conservación" not in place
        assert cedula not in place


# Steps and answers


@pytest.mark.parametrize(
    ("right", "answer", "code"),
    [
        ("access", Answer(outcome="granted"), "rights-delivery"),
        ("access", Answer(outcome="refused", norm="Ley 7593/2025"), "rights-reason"),
        ("access", Answer(outcome="refused", text="no"), "rights-reason"),
        ("access", replace(REFUSED, delivered=GRANTED.delivered), "rights-delivery"),
        ("access", Answer(outcome="restricted"), "unknown-code"),
        ("access", Answer(outcome="forwarded"), "unknown-code"),
        ("deletion", Answer(outcome="granted"), "unknown-code"),
        ("deletion", replace(REFUSED, outcome="restricted"), "rights-until"),
        ("deletion", replace(REFUSED, outcome="restricted", until=START.date()), "rights-until"),
        ("deletion", replace(REFUSED, until=date(2030, 1, 1)), "rights-until"),
    ],
)
async def test_an_answer_says_what_the_law_asks_for(
    office: Office, cedula: str, right: str, answer: Answer, code: str
) -> None:
    await office.person(cedula)
    request, officer = await office.ask(cedula, right, dataset="identity"), await office.officer("PN-IDENT")
    with pytest.raises(errors.BadRequest, match=code):
        await office.rights.step(officer, office.rights.steps.answering(request, answer, "PN-IDENT"))
    assert await parts(office, request) == {"PN-IDENT": "routed"}


async def test_deletion_is_answered_with_a_restriction_until_the_data_may_go(office: Office, cedula: str) -> None:
    await office.person(cedula)
    request, officer = await office.ask(cedula, "deletion", dataset="identity"), await office.officer("PN-IDENT")
    answer = replace(REFUSED, outcome="restricted", until=date(2031, 12, 31))
    done = await office.rights.step(officer, office.rights.steps.answering(request, answer, "PN-IDENT"))
    assert (done.answer["outcome"], done.answer["until"]) == ("restricted", "2031-12-31")


async def test_a_granted_opposition_stops_the_next_decision(office: Office, cedula: str) -> None:
    person = await office.person(cedula)
    request = await office.ask(cedula, "opposition", dataset="identity", purpose="service-access-determination")
    officer = await office.officer("PN-IDENT")
    asked = Request(
        action="disclosure.fetch",
        caller=replace(OPERATOR, institution="MDS"),
        holder="PN-IDENT",
        dataset="identity",
        fields=("given_names",),
        purpose="service-access-determination",
        basis="official-authority",
        at=office.at,
    )

    async def decided() -> tuple[str, ...]:
        async with office.context.database.connection() as connection:
            who = await registry.find_person(connection, office.context.vault, "siis", str(person))
            return decide(asked, await subject_facts(connection, who), office.policies.current).reasons

    assert await decided() == ()
    office.at = START + timedelta(days=3)
    done = await office.rights.step(
        officer, office.rights.steps.answering(request, Answer(outcome="granted"), "PN-IDENT")
    )
    assert await decided() == ("objection",)
    assert done.answer["effective_on"] == "2027-03-04"
    [objection] = await office.entries("consent.objection", 1)
    assert objection.detail is not None
    assert objection.detail["what"]["purpose"] == "service-access-determination"


async def test_nothing_is_granted_to_somebody_who_is_not_known_to_be_the_person(office: Office) -> None:
    request, utgs = await office.ask("6666666", "opposition", purpose="public-benefit"), await office.officer("UTGS")
    with pytest.raises(errors.Conflict, match="rights-unresolved"):
        await office.rights.step(utgs, office.rights.steps.answering(request, Answer(outcome="granted"), "UTGS"))
    await office.rights.step(utgs, office.rights.steps.answering(request, REFUSED, "UTGS"))
    assert await parts(office, request) == {"UTGS": "answered"}


@pytest.mark.parametrize(
    ("steps", "last"),
    [
        (("start", "answer"), "answered"),
        (("answer",), "answered"),
        (("start", "start"), None),
        (("answer", "start"), None),
        (("answer", "answer"), None),
        (("answer", "withdraw"), None),
        (("start", "withdraw"), "withdrawn"),
        (("withdraw", "answer"), None),
        (("withdraw", "withdraw"), None),
    ],
)
async def test_steps_come_in_their_order(office: Office, cedula: str, steps: tuple[str, ...], last: str | None) -> None:
    await office.person(cedula)
    request, officer = await office.ask(cedula, dataset="identity"), await office.officer("PN-IDENT")
    do = {
        "start": lambda: office.rights.step(officer, office.rights.steps.starting(request, "PN-IDENT")),
        "answer": lambda: office.rights.step(officer, office.rights.steps.answering(request, REFUSED, "PN-IDENT")),
        "withdraw": lambda: office.rights.withdraw(OPERATOR, request),
    }
    for step in steps[:-1]:
        await do[step]()
    if last is None:
        with pytest.raises(errors.Conflict, match="rights-out-of-order"):
            await do[steps[-1]]()
    else:
        await do[steps[-1]]()
        assert await parts(office, request) == {"PN-IDENT": last}


async def test_only_who_took_a_request_withdraws_it_for_the_person(office: Office, cedula: str) -> None:
    person = await office.person(cedula)
    request = await office.ask(cedula, dataset="identity")
    with pytest.raises(errors.NotFound):
        await office.rights.withdraw(replace(OPERATOR, institution="MDS"), request)
    own = await office.rights.receive(
        citizen(person), NewRequest(right="access", subject=("siis", str(person))), command()
    )
    with pytest.raises(errors.NotFound):
        await office.rights.withdraw(replace(OPERATOR, institution="MITIC"), UUID(own.answer["request"]))


@pytest.mark.parametrize(
    ("new", "code", "pointer"),
    [
        (NewRequest(right="oblivion", subject=("cedula", "1234567")), "unknown-code", "/right"),
        (NewRequest(right="access", subject=("cedula", "1.234.567")), "bad-identifier", "/subject/value"),
        (NewRequest(right="access", subject=("cedula", "1234567"), dataset="stars"), "unknown-code", "/dataset"),
        (NewRequest(right="opposition", subject=("cedula", "1234567")), "rights-purpose", "/purpose"),
        (
            NewRequest(right="opposition", subject=("cedula", "1234567"), purpose="curiosity"),
            "unknown-code",
            "/purpose",
        ),
        (
            NewRequest(right="access", subject=("cedula", "1234567"), purpose="public-benefit"),
            "rights-purpose",
            "/purpose",
        ),
    ],
)
async def test_a_request_with_a_code_that_is_none_is_not_taken(
    office: Office, new: NewRequest, code: str, pointer: str
) -> None:
    with pytest.raises(errors.BadRequest, match=code) as refused:
        await office.rights.receive(OPERATOR, new, command())
    assert refused.value.pointer == pointer


async def test_a_repeated_command_takes_one_request(office: Office, cedula: str) -> None:
    await office.person(cedula)
    assert await office.ask(cedula, key="again") == await office.ask(cedula, key="again")
    assert await office.rows("SELECT count(*) FROM siis.idempotency WHERE key = 'again'") == [(1,)]


async def test_every_step_leaves_its_entry_about_the_person(office: Office, cedula: str) -> None:
    person = await office.person(cedula)
    request, officer = await office.ask(cedula, dataset="identity"), await office.officer("PN-IDENT")
    steps = office.rights.steps
    await office.rights.step(officer, steps.starting(request, "PN-IDENT"))
    await office.governance.change_here(steps.routing(request, ["MDS"], None))
    await office.rights.step(officer, steps.answering(request, REFUSED, "PN-IDENT"))
    await office.rights.withdraw(OPERATOR, request)
    [(pseudonym,)] = await office.rows("SELECT pseudonym FROM audit.subject_key WHERE subject = %s", person)
    for kind in ("received", "started", "routed", "answered", "withdrawn"):
        [entry] = await office.entries(f"rights.{kind}", 1)
        assert entry.envelope["subject"] == str(pseudonym), kind
        assert entry.detail is not None
        assert entry.detail["what"]["request"] == str(request)


# The clock


async def test_what_is_open_after_its_last_day_is_overdue_and_counted_per_institution(
    office: Office, cedula: str
) -> None:
    await office.exchanged(await office.person(cedula))
    before = await office.rights.count_overdue()
    request, mds = await office.ask(cedula), await office.officer("MDS")

    async def late() -> bool:
        page = await office.rights.page(mds, overdue=True, after=None, limit=200)
        assert all(each.overdue for each in page)
        return request in {each.id for each in page}

    def counted(institution: str) -> float:
        return prometheus_client.REGISTRY.get_sample_value("siis_rights_overdue", {"institution": institution}) or 0

    office.at = START + timedelta(days=30, hours=13)
    assert not await late()
    before = await office.rights.count_overdue(before)
    assert counted("MDS") == 0
    office.at += timedelta(hours=1)
    assert await late()
    seen = await office.rights.count_overdue(before)
    waiting = counted("MDS")
    assert waiting >= 1
    await office.rights.step(mds, office.rights.steps.answering(request, REFUSED, "MDS"))
    assert not await late()
    await office.rights.count_overdue(seen)
    assert counted("MDS") == waiting - 1
    [entry] = await office.entries("rights.answered", 1)
    assert entry.detail is not None
    assert entry.detail["what"]["late"] is True


async def test_pages_follow_each_other_and_skip_nothing(office: Office, cedula: str) -> None:
    person = await office.person(cedula)
    taken = [await office.ask(cedula, dataset="identity") for _number in range(5)]
    seen: list[UUID] = []
    while page := await office.rights.page(citizen(person), overdue=False, after=seen[-1] if seen else None, limit=2):
        assert len(page) <= 2
        seen += [each.id for each in page]
    assert seen == taken


async def test_whoever_runs_the_machine_takes_requests_too(office: Office, cedula: str) -> None:
    await office.person(cedula)
    new = NewRequest(right="access", subject=("cedula", cedula), dataset="identity")
    said = await office.governance.change_here(office.rights.steps.receiving(new))
    assert said["routed_to"] == ["PN-IDENT"]
