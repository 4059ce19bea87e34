"""Who used a person's data, on a real database: all of theirs, nothing else, and what stays hidden from whom."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from rights_office import OPERATOR, START, Office, citizen, open_office
from sqlalchemy import delete, insert, update

from audit.errors import SubjectErased
from audit.integrator import integrate_once
from audit.models import Outcome
from audit.proofs import prove
from audit.verify import verify_inclusion
from consent import tables as consent_tables
from consent.models import Caller
from gateway import errors, evidence
from gateway.api.usage import page_json
from gateway.governance.people import Named
from gateway.governance.usage import Asked, Page, Usage
from gateway.runtime import load_signer
from gateway.settings import Settings
from gateway.standards.estonia import usage as estonia
from gateway.standards.govstack import usage as govstack
from schemas.codes import code_list
from schemas.ids import uuid7

OFFICIAL = "ana.benitez"
ALL = Asked(limit=200)
PORTAL = Caller(client_id="portal-mitic", institution="MITIC", roles=frozenset({"system"}))
ADULT, CHILD = date(1990, 5, 5), date(2020, 5, 5)
CHILDS_CASE = next(
    code
    for code, spec in code_list("datasets").items()
    if any(told["label"] == "child-protection" for told in spec["fields"].values())
)


class Desk:
    """The readings under test beside an office, and what a test puts into the log."""

    def __init__(self, office: Office) -> None:
        self.office, context = office, office.context
        self.usage = Usage(office.governance, context.vault, audit=context.audit, epochs=context.epochs)

    async def used(
        self,
        subject: UUID | None,
        kind: str = "disclosure.released",
        outcome: Outcome = "permit",
        *,
        at: datetime = START - timedelta(hours=1),
        dataset: str = "identity",
        fields: tuple[str, ...] = ("given_names", "sex"),
        **groups: dict[str, Any],
    ) -> UUID:
        """Put an entry into the log as the gateway writes it, and return its id."""
        told: dict[str, Any] = {
            "actor": {"client": "mds-1", "institution": "MDS", "user": OFFICIAL, "roles": ["operator"]},
            "why": {"purpose": "service-provision", "basis": "official-authority", "norm": "Ley 6174/2018, art. 4"},
            "what": {"holder": "PN-IDENT", "dataset": dataset, "asked": list(fields), "released": list(fields)},
        }
        entry = evidence.entry(kind, outcome, at=at, policy_version="v1", subject=subject, **{**told, **groups})
        await self.office.context.audit.append(entry)
        return entry.id

    async def read(self, caller: Caller | None, named: Named | None = None, asked: Asked = ALL, **more: Any) -> Page:
        return await self.usage.read(caller, named, asked, **more)

    async def flag(self, subject: UUID, kind: str, target: str = "", *, since: datetime = START) -> None:
        row = {"subject": subject, "kind": kind, "target": target, "since": since, "reference": "acto 1"}
        async with self.office.context.database.transaction() as connection:
            await connection.execute(insert(consent_tables.protective_flag), row)

    async def mandate(self, subject: UUID, representative: UUID, kind: str = "parent") -> UUID:
        mandate_id = uuid7()
        row = {
            "id": mandate_id,
            "subject": subject,
            "representative": representative,
            "kind": kind,
            "proof_reference": "acta 1",
            "recorded_by": "MINNA/ofi",
            "valid_from": START - timedelta(days=100),
        }
        async with self.office.context.database.transaction() as connection:
            await connection.execute(insert(consent_tables.representation), row)
        return mandate_id

    async def last(self, kind: str) -> dict[str, Any]:
        [entry] = await self.office.entries(kind, limit=1)
        assert entry.detail is not None
        return {"outcome": entry.envelope["outcome"], "subject": entry.envelope["subject"], **entry.detail}


@pytest_asyncio.fixture
async def desk(settings: Settings) -> AsyncIterator[Desk]:
    async with open_office(settings) as office:
        yield Desk(office)


_cedulas = iter(range(3_000_000, 4_000_000))


@pytest.fixture
def cedula() -> str:
    return str(next(_cedulas))


def ids(page: Page) -> list[UUID]:
    return [row.use.entry_id for row in page.rows]


def text_of(page: Page) -> str:
    return json.dumps(page_json(page), ensure_ascii=False)


# What is shown


async def test_every_entry_about_a_person_is_shown_newest_first_and_nobody_elses(desk: Desk, cedula: str) -> None:
    mine, other = await desk.office.person(cedula), await desk.office.person(str(next(_cedulas)))
    kinds = [kind for kind in code_list("usage-acts") if not kind.startswith(("protection.", "register."))]
    # A type that came to the log after this was written is shown all the same.
    kinds = [*(kind for kind in kinds if kind != "other"), "something.new"]
    expected = []
    for kind in kinds:
        expected.append(await desk.used(mine, kind))
        await desk.used(other, kind)
    page = await desk.read(citizen(mine))
    assert ids(page) == expected[::-1]
    assert page.next is None
    assert {row.text for row in page.rows} == {
        code_list("usage-acts")["other" if kind == "something.new" else kind]["es"] for kind in kinds
    }


async def test_a_line_says_in_plain_words_who_asked_what_and_why_but_not_which_official(
    desk: Desk, cedula: str
) -> None:
    mine = await desk.office.person(cedula)
    await desk.used(mine)
    page = await desk.read(citizen(mine))
    [line] = page_json(page)["usage"]
    assert line["who"]["text"] == "un funcionario de: Ministerio de Desarrollo Social"
    assert line["who"]["institution"]["code"] == "MDS"
    assert line["who"]["system"] == "mds-1"
    assert line["purpose"]["title"] == "Prestar el servicio solicitado"
    assert line["basis"] == {
        "code": "official-authority",
        "title": "Ejercicio de una función pública",
        "norm": "Ley 6174/2018, art. 4",
    }
    assert line["data"]["dataset"]["title"] == "Identidad civil"
    assert [field["title"] for field in line["data"]["fields"]] == ["Nombres", "Sexo"]
    assert (line["permitted"], line["emergency"]) == (True, False)
    assert OFFICIAL not in text_of(page)


@pytest.mark.parametrize(
    ("actor", "kind", "who"),
    [
        ({"client": "mds-1", "institution": "MDS"}, "system", "un sistema de: Ministerio de Desarrollo Social"),
        ({"channel": "command-line", "user": "uid:0"}, "gateway", "quien opera la pasarela"),
        ({"institution": "MITIC", "user": "{mine}", "roles": ["citizen"]}, "you", "usted"),
        # Only a token of one's own makes somebody the person: a user of an institution may be called anything.
        (
            {"institution": "MDS", "user": "{mine}", "roles": ["operator"]},
            "official",
            "un funcionario de: Ministerio de Desarrollo Social",
        ),
        (
            {"institution": "MITIC", "user": "another", "roles": ["citizen"]},
            "person",
            "otra persona, con su propia identificación",
        ),
    ],
)
async def test_it_says_what_kind_of_somebody_it_was(
    desk: Desk, cedula: str, actor: dict[str, Any], kind: str, who: str
) -> None:
    mine = await desk.office.person(cedula)
    filled = {name: str(mine) if value == "{mine}" else value for name, value in actor.items()}
    await desk.used(mine, "consent.read", "done", actor=filled)
    [row] = (await desk.read(citizen(mine))).rows
    assert (row.kind, row.who) == (kind, who)


async def test_denied_and_emergency_lines_are_marked_as_such(desk: Desk, cedula: str) -> None:
    mine = await desk.office.person(cedula)
    await desk.used(mine, "disclosure.denied", "deny", decision={"reasons": ["objection"]})
    await desk.used(mine, why={"emergency": {"reason": "danger-to-life", "incident": "I-77", "text": "accidente"}})
    page = await desk.read(citizen(mine))
    emergency, denied = page.rows
    assert emergency.emergency
    assert emergency.permitted
    assert not denied.permitted
    # Neither the reason of the no nor what the official wrote.
    assert all(word not in text_of(page) for word in ("objection", "I-77", "accidente"))


async def test_a_question_is_one_line_what_came_of_it_even_across_pages(desk: Desk, cedula: str) -> None:
    mine = await desk.office.person(cedula)
    lost = await desk.used(mine, "disclosure.intent")
    intent = await desk.used(mine, "disclosure.intent")
    released = await desk.used(mine, exchange={"intent": str(intent)})
    assert ids(await desk.read(citizen(mine))) == [released, lost]
    first = await desk.read(citizen(mine), asked=Asked(limit=1, since=START - timedelta(hours=2), until=START))
    assert ids(first) == [released]
    then = await desk.read(citizen(mine), asked=Asked(limit=1, until=START, after=first.next))
    assert (ids(then), then.next) == ([lost], None)


async def test_pages_stay_as_they_were_while_new_entries_arrive(desk: Desk, cedula: str) -> None:
    mine = await desk.office.person(cedula)
    before = [await desk.used(mine) for _ in range(5)]
    seen: list[UUID] = []
    asked = Asked(limit=2, until=START)
    while True:
        page = await desk.read(citizen(mine), asked=asked)
        seen += ids(page)
        await desk.used(mine)
        if page.next is None:
            break
        asked = replace(asked, after=page.next)
    assert seen == before[::-1]


async def test_a_period_takes_its_start_and_leaves_its_end(desk: Desk, cedula: str) -> None:
    mine, hour = await desk.office.person(cedula), timedelta(hours=1)
    days = [await desk.used(mine, at=START - hour * back) for back in (4, 3, 2)]
    page = await desk.read(citizen(mine), asked=Asked(limit=9, since=START - hour * 3, until=START - hour * 2))
    assert ids(page) == [days[1]]


async def test_each_line_has_its_place_and_its_proof_holds(desk: Desk, cedula: str) -> None:
    mine = await desk.office.person(cedula)
    await desk.used(mine)
    [waiting] = (await desk.read(citizen(mine))).rows
    assert (waiting.use.index, waiting.use.proven) == (None, False)
    context = desk.office.context
    async with context.database.engine.connect() as connection:
        await integrate_once(connection, load_signer(context.settings), context.audit)
    page = await desk.read(citizen(mine))
    assert len(page.rows) == 2
    async with context.database.connection() as connection:
        for line in page_json(page)["usage"]:
            proof = await prove(connection, UUID(line["log"]["proof"].removeprefix("/audit/log/proof/")))
            assert line["log"]["proven"]
            assert proof is not None
            assert (proof.place.log, proof.place.index) == (line["log"]["log"], line["log"]["index"])
            leaf = bytes.fromhex(line["log"]["leaf_hash"])
            assert verify_inclusion(leaf, proof.place.index, proof.head.size, proof.hashes, proof.head.root)


async def test_whole_registers_are_told_of_as_such_and_name_nobody(desk: Desk, cedula: str) -> None:
    mine = await desk.office.person(cedula)
    taken = await desk.used(
        None, "register.taken", "done", what={"holder": "IPS", "dataset": "social-insurance", "rows": 900}
    )
    page = await desk.read(citizen(mine), asked=Asked(limit=1))
    assert taken in [row.use.entry_id for row in page.registers]
    earlier = await desk.read(citizen(mine), asked=Asked(limit=1, until=START - timedelta(hours=1)))
    assert taken not in [row.use.entry_id for row in earlier.registers]
    assert taken not in ids(page)


async def test_the_reading_is_an_entry_and_the_next_one_shows_it(desk: Desk, cedula: str) -> None:
    mine = await desk.office.person(cedula)
    page = await desk.read(citizen(mine))
    assert page.rows == []
    told = await desk.last("usage.read")
    assert (told["what"]["rows"], told["what"]["hidden"]) == (0, {})
    [row] = (await desk.read(citizen(mine))).rows
    assert (row.kind, row.text, str(row.use.entry_id)) == ("you", "Miró quién usó sus datos", page.receipt["entry_id"])


# What is hidden


@pytest.mark.parametrize("kind", ["sealed", "court-order", "aggressor"])
async def test_under_a_protection_nothing_new_is_shown_and_only_the_log_says_so(
    desk: Desk, cedula: str, kind: str
) -> None:
    mine = await desk.office.person(cedula)
    old = await desk.used(mine, at=START - timedelta(days=10))
    plain = await desk.read(citizen(mine))
    # The way to the refuge begins before the flag is set.
    await desk.used(mine, at=START - timedelta(hours=71))
    await desk.flag(mine, kind, "MEC" if kind == "aggressor" else "")
    await desk.used(mine, "protection.set", "done", at=START)
    desk.office.at = START + timedelta(days=5)
    await desk.used(mine, "referral.created", at=START + timedelta(days=4))
    page = await desk.read(citizen(mine))
    assert ids(page) == [UUID(plain.receipt["entry_id"]), old]
    assert page_json(page).keys() == page_json(plain).keys()
    assert (await desk.last("usage.read"))["what"]["hidden"] == {"protected": 2, "protection": 1}
    assert "hidden" not in text_of(page)

    async with desk.office.context.database.transaction() as connection:
        await connection.execute(
            delete(consent_tables.protective_flag).where(consent_tables.protective_flag.c.subject == mine)
        )
    after = await desk.read(citizen(mine))
    assert len(ids(after)) == 5
    assert "protection.set" not in {row.use.type for row in after.rows}


async def test_hidden_lines_fill_no_page_and_leave_no_gap(desk: Desk, cedula: str) -> None:
    mine = await desk.office.person(cedula)
    seen = [await desk.used(mine, at=START - timedelta(days=10)) for _ in range(2)]
    for _ in range(3):
        # An official who calls themselves like the person is not the person.
        official = {"institution": "MINNA", "user": str(mine), "roles": ["operator"]}
        await desk.used(mine, "protection.read", "done", actor=official)
    page = await desk.read(citizen(mine), asked=Asked(limit=2))
    assert (ids(page), page.next) == (seen[::-1], None)


async def test_who_keeps_protected_cases_sees_all_of_it_and_only_on_asking_for_it(desk: Desk, cedula: str) -> None:
    mine, officer = await desk.office.person(cedula), await desk.office.officer("MINNA")
    await desk.used(mine, "protection.set", "done")
    await desk.flag(mine, "sealed")
    who = Named("cedula", cedula)
    assert (await desk.read(officer, who)).rows == []
    whole = Asked(limit=200, whole=True)
    page = await desk.read(officer, who, whole)
    assert [row.hidden for row in page.rows] == ["protected", "protection"]
    assert page_json(page)["usage"][1]["hidden"]["code"] == "protection"
    for caller in (citizen(mine), PORTAL):
        with pytest.raises(errors.Denied):
            await desk.read(caller, None if caller.person else who, whole)


@pytest.mark.parametrize(
    "of_case",
    [
        {"dataset": CHILDS_CASE, "fields": tuple(code_list("datasets")[CHILDS_CASE]["fields"])},
        {"why": {"emergency": {"reason": "child-in-danger"}}},
        {"why": {"emergency": {"reason": "violence-in-progress"}}},
    ],
    ids=["dataset", "child-in-danger", "violence"],
)
async def test_a_case_of_violence_is_shown_late_and_to_a_representative_never(
    desk: Desk, cedula: str, of_case: dict[str, Any]
) -> None:
    child, parent = (
        await desk.office.person(cedula, birth_date=CHILD),
        await desk.office.person(str(next(_cedulas)), birth_date=ADULT),
    )
    await desk.mandate(child, parent)
    case = await desk.used(child, at=START - timedelta(hours=1), **of_case)
    plain = await desk.used(child)
    who = Named("siis", str(child))
    assert ids(await desk.read(citizen(child))) == [plain]
    assert (await desk.last("usage.read"))["what"]["hidden"] == {"delayed": 1}
    desk.office.at = START + timedelta(hours=72)
    assert case in ids(await desk.read(citizen(child)))
    shown = ids(await desk.read(citizen(parent), who))
    assert plain in shown
    assert case not in shown
    assert (await desk.last("usage.read"))["what"]["hidden"] == {"representative": 1}


async def test_the_review_of_a_hidden_emergency_does_not_tell_of_it(desk: Desk, cedula: str) -> None:
    child, parent = (
        await desk.office.person(cedula, birth_date=CHILD),
        await desk.office.person(str(next(_cedulas)), birth_date=ADULT),
    )
    await desk.mandate(child, parent)
    reviews = {}
    cases = {
        "plain": {"reason": "medical", "dataset": "identity", "fields": ["given_names"]},
        "danger": {"reason": "child-in-danger", "dataset": "identity", "fields": ["given_names"]},
        "case": {
            "reason": "medical",
            "dataset": CHILDS_CASE,
            "fields": list(code_list("datasets")[CHILDS_CASE]["fields"]),
        },
    }
    for name, what in cases.items():
        row = {
            "id": uuid7(),
            "institution": "MDS",
            "user": OFFICIAL,
            "client": "mds-1",
            "subject": child,
            "holder": "PN-IDENT",
            "incident": f"INC-{uuid7()}",
            "opened_at": START - timedelta(hours=2),
            "expires_at": START + timedelta(hours=22),
        }
        async with desk.office.context.database.transaction() as connection:
            await connection.execute(insert(consent_tables.break_glass), {**row, **what})
        told = {"id": str(row["id"]), "dataset": what["dataset"], "verdict": "justified"}
        reviews[name] = await desk.used(child, "breakglass.reviewed", "done", why={}, what=told)
    assert ids(await desk.read(citizen(child))) == [reviews["plain"]]
    assert reviews["plain"] in (shown := ids(await desk.read(citizen(parent), Named("siis", str(child)))))
    assert {reviews["danger"], reviews["case"]}.isdisjoint(shown)


# Who may read


async def test_a_guardian_sees_the_childs_and_is_told_apart_from_the_child(desk: Desk, cedula: str) -> None:
    child, parent = (
        await desk.office.person(cedula, birth_date=CHILD),
        await desk.office.person(str(next(_cedulas)), birth_date=ADULT),
    )
    await desk.mandate(child, parent)
    used, who = await desk.used(child), Named("cedula", cedula)
    assert ids(await desk.read(citizen(parent), who)) == [used]
    [mine, _used] = (await desk.read(citizen(parent), who)).rows
    assert mine.kind == "you"
    by_child = await desk.read(citizen(child))
    assert [row.kind for row in by_child.rows] == ["person", "person", "official"]
    assert str(parent) not in text_of(by_child)


@pytest.mark.parametrize("how", ["barred", "ended", "sealed", "none"])
async def test_a_blocked_parent_gets_what_a_stranger_to_the_gateway_gets(desk: Desk, cedula: str, how: str) -> None:
    child, parent = (
        await desk.office.person(cedula, birth_date=CHILD),
        await desk.office.person(str(next(_cedulas)), birth_date=ADULT),
    )
    other = await desk.office.person(str(next(_cedulas)), birth_date=ADULT)
    if how != "none":
        mandate = await desk.mandate(child, parent)
    await desk.mandate(child, other)
    await desk.used(child)
    if how == "barred":
        await desk.flag(child, "aggressor", str(parent), since=START + timedelta(days=9))
    if how == "sealed":
        await desk.flag(child, "sealed")
    if how == "ended":
        async with desk.office.context.database.transaction() as connection:
            row = consent_tables.representation
            await connection.execute(
                update(row).where(row.c.id == mandate).values(ended_at=START, end_reason="court-order")
            )
    told = []
    for who in (Named("cedula", cedula), Named("cedula", "7999999")):
        with pytest.raises(errors.NotFound) as refused:
            await desk.read(citizen(parent), who)
        assert refused.value.receipt is not None
        told.append((refused.value.code, refused.value.pointer, refused.value.source))
        entry = await desk.last("usage.denied")
        assert entry["outcome"] == "deny"
        assert (entry["subject"] is None) is (who.value == "7999999")
    assert told[0] == told[1]
    if how in ("ended", "none"):
        # Who looks after the child learns that somebody tried.
        [denied, _used] = (await desk.read(citizen(other), Named("cedula", cedula))).rows
        assert (denied.use.type, denied.kind, denied.permitted) == ("usage.denied", "person", False)


async def test_a_portal_shows_a_person_theirs_and_a_representative_by_a_mandate_only(desk: Desk, cedula: str) -> None:
    child = await desk.office.person(cedula, birth_date=CHILD)
    parents = [str(next(_cedulas)) for _ in range(2)]
    mother, _father = [await desk.office.person(each, birth_date=ADULT) for each in parents]
    await desk.mandate(child, mother)
    used, who = await desk.used(child), Named("cedula", cedula)
    assert ids(await desk.read(PORTAL, who, representative=Named("cedula", parents[0]))) == [used]
    assert (await desk.last("usage.read"))["what"]["represented"] is True
    for nobody in (Named("cedula", parents[1]), Named("cedula", "7999998")):
        with pytest.raises(errors.NotFound):
            await desk.read(PORTAL, who, representative=nobody)
    assert used in ids(await desk.read(PORTAL, who))


async def test_an_institution_that_a_person_is_protected_from_is_shown_nothing(desk: Desk, cedula: str) -> None:
    mine = await desk.office.person(cedula)
    await desk.flag(mine, "aggressor", "MITIC")
    with pytest.raises(errors.NotFound):
        await desk.read(PORTAL, Named("cedula", cedula))


async def test_an_operator_shows_nobody_anything(desk: Desk, cedula: str) -> None:
    await desk.office.person(cedula)
    with pytest.raises(errors.Denied):
        await desk.read(OPERATOR, Named("cedula", cedula))


async def test_nothing_is_left_to_show_once_a_persons_key_was_destroyed(
    settings: Settings, desk: Desk, cedula: str
) -> None:
    mine = await desk.office.person(cedula)
    await desk.used(mine)
    desk.office.erase(mine)
    async with open_office(settings) as office:
        with pytest.raises(SubjectErased):
            await Desk(office).read(citizen(mine))


# The shapes of others


async def test_the_data_tracker_counts_and_pages_what_others_did(desk: Desk, cedula: str) -> None:
    mine = await desk.office.person(cedula)
    for _ in range(3):
        await desk.used(mine)
    await desk.used(mine, "protection.read", "done")
    await desk.used(mine, "usage.read", "done", actor={"user": str(mine), "roles": ["citizen"], "institution": "MITIC"})
    page = await desk.read(citizen(mine), asked=estonia.asked({"offset": "2", "limit": "5"}))
    assert estonia.find_usage_json(page) == {
        "totalUsages": 3,
        "usages": [
            {
                "logtime": "2027-03-01T12:00:00Z",
                "action": "Recibió datos suyos: Identidad civil, Prestar el servicio solicitado",
                "receiverCode": "MDS",
                "receiverName": "Ministerio de Desarrollo Social",
                "receiverSystem": "mds-1",
            }
        ],
    }


@pytest.mark.parametrize(
    ("spelling", "members", "reference"),
    [
        (govstack.PASCAL, ("ID", "ReaderID", "Refrences"), "ReferenceID"),
        (govstack.CAMEL, ("id", "readerId", "refrences"), "ReferenceId"),
    ],
    ids=["1.3.0", "23Q4"],
)
async def test_my_personal_data_usage_names_readers_institutions_and_no_official(
    desk: Desk, cedula: str, spelling: govstack.Spelling, members: tuple[str, str, str], reference: str
) -> None:
    mine = await desk.office.person(cedula)
    used = await desk.used(mine)
    await desk.used(mine, dataset="social-insurance", fields=("cedula",))
    await desk.used(mine, "disclosure.denied", "deny")
    query = {spelling.user: str(mine), spelling.database: "identity"}
    assert govstack.person_asked_for(query, spelling) == Named("siis", str(mine))
    page = await desk.read(citizen(mine), asked=govstack.asked(query, spelling))
    [record] = govstack.usage_json(page, spelling)
    record_id, reader, references = (record[name] for name in members)
    assert (record_id, reader, references) == (str(used), "", [{reference: "identity"}])
    assert tuple(record) == spelling.members


@pytest.mark.parametrize("value", ["", "3000000", "PY3000000", "../x"])
def test_no_address_of_either_takes_an_identifier_of_the_country(value: str) -> None:
    with pytest.raises(errors.BadRequest, match="bad-identifier"):
        govstack.person_asked_for({"userID": value}, govstack.PASCAL)
    with pytest.raises(errors.BadRequest, match="bad-identifier"):
        estonia.person_asked_for({"userCode": value})


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"limit": "1001"}, "/limit"),
        ({"limit": "0"}, "/limit"),
        ({"offset": "-1"}, "/offset"),
        ({"periodStart": "ayer"}, "/periodStart"),
        ({"periodEnd": "9999-12-31T23:59:59"}, "/periodEnd"),
    ],
)
def test_the_data_tracker_says_which_parameter_it_cannot_read(query: dict[str, str], pointer: str) -> None:
    with pytest.raises(errors.BadRequest) as refused:
        estonia.asked(query)
    assert refused.value.pointer == pointer


def test_a_period_of_the_data_tracker_without_an_offset_is_paraguays() -> None:
    asked = estonia.asked({"periodStart": "2021-01-31T10:20:30", "periodEnd": "2021-01-31T10:20:30Z"})
    assert asked.since == datetime(2021, 1, 31, 13, 20, 30, tzinfo=UTC)
    assert asked.until == datetime(2021, 1, 31, 10, 20, 30, tzinfo=UTC)


def test_every_act_says_which_fields_it_shows() -> None:
    assert {spec.get("shows") for spec in code_list("usage-acts").values()} == {None, "asked", "released"}
