"""Erases a person: shows what would be destroyed, and destroys it in one transaction with its entry in the log.

Before the retention term is over the answer is a restriction, unless a ground says otherwise (``erasure-grounds``). The
application role cannot do this: ``owner`` is the database as the role that owns the tables.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.erasure import Destroyed, destroy_key, newest_entry
from audit.models import Entry, Receipt
from audit.service import AuditLog
from gateway import errors, evidence
from gateway.clock import local_day, utc_now
from gateway.database import Database, driver_connection
from gateway.erasure.contents import Whom, changed, empty
from gateway.erasure.orders import require_norm, years_after
from gateway.governance.people import Named
from gateway.registry import service as registry
from gateway.registry import stand_ins
from gateway.registry.merging import same_persons
from gateway.vault import Vault
from schemas.codes import code_list, require_code
from schemas.errors import InvalidIdentifier
from schemas.text import _

# Types of entries whose newest one the term counts from: what was exchanged or agreed, not what was said of it.
_EXCHANGES = ["disclosure", "status", "referral", "counterreferral", "consent", "breakglass"]
_SWEEP_S, _LOOK_S = 60.0, 0.2

_LOCK_PERSON = text("SELECT id FROM siis.person WHERE id = :person OR merged_into = :person ORDER BY id FOR UPDATE")
_OWN_NUMBER = text("SELECT CAST(CAST(pg_current_xact_id() AS text) AS bigint)")
_OLDEST_RUNNING = text("SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Who ordered an erasure, by which act, on which ground (``erasure-grounds``) and norm."""

    ground: str
    norm: str
    ordered_by: str
    reference: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What an erasure would destroy: rows by kind; ``retained_until`` is the last day of the person's term, if any."""

    person: UUID
    rows: dict[str, int]
    entries: int
    retained_until: date | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """What was destroyed, and its entry; ``settled`` is false where a transaction from before went on for too long."""

    pseudonym: UUID | None
    rows: dict[str, int]
    entries: int
    receipt: Receipt
    settled: bool


class _Undone(Exception):
    """Takes back what was only tried."""


class Erasures:
    """Erases persons."""

    def __init__(
        self, *, owner: Database, audit: AuditLog, vault: Vault, now: Callable[[], datetime] = utc_now
    ) -> None:
        self._owner, self._audit, self._vault, self._now = owner, audit, vault, now

    async def outlook(self, named: Named) -> Outlook:
        """Say what erasing a person would destroy, by doing it and taking it back; raises NotFound, BadRequest."""
        found: list[Outlook] = []
        at = self._now()
        try:
            async with self._owner.transaction() as connection:
                whom = await self._whom(connection, named)
                until = await self._retained_until(connection, whom)
                rows = await empty(connection, self._vault, whom, at)
                entries = sum(each.entries for each in await _destroy_keys(connection, whom, at))
                found.append(Outlook(person=whom.id, rows=_some(rows), entries=entries, retained_until=until))
                raise _Undone
        except _Undone:
            return found[0]

    async def erase(self, named: Named, order: Order) -> Erasure:
        """Destroy a person's key and everything personal, in one transaction with the entry that says so.

        Raises NotFound, BadRequest for a ground or norm that is none, and Conflict before the retention term is over
        on a ground that waits for it.
        """
        _check(order)
        at = self._now()
        async with self._owner.transaction() as connection:
            whom = await self._whom(connection, named)
            await self._require_term(connection, whom, order, at)
            rows = await empty(connection, self._vault, whom, at)
            destroyed = await _destroy_keys(connection, whom, at)
            # Each pseudonym that becomes unreadable has an entry of its own that says so; the person's is the last.
            for other in destroyed[:-1]:
                await self._audit.stage(connection, _entry(order, other.pseudonym, other.entries, {}, at))
            pseudonym, entries = destroyed[-1] if destroyed else (None, 0)
            receipt = await self._audit.stage(connection, _entry(order, pseudonym, entries, _some(rows), at))
            own = await connection.scalar(_OWN_NUMBER)
        self._audit.forget(list(whom.ids))
        settled = await self._settle(whom, own or 0, at)
        await self._clear_away()
        return Erasure(pseudonym=pseudonym, rows=_some(rows), entries=entries, receipt=receipt, settled=settled)

    async def _whom(self, connection: AsyncConnection, named: Named) -> Whom:
        try:
            value = registry.normalise(*named)
        except InvalidIdentifier:
            detail = _("La cédula va sin puntos ni espacios; el RUC, con guion y dígito verificador.")
            raise errors.BadRequest("bad-identifier", pointer="/subject/value", detail=detail) from None
        who = await registry.find_person(connection, self._vault, named.system, value)
        if who is None:
            raise errors.NotFound("not-found")
        # Whoever refers to the person now waits for us, or we for them.
        await connection.execute(_LOCK_PERSON, {"person": who.id})
        details = await registry.person_details(connection, self._vault, who.id)
        if details is None:
            raise errors.NotFound("not-found")
        same = await same_persons(connection, who.id)
        others = (*same[1:], *await stand_ins.behind(connection, same))
        return Whom(who.id, details.identifiers, others)

    async def _retained_until(self, connection: AsyncConnection, whom: Whom) -> date | None:
        found = [await newest_entry(connection, each, _EXCHANGES) for each in whom.ids]
        newest = max((each for each in found if each is not None), default=None)
        return None if newest is None else years_after(local_day(newest), code_list("retention")["person"]["years"])

    async def _require_term(self, connection: AsyncConnection, whom: Whom, order: Order, at: datetime) -> None:
        if require_code("erasure-grounds", order.ground)["before_term"]:
            return
        until = await self._retained_until(connection, whom)
        if until is not None and until >= local_day(at):
            detail = _(
                "El plazo de conservación corre hasta el {day}: hasta entonces corresponde el bloqueo, "
                "«siis erasure restrict CEDULA --until {day} --norm … --order …»."
            )
            raise errors.Conflict("retention", detail=detail.format(day=until))

    async def _settle(self, whom: Whom, own: int, at: datetime) -> bool:
        """Destroy also what transactions from before were still writing; say whether all of them came to an end.

        Later ones find nobody: the person has no identifier, and no referral or request that takes anything more.
        """
        deadline = time.monotonic() + _SWEEP_S
        settled = False
        while not settled and time.monotonic() < deadline:
            async with self._owner.connection() as connection:
                settled = (await connection.scalar(_OLDEST_RUNNING) or 0) > own
            if not settled:
                await asyncio.sleep(_LOOK_S)
        async with self._owner.transaction() as connection:
            await empty(connection, self._vault, whom, at)
        return settled

    async def _clear_away(self) -> None:
        """Let PostgreSQL clear dead rows away now; what it wrote ahead of them goes with its own time."""
        async with self._owner.connection() as connection:
            driver = await driver_connection(connection)
            await driver.set_autocommit(True)
            try:
                for table in sorted(changed() | {"audit.subject_key"}):
                    await driver.execute(f"VACUUM {table}".encode())
            finally:
                await driver.set_autocommit(False)


async def _destroy_keys(connection: AsyncConnection, whom: Whom, at: datetime) -> list[Destroyed]:
    found = [await destroy_key(connection, each, at) for each in whom.ids]
    return [each for each in found if each is not None]


def _check(order: Order) -> None:
    grounds = code_list("erasure-grounds")
    if order.ground not in grounds:
        raise errors.BadRequest("unknown-code", pointer="/ground", allowed=grounds)
    require_norm(order.norm)
    if not order.ordered_by.strip() or not order.reference.strip():
        raise errors.BadRequest("invalid-record", pointer="/order", detail=_("Diga quién lo ordenó y por qué acto."))


def _entry(order: Order, pseudonym: UUID | None, entries: int, rows: dict[str, int], at: datetime) -> Entry:
    """Build the entry: about nobody, so that it stays readable; what must be seen without any key is in clear."""
    statement: dict[str, Any] = {
        "norm": order.norm,
        "ground": order.ground,
        "entries": entries,
        "pseudonym": None if pseudonym is None else str(pseudonym),
    }
    detail = {"ordered_by": order.ordered_by, "order": order.reference, "rows": rows}
    entry = evidence.entry(
        "erasure.done",
        "done",
        at=at,
        policy_version="none",
        actor={"channel": "command-line"},
        what=detail,
        why={"norm": order.norm},
    )
    return replace(entry, statement=statement)


def _some(rows: dict[str, int]) -> dict[str, int]:
    return {kind: count for kind, count in rows.items() if count}
