"""Boards, reports, links and deadlines over the referrals of one real database, with one clock for all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from referral_desk import START, Desk, open_desk

from audit.models import LoggedEntry
from audit.search import recent
from consent import roles
from consent.models import Actor, Caller
from gateway.boards.cases import Cases
from gateway.boards.service import Boards, NewBoard, adding, seating
from gateway.boards.store import acting_for
from gateway.commands import Done
from gateway.deadlines.keeper import Deadlines
from gateway.governance.service import Governance
from gateway.links.service import Links
from gateway.referrals.nominal import PRIORITY_TRACK
from gateway.reports.service import Reports
from gateway.settings import Settings
from gateway.vault import load_epochs

MACHINE = Actor(institution=None, user="uid:0")
#: Where the desk's persons live, and another district of the same department.
DEPARTMENT, DISTRICT, ELSEWHERE = "11", "1113", "1116"


class Territory:
    """The services under test over the desk's referrals."""

    def __init__(self, desk: Desk) -> None:
        runtime = desk.runtime
        self.desk, self.runtime = desk, runtime
        self.governance = Governance(
            database=runtime.database, audit=runtime.audit, policies=runtime.policies, now=lambda: self.desk.at
        )
        parts: dict[str, Any] = {"governance": self.governance, "vault": runtime.vault, "audit": runtime.audit}
        parts["policies"] = runtime.policies
        self.reports = Reports(**parts)
        self.boards = Boards(**parts, volume=runtime.referrals._desk.volume)
        self.cases = Cases(self.governance, runtime.vault)
        self.links = Links(**parts, referrals=desk.referrals, public_address="https://siis.example")

    def keeper(self) -> Deadlines:
        """Return a keeper of deadlines, as every worker has one."""
        runtime = self.runtime
        return Deadlines(
            database=runtime.database,
            vault=runtime.vault,
            audit=runtime.audit,
            boards=acting_for,
            now=lambda: self.desk.at,
        )

    async def referral(self, **changes: Any) -> UUID:
        """Send a referral and return its number."""
        return UUID((await self.desk.refer(**changes)).answer["id"])

    async def tracked(self, **changes: Any) -> UUID:
        """Send a referral of the priority track."""
        return await self.referral(priority=PRIORITY_TRACK, **changes)

    async def delivered(self, **changes: Any) -> UUID:
        """Send a referral, and let its recipient accept it."""
        number = await self.referral(**changes)
        await self.desk.report(number, "accept")
        return number

    async def board(self, code: str, district: str | None, institution: str = "MTESS") -> None:
        """Add a board in the department of the desk's persons."""
        names = {"es": f"Mesa {code}", "en": f"Board {code}"}
        new = NewBoard(code=code, names=names, department=DEPARTMENT, district=district, institution=institution)
        await self.governance.change_here(adding(new))

    async def member(self, board: str, user: str, institution: str = "MTESS") -> Caller:
        """Give somebody a seat on a board and the role that goes with it."""
        await self.governance.change_here(seating(board, institution, user))
        return await self.holder("board-member", user, institution)

    async def holder(self, role: str, user: str, institution: str) -> Caller:
        """Return somebody of an institution who acts in a role that is granted."""
        async with self.runtime.database.transaction() as connection:
            await roles.grant_role(
                connection,
                MACHINE,
                institution=institution,
                user=user,
                role=role,
                valid_to=None,
                at=START - timedelta(days=9),
            )
        async with self.runtime.database.connection() as connection:
            await self.runtime.policies.load(connection)
        return someone(institution, role, user)

    async def entries(self, kind: str, limit: int = 50) -> list[LoggedEntry]:
        """Return the newest entries of a type."""
        epochs = load_epochs(self.runtime.settings.keys_dir, create=False)
        async with self.runtime.database.connection() as connection:
            return await recent(connection, epochs, limit, type=kind)

    async def happened(self, referral: UUID) -> list[str]:
        """Return what happened to a referral after it was made."""
        _current, events, _row = await self.desk.seen(referral)
        return [event.type for event in events if event.type not in ("create", "send")]

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the database as it is."""
        async with self.runtime.database.connection() as connection:
            return [tuple(row) for row in await connection.exec_driver_sql(query, values)]

    async def protect(self, person: UUID, kind: str, target: str = "") -> None:
        """Protect a person's case."""
        async with self.runtime.database.transaction() as connection:
            await connection.exec_driver_sql(
                "INSERT INTO consent.protective_flag (subject, kind, target, since) VALUES (%s, %s, %s, %s)",
                (person, kind, target, START - timedelta(days=1)),
            )


def someone(institution: str, role: str = "supervisor", user: str = "jefa") -> Caller:
    """Return a verified official of an institution."""
    return Caller(
        client_id=f"{institution.lower()}-1",
        institution=institution,
        user=user,
        user_verified=True,
        roles=frozenset({role}),
        assurance=2,
    )


def number(done: Done) -> UUID:
    """Return the number that a change answered with."""
    return UUID(done.answer["id"])


def midnight(day: datetime) -> datetime:
    """Return when this day ends in Paraguay, which keeps UTC-3."""
    return day.replace(hour=3, minute=0, second=0, microsecond=0) + timedelta(days=1)


@asynccontextmanager
async def open_territory(settings: Settings) -> AsyncIterator[Territory]:
    """Open the services over a prepared database."""
    async with open_desk(settings) as desk:
        yield Territory(desk)
