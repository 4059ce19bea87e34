"""An office where persons ask for their rights: a real database, officers and citizens, and a clock that tests set."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from audit.models import LoggedEntry, Outcome
from audit.search import recent
from consent import roles
from consent.models import Actor, Caller
from consent.policy import PolicyStore
from gateway import embedded, evidence
from gateway.cli.context import Context, open_context
from gateway.commands import Command
from gateway.governance.service import Governance
from gateway.registry import service as registry
from gateway.registry.models import NewPerson
from gateway.rights.breaches import Breaches
from gateway.rights.models import NewRequest
from gateway.rights.service import Rights
from gateway.settings import Settings
from schemas.ids import uuid7

START = datetime(2027, 3, 1, 13, 0, tzinfo=UTC)
MACHINE = Actor(institution=None, user="uid:0")


class Office:
    """The services under test and what a test needs around them; ``at`` is what their clock says."""

    def __init__(self, context: Context) -> None:
        self.context, self.at = context, START
        self.policies = PolicyStore(context.database.engine)
        self.governance = Governance(
            database=context.database, audit=context.audit, policies=self.policies, now=lambda: self.at
        )
        parts: dict[str, Any] = {"audit": context.audit, "vault": context.vault, "epochs": context.epochs}
        self.rights = Rights(governance=self.governance, **parts)
        self.breaches = Breaches(governance=self.governance, **parts)

    async def person(self, cedula: str, **changes: Any) -> UUID:
        """Register a person."""
        values = {"given_names": "Ña Eme", "surnames": "Ficticia", "identifiers": (("cedula", cedula),), **changes}
        person = NewPerson(id=uuid7(), **values)
        async with self.context.database.transaction() as connection:
            await registry.register(connection, self.context.vault, [person])
        return person.id

    async def officer(self, institution: str) -> Caller:
        """Return an institution's data-protection officer, the role granted."""
        user = f"dpo.{institution.lower()}"
        async with self.context.database.transaction() as connection:
            held = await roles.list_assignments(connection, institution=institution, at=self.at, after=None, limit=50)
            if user not in {each.user for each in held}:
                await roles.grant_role(
                    connection,
                    MACHINE,
                    institution=institution,
                    user=user,
                    role="data-protection-officer",
                    valid_to=None,
                    at=START - timedelta(days=400),
                )
            await self.policies.load(connection)
        return Caller(
            client_id=f"{institution.lower()}-1",
            institution=institution,
            user=user,
            user_verified=True,
            roles=frozenset({"data-protection-officer"}),
            assurance=2,
        )

    async def ask(self, cedula: str, right: str = "access", *, key: str | None = None, **changes: Any) -> UUID:
        """Let an operator of MTESS take a request at the counter, and return its id."""
        new = NewRequest(right=right, subject=("cedula", cedula), **changes)
        done = await self.rights.receive(OPERATOR, new, command(key))
        return UUID(done.answer["request"])

    async def exchanged(self, subject: UUID, **changes: Any) -> None:
        """Put an exchange about a person into the log, as the gateway tells it."""
        told: dict[str, Any] = {
            "kind": "disclosure.released",
            "outcome": "permit",
            "client": "mds-1",
            "institution": "MDS",
            "holder": "PN-IDENT",
            "dataset": "identity",
            "at": START,
            **changes,
        }
        outcome: Outcome = told["outcome"]
        entry = evidence.entry(
            told["kind"],
            outcome,
            at=told["at"],
            policy_version="v1",
            subject=subject,
            actor={"client": told["client"], "institution": told["institution"]},
            what={"holder": told["holder"], "dataset": told["dataset"]},
        )
        await self.context.audit.append(entry)

    async def entries(self, kind: str, limit: int = 20) -> list[LoggedEntry]:
        """Return the newest entries of a type."""
        async with self.context.database.connection() as connection:
            return await recent(connection, self.context.epochs, limit, type=kind)

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the database as it is."""
        async with self.context.database.connection() as connection:
            return [tuple(row) for row in await connection.exec_driver_sql(query, values)]

    def erase(self, subject: UUID) -> None:
        """Destroy a person's key, as erasure will."""
        server = embedded.start(self.context.settings.data_dir)
        with psycopg.connect(server.url(embedded.SUPERUSER)) as connection:
            connection.execute(
                "UPDATE audit.subject_key SET wrapped_key = NULL, erased_at = now() WHERE subject = %s", (subject,)
            )


OPERATOR = Caller(client_id="mtess-1", institution="MTESS", user="oper", roles=frozenset({"operator"}))


def citizen(person: UUID) -> Caller:
    """Return a person who comes with a token of their own."""
    return Caller(
        client_id="portal", institution="MITIC", person=person, roles=frozenset({"citizen"}), user_verified=True
    )


def command(key: str | None = None, body: bytes = b"{}") -> Command:
    """Return a command, a new one unless a key is given."""
    return Command("mtess-1", key or str(uuid7()), body)


@asynccontextmanager
async def open_office(settings: Settings) -> AsyncIterator[Office]:
    """Open the office over a migrated database."""
    async with open_context(settings) as context:
        office = Office(context)
        async with context.database.connection() as connection:
            await office.policies.load(connection)
        yield office
