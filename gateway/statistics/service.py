"""Decides who may see which statistics of referrals; every question is an entry of the log before it is answered.

An institution sees referrals to or from it, the coordinator all. Whoever may not see the persons behind them gets no
small counts, rounded others, and whole months; gaps that nobody referred are nobody's to see but the coordinator's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from audit.models import Entry, Receipt
from audit.service import AuditLog
from consent.authority import may
from consent.models import Caller
from consent.policy import PolicyStore
from gateway import errors, evidence
from gateway.catalogue.models import COORDINATOR
from gateway.catalogue.service import institutions, services
from gateway.commands import Command, Done, receipt_json, remember, remembered
from gateway.governance.service import Governance
from gateway.registry.achievements import Published
from gateway.statistics import snapshots
from gateway.statistics.comparison import compare
from gateway.statistics.counting import count
from gateway.statistics.definitions import VERSION
from gateway.statistics.hiding import hide, hide_gaps
from gateway.statistics.models import Scope
from gateway.statistics.view import funnel_json, with_shares
from schemas import geography
from schemas.codes import code_list
from schemas.text import _

READ = "statistics.read"
#: Who may make nominal reports may know who stands behind a small count.
NOMINAL = "referral.report"


@dataclass(frozen=True, slots=True)
class Reader:
    """Who asks: as the log says it, whose referrals they see (``None``: all), and whether as they are."""

    actor: dict[str, Any]
    name: str
    institution: str | None
    nominal: bool


class Statistics:
    """The statistics for callers, and for whoever runs the machine (``caller`` is ``None``), who sees everything."""

    def __init__(self, *, governance: Governance, audit: AuditLog, policies: PolicyStore, published: Published) -> None:
        self._governance, self._audit, self._policies, self._published = governance, audit, policies, published

    async def funnel(self, caller: Caller | None, scope: Scope, *, form: str) -> tuple[dict[str, Any], Receipt]:
        """Return the funnel of a scope (``view.with_shares``) and the receipt of the question; ``form`` is for the log.

        Raises Denied, and BadRequest for codes that there are not and for a period that this reader may not ask for.
        """
        reader = await self._reader(caller)
        scope = await self._checked(reader, scope)
        receipt = await self._note(reader, "statistics.read", {"form": form, "scope": scope.said()})
        return _shown(await self._counted(reader, scope), reader), receipt

    async def compare_scopes(
        self, caller: Caller | None, first: Scope, second: Scope
    ) -> tuple[dict[str, Any], Receipt]:
        """Compare two scopes as they are now: two territories, two periods; raises as :meth:`funnel`."""
        reader = await self._reader(caller)
        scopes = [await self._checked(reader, first, "/first"), await self._checked(reader, second, "/second")]
        said = {"first": scopes[0].said(), "second": scopes[1].said()}
        receipt = await self._note(reader, "statistics.compared", said)
        found = []
        for scope in scopes:
            found.append(
                {
                    **await self._counted(reader, scope),
                    "achievements": await snapshots.achievements_of(self._published, scope),
                }
            )
        one, two = (_shown(each, reader) for each in found)
        return compare(one, two), receipt

    async def compare_snapshots(
        self, caller: Caller | None, first: UUID, second: UUID
    ) -> tuple[dict[str, Any], Receipt]:
        """Compare two snapshots; NotFound for one that is not the institution's, Conflict for two definitions."""
        reader = await self._reader(caller)
        one, two = await self._find(reader, first), await self._find(reader, second)
        if one["definition"] != two["definition"]:
            raise errors.Conflict("other-definition", detail=f"{one['definition']} / {two['definition']}")
        said = {"first": {"snapshot": one["id"]}, "second": {"snapshot": two["id"]}}
        receipt = await self._note(reader, "statistics.compared", said)
        return compare(_shown(one, reader), _shown(two, reader)), receipt

    async def take(self, caller: Caller | None, kind: str, scope: Scope, *, command: Command | None = None) -> Done:
        """Keep the funnel and the achievements of a scope; raises as :meth:`funnel`, and Conflict for a used key."""
        reader = await self._reader(caller)
        scope = await self._checked(reader, replace(scope, gaps=True))
        document = await self._counted(reader, scope)
        achievements = await snapshots.achievements_of(self._published, scope)
        at = self._governance.now()
        async with self._governance.database.transaction() as connection:
            if command is not None and (earlier := await remembered(connection, command)) is not None:
                return earlier
            snapshot_id = await snapshots.keep(
                connection,
                kind=kind,
                institution=reader.institution or COORDINATOR,
                taken_by=reader.name,
                at=at,
                funnel=document,
                achievements=achievements,
            )
            what = {"snapshot": str(snapshot_id), "kind": kind, "definition": VERSION, "scope": scope.said()}
            receipt = await self._audit.stage(connection, self._entry(reader, "statistics.kept", what))
            done = Done(201, {"id": str(snapshot_id), "receipt": receipt_json(receipt)}, replayed=False)
            if command is not None:
                await remember(connection, command, done)
            return done

    async def snapshot(self, caller: Caller | None, snapshot_id: UUID) -> tuple[dict[str, Any], Receipt]:
        """Return a snapshot as its reader may see it; raises Denied, or NotFound for one of somebody else."""
        reader = await self._reader(caller)
        found = await self._find(reader, snapshot_id)
        receipt = await self._note(reader, "statistics.read", {"snapshot": str(snapshot_id)})
        return _shown(found, reader), receipt

    async def snapshots(self, caller: Caller | None, *, after: UUID | None, limit: int) -> list[dict[str, Any]]:
        """Return what snapshots the caller's institution keeps; the coordinator sees all. No counts, so no entry."""
        reader = await self._reader(caller)
        async with self._governance.database.connection() as connection:
            return await snapshots.listed(connection, institution=reader.institution, after=after, limit=limit)

    async def _counted(self, reader: Reader, scope: Scope) -> dict[str, Any]:
        async with self._governance.database.connection() as connection:
            at = self._governance.now()
            return funnel_json(await count(connection, scope, party=reader.institution, at=at), scope)

    async def _find(self, reader: Reader, snapshot_id: UUID) -> dict[str, Any]:
        async with self._governance.database.connection() as connection:
            found = await snapshots.find(connection, snapshot_id, institution=reader.institution)
        if found is None:
            raise errors.NotFound("not-found")
        return found

    async def _reader(self, caller: Caller | None) -> Reader:
        if caller is None:
            user = f"uid:{os.getuid()}"
            return Reader({"channel": "command-line", "user": user}, user, None, nominal=True)
        acting = await self._governance.authorise(caller, READ)
        nominal = may(caller, NOMINAL, self._policies.current, self._governance.now())
        institution = None if caller.institution == COORDINATOR else caller.institution
        return Reader(evidence.actor(caller), acting.user, institution, nominal)

    async def _note(self, reader: Reader, event: str, what: dict[str, Any]) -> Receipt:
        return await self._audit.append(self._entry(reader, event, what))

    def _entry(self, reader: Reader, event: str, what: dict[str, Any]) -> Entry:
        at = self._governance.now()
        return evidence.entry(event, "done", at=at, policy_version="none", actor=reader.actor, what=what)

    async def _checked(self, reader: Reader, scope: Scope, place: str = "") -> Scope:
        """Return the scope; raises BadRequest for a code that there is not, with those that could have stood there."""
        async with self._governance.database.connection() as connection:
            lists = await _lists(connection, scope)
        for name, allowed in lists.items():
            if getattr(scope, name) not in (None, *allowed):
                raise errors.BadRequest("unknown-code", pointer=f"{place}/{name}", allowed=sorted(allowed))
        if scope.since is not None and scope.until is not None and scope.until <= scope.since:
            detail = _("El final del período tiene que ser posterior al comienzo.")
            raise errors.BadRequest("bad-period", pointer=f"{place}/until", detail=detail)
        for name in () if reader.nominal else ("since", "until"):
            # Periods that differ by a day differ by few; a month's referrals are rounded together.
            day: date | None = getattr(scope, name)
            if day is not None and day.day != 1:
                detail = _("Sin acceso nominal el período va por meses enteros: use el primer día de un mes.")
                raise errors.BadRequest("bad-period", pointer=f"{place}/{name}", detail=detail)
        return scope


async def _lists(connection: AsyncConnection, scope: Scope) -> dict[str, Iterable[str]]:
    known = await institutions(connection)
    departments = [each.ine for each in geography.departments()]
    within = departments if scope.department is None else [code for code in departments if code == scope.department]
    return {
        "department": departments,
        "district": [found.ine for code in within for found in geography.districts(code)],
        "requester": known,
        "recipient": known,
        # A service that is no longer offered still stands in old referrals.
        "service": {*code_list("services"), *await services(connection)},
        "population": code_list("populations"),
        "category": code_list("life-cycle"),
    }


def _shown(document: dict[str, Any], reader: Reader) -> dict[str, Any]:
    if not reader.nominal:
        return with_shares(hide(document))
    return with_shares(document if reader.institution is None else hide_gaps(document))
