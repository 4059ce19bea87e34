"""What is stored of agreements, and what the policy makes of it, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from consent_database import APP_ROLE, consent_database
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from consent import agreements
from consent.agreement_view import history_json, summary_json
from consent.agreements import (
    Step,
    conflicts_of,
    demonstration_agreements,
    draft_agreement,
    list_histories,
    load_demonstration,
    put_agreement,
    read_history,
    take_step,
)
from consent.errors import InvalidAgreement, StepRefused, UnknownAgreement
from consent.models import Actor, Agreement
from consent.policy import PolicyStore, read_agreements
from schemas.codes import code_list

AT = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
ANA, LUIS = Actor(institution="MDS", user="ana"), Actor(institution="MDS", user="luis")
EVA, IVO = Actor(institution="PN-IDENT", user="eva"), Actor(institution="PN-IDENT", user="ivo")
STRANGER, MACHINE = Actor(institution="MEC", user="ada"), Actor(institution=None, user="uid:0")


@pytest.fixture
async def engine() -> AsyncIterator[AsyncEngine]:
    async with consent_database() as made:
        yield made


@pytest.fixture
async def conn(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection of the application's role, on a database with the demonstration."""
    async with engine.connect() as made:
        await made.execute(text(f"SET ROLE {APP_ROLE}"))
        await load_demonstration(made, at=AT)
        yield made


def demonstration(code: str) -> Agreement:
    return next(each for each in demonstration_agreements() if each.code == code)


def drafted(**changes: Any) -> Agreement:
    return replace(demonstration("DEMO-MDS-IDENT"), code="MDS-NEW", version=0, **changes)


async def take(conn: AsyncConnection, step: Step, actor: Actor, **rest: Any) -> dict[str, Any]:
    rest = {"code": "MDS-NEW", "at": AT, "proof_reference": "exp-1", **rest}
    return await take_step(conn, rest.pop("code"), step, actor=actor, **rest)


async def activate(conn: AsyncConnection, agreement: Agreement) -> dict[str, Any]:
    await draft_agreement(conn, agreement, actor=ANA, at=AT)
    await take(conn, "propose", ANA, code=agreement.code)
    await take(conn, "sign", LUIS, code=agreement.code)
    await take(conn, "sign", EVA, code=agreement.code)
    return await take(conn, "activate", IVO, code=agreement.code)


async def in_force(conn: AsyncConnection, code: str = "MDS-NEW") -> list[tuple[int, str]]:
    return [(each.version, each.status) for each in await read_agreements(conn, code)]


async def test_the_demonstration_is_stored_once_signed_by_both_and_its_edits_are_kept(conn: AsyncConnection) -> None:
    edited = replace(demonstration("DEMO-MDS-IDENT"), status="suspended")
    await put_agreement(conn, edited, at=AT)
    assert await load_demonstration(conn, at=AT) == []
    stored = {each.code: each for each in await read_agreements(conn)}
    assert stored["DEMO-MDS-IDENT"] == replace(edited, version=2)
    assert stored.keys() == {each.code for each in demonstration_agreements()}
    for history in await list_histories(conn, limit=1000):
        assert history.signed_by(history.versions[0].agreement.text_sha256()) == history.parties


async def test_the_demonstration_fills_the_compartments_of_a_database_that_has_none(conn: AsyncConnection) -> None:
    compartments = (await PolicyStore(conn.engine).load(conn)).compartments
    shipped = code_list("compartments")
    assert compartments == {(inst, role): frozenset(held) for inst in shipped for role, held in shipped[inst].items()}
    await conn.execute(text("UPDATE consent.compartment_grant SET revoked_at = granted_at, revoked_by = 'somebody'"))
    await load_demonstration(conn, at=AT)
    assert not (await PolicyStore(conn.engine).load(conn)).compartments


async def test_two_processes_storing_the_demonstration_at_once_store_it_once(engine: AsyncEngine) -> None:
    async def load() -> int:
        async with engine.begin() as own:
            return len(await load_demonstration(own, at=AT))

    counts = await asyncio.gather(*(load() for _ in range(4)))
    assert sorted(counts) == [0, 0, 0, len(demonstration_agreements()) + len(code_list("compartments"))]


async def test_a_draft_leaves_the_version_before_it_in_force(conn: AsyncConnection) -> None:
    statuses = (("draft", 1), ("proposed", 1), ("signed", 1), ("suspended", 5), ("active", 6), ("expired", 7))
    for status, version in statuses:
        await put_agreement(conn, replace(demonstration("DEMO-MDS-IDENT"), status=status), at=AT)  # type: ignore[arg-type]
        assert await in_force(conn, "DEMO-MDS-IDENT") == [(version, "active" if version == 1 else status)]


async def test_the_parties_of_a_code_never_change(conn: AsyncConnection) -> None:
    with pytest.raises(InvalidAgreement) as caught:
        await put_agreement(conn, replace(demonstration("DEMO-SNPP-IDENT"), requester="MDS"), at=AT)
    assert caught.value.field == "requester"
    await activate(conn, drafted())
    with pytest.raises(InvalidAgreement) as caught:
        await draft_agreement(conn, drafted(holder="REC", datasets={"birth": frozenset({"cedula"})}), actor=ANA, at=AT)
    assert caught.value.field == "holder"


async def test_an_agreement_outside_the_code_lists_is_not_stored(conn: AsyncConnection) -> None:
    with pytest.raises(InvalidAgreement):
        await put_agreement(conn, replace(demonstration("DEMO-MDS-IDENT"), roles=frozenset({"king"})), at=AT)
    assert await in_force(conn, "DEMO-MDS-IDENT") == [(1, "active")]


async def test_an_unreadable_agreement_permits_nothing_and_harms_no_other(conn: AsyncConnection) -> None:
    await conn.execute(
        text(
            "INSERT INTO consent.agreement (code, version, document, status, valid_from) "
            "VALUES ('DEMO-MDS-IDENT', 2, '{\"requester\": 7}', 'active', now())"
        )
    )
    policy = await PolicyStore(conn.engine).load(conn)
    assert "DEMO-MDS-IDENT" not in policy.agreements
    assert len(policy.agreements) == len(demonstration_agreements()) - 1
    with pytest.raises(UnknownAgreement):
        await read_history(conn, "DEMO-MDS-IDENT")


async def test_an_agreement_goes_from_draft_to_its_end_one_version_a_step(conn: AsyncConnection) -> None:
    said = await activate(conn, drafted())
    assert (said["event"], said["agreement"], said["version"], said["party"]) == (
        "agreement.activated",
        "MDS-NEW",
        5,
        "PN-IDENT",
    )
    assert said["text_sha256"] == replace(drafted(), status="active").text_sha256().hex()
    assert await in_force(conn) == [(5, "active")]
    assert (await take(conn, "suspend", EVA, reason="Resolución 1/2026"))["reason"] == "Resolución 1/2026"
    assert await in_force(conn) == [(6, "suspended")]
    with pytest.raises(StepRefused):
        await take(conn, "resume", ANA)
    await take(conn, "resume", IVO)
    assert await in_force(conn) == [(7, "active")]
    await take(conn, "expire", ANA)
    assert await in_force(conn) == [(8, "expired")]
    history = await read_history(conn, "MDS-NEW", party="MDS")
    assert [each.by for each in history.versions][:4] == ["MDS/ana", "MDS/ana", "MDS/luis", "PN-IDENT/eva"]
    assert [(each.party, each.signatory) for each in history.signatures] == [("MDS", "luis"), ("PN-IDENT", "eva")]
    assert history.possible() == ("draft",)


async def test_whoever_runs_the_machine_acts_for_the_party_they_name_and_names_the_signatory(
    conn: AsyncConnection,
) -> None:
    await draft_agreement(conn, drafted(), actor=MACHINE, party="MDS", at=AT)
    with pytest.raises(UnknownAgreement):
        await take(conn, "propose", MACHINE)
    await take(conn, "propose", MACHINE, party="MDS")
    with pytest.raises(ValueError, match="signatory"):
        await take(conn, "sign", MACHINE, party="MDS")
    await take(conn, "sign", MACHINE, party="MDS", signatory="director")
    said = await take(conn, "sign", MACHINE, party="PN-IDENT", signatory="jefa")
    assert (said["status"], said["party"], said["signatory"]) == ("signed", "PN-IDENT", "jefa")


@pytest.mark.parametrize("actor", [STRANGER, MACHINE])
async def test_to_who_is_no_party_an_agreement_does_not_exist(conn: AsyncConnection, actor: Actor) -> None:
    party = "MEC" if actor.institution is None else None
    answers = []
    for code in ("DEMO-MDS-IDENT", "NOBODY-KNOWS-IT"):
        with pytest.raises(UnknownAgreement) as caught:
            await take(conn, "suspend", actor, code=code, party=party)
        answers.append(type(caught.value))
        with pytest.raises(UnknownAgreement):
            await read_history(conn, code, party="MEC")
    assert await in_force(conn, "DEMO-MDS-IDENT") == [(1, "active")]


async def test_a_user_opens_codes_of_their_institution_and_learns_nothing_about_others(conn: AsyncConnection) -> None:
    answers = set()
    # Somebody else's, one that is free but not of their own, and one that only looks like it.
    for code in ("DEMO-MSPBS-IDENT", "REC-FREE", "MDSX"):
        with pytest.raises(InvalidAgreement) as caught:
            await draft_agreement(conn, replace(drafted(), code=code), actor=ANA, at=AT)
        answers.add((caught.value.field, caught.value.what, caught.value.allowed))
    assert len(answers) == 1
    with pytest.raises(InvalidAgreement) as caught:
        await draft_agreement(conn, drafted(), actor=STRANGER, at=AT)
    assert caught.value.field == "requester"
    # A party may replace what was opened under another name.
    renewed = replace(demonstration("DEMO-MDS-IDENT"), valid_to=AT + timedelta(days=400))
    assert (await draft_agreement(conn, renewed, actor=EVA, at=AT))["version"] == 2


async def test_what_no_longer_fits_the_code_lists_is_not_signed_but_can_be_stopped(
    conn: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await activate(conn, drafted())
    await activate(conn, replace(drafted(), code="MDS-TWO"))
    await draft_agreement(conn, drafted(es="Otro texto"), actor=ANA, at=AT)
    await take(conn, "propose", ANA)
    shrunk = {code: spec for code, spec in code_list("purposes").items() if code != "fraud-prevention"}
    monkeypatch.setattr(agreements, "code_list", lambda name: shrunk if name == "purposes" else code_list(name))
    with pytest.raises(InvalidAgreement):
        await take(conn, "sign", LUIS)
    await take(conn, "suspend", EVA)
    await take(conn, "expire", EVA, code="MDS-TWO")
    assert await in_force(conn) == [(8, "suspended")]


async def test_agreements_that_contradict_each_other_are_named_when_one_comes_into_force(conn: AsyncConnection) -> None:
    narrower = drafted(datasets={"identity": frozenset({"cedula", "given_names"})})
    [conflict] = (await activate(conn, narrower))["conflicts"]
    assert (conflict["first"], conflict["second"], conflict["differs"]) == ("DEMO-MDS-IDENT", "MDS-NEW", ["fields"])
    assert len(await conflicts_of(conn, party="PN-IDENT")) == 1
    assert await conflicts_of(conn, party="MEC") == []
    assert await conflicts_of(conn, "DEMO-MSPBS-IDENT") == []


async def test_a_list_shows_a_party_its_own_page_by_page(conn: AsyncConnection) -> None:
    own = {each.code for each in demonstration_agreements() if "MDS" in (each.requester, each.holder)}
    await draft_agreement(conn, drafted(), actor=ANA, at=AT)
    seen: list[str] = []
    while page := await list_histories(conn, party="MDS", after=seen[-1] if seen else "", limit=3):
        seen += [each.code for each in page]
    assert seen == sorted(own | {"MDS-NEW"})
    assert [each.code for each in await list_histories(conn, party="MDS", status="draft")] == ["MDS-NEW"]
    assert await list_histories(conn, party="MEC", status="draft") == []


async def test_an_agreement_is_shown_with_what_is_in_force_and_what_is_negotiated(conn: AsyncConnection) -> None:
    await activate(conn, drafted())
    await draft_agreement(conn, drafted(es="Otro texto"), actor=EVA, at=AT)
    shown = history_json(await read_history(conn, "MDS-NEW"), [])
    assert shown["current"]["es"] == drafted().es
    assert shown["pending"]["es"] == "Otro texto"
    assert shown["pending"]["text_sha256"] not in {each["text_sha256"] for each in shown["signatures"]}
    assert [each["status"] for each in shown["versions"]] == [
        "draft",
        "proposed",
        "proposed",
        "signed",
        "active",
        "draft",
    ]
    assert shown["steps"] == ["draft", "propose", "suspend", "expire"]
    short = summary_json(await read_history(conn, "MDS-NEW"))
    assert (short["status"], short["version"], short["pending"]) == ("active", 5, {"version": 6, "status": "draft"})
