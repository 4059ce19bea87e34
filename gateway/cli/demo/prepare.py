"""What stands before the demonstration begins: an agreement more, a board with a member, consents, a sealed case.

Whoever runs the machine does all this, as the commands ``siis agreement``, ``board``, ``role`` and ``protection`` do.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from consent import agreements, people, records
from consent.models import Actor
from consent.roles import grant_role
from gateway import evidence
from gateway.boards import store as boards
from gateway.boards.service import MEMBER, NewBoard, adding, seating
from gateway.cli.context import Context
from gateway.cli.demo.clients import Operator
from gateway.cli.demo.demand import DEPARTMENT
from gateway.clock import local_day, utc_now
from gateway.governance.service import Work, answer_of
from gateway.registry.tables import person, person_identifier

BOARD, MEMBER_OF_BOARD = "mesa-central", Operator("vocal", MEMBER)
_BOARD_OF = "MDS"
_AGREEMENT, _LIKE, _REQUESTER, _HOLDER = "DEMO-MSPBS-MDS-REFERRAL", "DEMO-UTGS-MDS-REFERRAL", "MSPBS", "MDS"
_CONSENTED = ("cedula", "given_names", "surnames")


async def prepare_board(context: Context) -> None:
    """Add the board of the department with one member, where a run before did not."""
    async with context.database.connection() as connection:
        if await boards.by_code(connection, BOARD) is not None:
            return
    names = {"es": "Mesa de Protección Social de Central", "en": "Board of social protection of Central"}
    new = NewBoard(code=BOARD, names=names, department=DEPARTMENT, district=None, institution=_BOARD_OF)

    async def appointing(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
        user, role = MEMBER_OF_BOARD
        return await grant_role(connection, actor, institution=_BOARD_OF, user=user, role=role, valid_to=None, at=at)

    await _change(context, appointing, adding(new), seating(BOARD, _BOARD_OF, MEMBER_OF_BOARD.user))


async def prepare_agreement(context: Context) -> None:
    """Let health establishments refer to the programmes of the MDS: drafted, signed by both, in force."""
    known = {each.code: each for each in agreements.demonstration_agreements()}[_LIKE]
    new = replace(
        known,
        code=_AGREEMENT,
        requester=_REQUESTER,
        es="De los establecimientos de salud a los programas del MDS",
        en="From health establishments to MDS programmes",
    )
    async with context.database.connection() as connection:
        if await agreements.read_histories(connection, [_AGREEMENT]):
            return

    async def drafting(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
        return await agreements.draft_agreement(connection, new, actor=actor, party=_REQUESTER, at=at)

    steps: list[tuple[agreements.Step, str]] = [
        ("propose", _REQUESTER),
        ("sign", _REQUESTER),
        ("sign", _HOLDER),
        ("activate", _HOLDER),
    ]
    await _change(context, drafting, *(_stepping(step, party) for step, party in steps))


def _stepping(step: agreements.Step, party: str) -> Work:
    async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
        signed = {"signatory": agreements.DEMONSTRATION, "proof_reference": agreements.DEMONSTRATION}
        return await agreements.take_step(
            connection, _AGREEMENT, step, actor=actor, party=party, at=at, **(signed if step == "sign" else {})
        )

    return work


async def _change(context: Context, *works: Work) -> None:
    """Do several changes in one transaction, each with its entry: a run that is ended meanwhile leaves none of them."""
    actor, at = Actor(institution=None, user=agreements.DEMONSTRATION), utc_now()
    async with context.database.transaction() as connection:
        for work in works:
            await _log(context, connection, await work(connection, actor, at), at)


async def _log(context: Context, connection: AsyncConnection, said: dict[str, Any], at: datetime) -> None:
    subject = said.get("subject")
    entry = evidence.entry(
        said["event"],
        "done",
        at=at,
        policy_version="none",
        subject=None if subject is None else UUID(str(subject)),
        actor={"channel": "demonstration"},
        what=answer_of(said),
    )
    await context.audit.stage(connection, entry)


async def prepare_consents(context: Context) -> tuple[list[str], str, str, str]:
    """Record consents for two adults, one of them withdrawn, and seal a third person's case.

    Returns cédulas: of ordinary adults, of who consented, of who withdrew, of the sealed case.
    """
    today = utc_now()
    adult = local_day(today) - timedelta(days=365 * 19)
    query = (
        select(person.c.id, person.c.birth_date, person_identifier.c.id.label("row"), person_identifier.c.value)
        .join(person_identifier, person_identifier.c.person_id == person.c.id)
        .where(person_identifier.c.system == "cedula", person.c.birth_date < adult, person.c.deceased_on.is_(None))
        .order_by(person.c.id)
        .limit(30)
    )
    async with context.database.connection() as connection:
        rows = (await connection.execute(query)).all()
    cedulas = [context.vault.open("person_identifier.value", row.row, row.value) for row in rows]
    withdrew, protected = rows[1].id, rows[2].id
    async with context.database.transaction() as connection:
        said = [await _consent(connection, row.id, row.birth_date) for row in rows[:2]]
        said.append(await _withdrawn(connection, UUID(said[1]["consent"])))
        said.append(await people.set_flag(connection, protected, people.SEALED, at=today))
        for each, subject in zip(said, (rows[0].id, withdrew, withdrew, protected), strict=True):
            await _log(context, connection, {**each, "subject": str(subject)}, today)
    return cedulas[3:], cedulas[0], cedulas[1], cedulas[2]


async def _consent(connection: AsyncConnection, subject: UUID, birth_date: date) -> dict[str, Any]:
    new = records.NewConsent(
        agreement="DEMO-SNPP-IDENT",
        purposes=frozenset({"service-provision"}),
        fields=frozenset(_CONSENTED),
        text_version="demo-1",
        language="es",
        channel="in-person",
        proof_reference="demo",
    )
    return await records.record_consent(
        connection, subject, new, birth_date=birth_date, recorded_by="demonstration", at=utc_now()
    )


async def _withdrawn(connection: AsyncConnection, consent_id: UUID) -> dict[str, Any]:
    return await records.end_consent(connection, consent_id, step="withdraw", reason="person", at=utc_now())
