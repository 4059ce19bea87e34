"""Boards of social protection (Mesas): who sits on them, and what of the priority track (Canal Verde) they get to see.

A board's copy of a referral is no second store: it is the referrals of the priority track in its territory. Its members
see a person's data only under an agreement of their institution, and never a case that is protected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_
from sqlalchemy.ext.asyncio import AsyncConnection

from audit.models import Entry, Receipt
from audit.service import AuditLog
from consent import subject
from consent.decision import decide
from consent.models import REFERRAL_FIELDS, UNKNOWN_SUBJECT, Actor, Caller, Request
from consent.policy import PolicyStore
from consent.volume import Volume
from gateway import errors, evidence
from gateway.boards import store
from gateway.boards.gaps import gaps
from gateway.boards.store import Board, Seat
from gateway.catalogue.models import COORDINATOR
from gateway.catalogue.service import institutions
from gateway.governance.service import Governance, Work
from gateway.referrals.nominal import PRIORITY_TRACK, Filter, Listed, listed, row_json
from gateway.referrals.releases import facts_about, given, people_of, refuse_while_stopped
from gateway.referrals.tables import referral
from gateway.vault import Vault
from gateway.witnesses.quorum import NO_WITNESSES, Quorum
from schemas import geography
from schemas.errors import InvalidIdentifier, UnknownCode
from schemas.text import _

SEE, MANAGE = "board.see", "board.manage"
MEMBER, DATASET = "board-member", "board-referrals"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBoard:
    """A board to add; without a district it is the whole department's."""

    code: str
    names: Mapping[str, str]
    department: str
    district: str | None
    institution: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What a board is shown; ``next`` is what to ask ``after``, ``None`` when there is no more for now."""

    rows: list[dict[str, Any]]
    next: UUID | None
    receipt: Receipt


class Boards:
    """The boards, for their members and for who runs them."""

    def __init__(
        self,
        *,
        governance: Governance,
        vault: Vault,
        audit: AuditLog,
        policies: PolicyStore,
        volume: Volume,
        quorum: Quorum = NO_WITNESSES,
    ) -> None:
        self._governance, self._vault, self._audit, self._policies = governance, vault, audit, policies
        self._volume, self._quorum = volume, quorum

    async def mine(self, caller: Caller) -> list[Board]:
        """Return the boards on which a caller sits, or for which its institution acts; raises Denied."""
        await self._governance.authorise(caller, SEE, MANAGE)
        async with self._governance.database.connection() as connection:
            seats = await store.seats(connection, caller) if self._sits(caller) else {}
            runs = {each.code: each for each in await store.acted_for(connection, caller.institution)}
        manages = MEMBER not in self._governance.roles_of(caller)
        return sorted({**seats, **(runs if manages else {})}.values(), key=lambda each: each.code)

    async def members(self, caller: Caller, code: str) -> list[Seat]:
        """Return who sits on a board, to an administrator of the institution that acts for it; Denied, NotFound."""
        await self._governance.authorise(caller, MANAGE)
        async with self._governance.database.connection() as connection:
            await _own(connection, code, Actor(institution=caller.institution, user=caller.holder_of_roles))
            return await store.seated(connection, code)

    async def referrals(self, caller: Caller, code: str, asked: Filter, *, form: str) -> Seen:
        """Show the referrals of the priority track copied to a board; of a person, what an agreement releases.

        Raises Denied, NotFound for a board on which the caller does not sit, EvidenceStopped.
        """
        board = await self.seat(caller, code)
        at, policy, actor = self._governance.now(), self._policies.current, evidence.actor(caller)
        await refuse_while_stopped(
            self._audit, self._quorum, "board.stopped", actor=actor, version=policy.version, at=at
        )
        async with self._governance.database.connection() as connection:
            found = await listed(connection, copied_to(board), asked, at)
            people = await people_of(connection, self._vault, {item.current.person_id for item in found})
            facts = await facts_about(connection, people)
        rows, entries = [], []
        for item in found:
            person_id = item.current.person_id
            known = facts.get(person_id, UNKNOWN_SUBJECT)
            request = _request(caller, item, at)
            decision = decide(request, known, policy, self._volume.used)
            told = {"board": code, "referral": str(item.current.id)}
            if known.subject is None or subject.refusals(request, known, policy, request.basis):
                # A protected case is no matter of a table with many chairs; it looks as if it were not there.
                entries.append(
                    evidence.decided(
                        "board.withheld",
                        request,
                        decision,
                        subject=person_id,
                        facts=known,
                        outcome="deny",
                        exchange=told,
                    )
                )
                continue
            person = None if decision.permit is None else given(people[person_id], decision.released)
            if person is None:
                entries.append(_listed(person_id, actor, told, at))
            else:
                self._volume.count(decision)
                entries.append(
                    evidence.decided("board.released", request, decision, subject=person_id, facts=known, exchange=told)
                )
            held = item.current.case_id
            case = {"case_id": None if held is None else str(held)}
            rows.append({**row_json(item, at), **case, "person": person})
        await self._audit.append_many(entries)
        receipt = await self._audit.append(
            evidence.entry(
                "board.read",
                "done",
                at=at,
                policy_version=policy.version,
                actor=actor,
                what={"board": code, "form": form, "rows": len(rows), **asked.said()},
            )
        )
        return Seen(rows, found[-1].current.id if len(found) == asked.limit else None, receipt)

    async def gaps(self, caller: Caller, code: str) -> tuple[Board, list[dict[str, Any]], dict[str, str]]:
        """Show the classified gaps of a board's territory, counted; raises as :meth:`referrals`."""
        board = await self.seat(caller, code)
        async with self._governance.database.connection() as connection:
            found = await gaps(connection, board.department, board.district)
        receipt = await self._governance.note_reading(caller, "board.gaps_read", {"board": code, "rows": len(found)})
        return board, found, receipt

    async def seat(self, caller: Caller, code: str) -> Board:
        """Return a board on which a caller sits now; raises Denied without the role, NotFound for another board."""
        await self._governance.authorise(caller, SEE)
        async with self._governance.database.connection() as connection:
            seats = await store.seats(connection, caller)
        if code not in seats:
            raise errors.NotFound("not-found")
        return seats[code]

    def _sits(self, caller: Caller) -> bool:
        return MEMBER in self._governance.roles_of(caller)


def adding(new: NewBoard) -> Work:
    """Return the change that adds a board; whoever runs the machine does. Raises BadRequest and Conflict."""

    async def work(connection: AsyncConnection, _actor: Actor, at: datetime) -> dict[str, Any]:
        _require_place(new.department, new.district)
        known = await institutions(connection)
        if new.institution not in known:
            detail = _("La institución no existe en el catálogo.")
            raise errors.BadRequest("unknown-code", pointer="/institution", detail=detail, allowed=sorted(known))
        if not await store.add(connection, asdict(new), at):
            raise errors.Conflict("board-exists", detail=_("Ya hay una Mesa con ese código."))
        place = {"department": new.department, "district": new.district}
        return {"event": "board.added", "id": new.code, "institution": new.institution, **place}

    return work


def ending(code: str) -> Work:
    """Return the change that ends a board; raises NotFound for one that is not in force."""

    async def work(connection: AsyncConnection, _actor: Actor, at: datetime) -> dict[str, Any]:
        if not await store.end(connection, code, at):
            raise errors.NotFound("not-found")
        return {"event": "board.ended", "id": code}

    return work


def seating(code: str, institution: str, user: str) -> Work:
    """Return the change that gives somebody a seat; the administrator of the institution that acts for the board.

    The role itself their own institution grants. Raises NotFound for another's board, BadRequest, Conflict.
    """

    async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
        await _own(connection, code, actor)
        known = await institutions(connection)
        if institution not in known:
            detail = _("La institución no existe en el catálogo.")
            raise errors.BadRequest("unknown-code", pointer="/institution", detail=detail, allowed=sorted(known))
        member = await store.seat(connection, code, institution, user, by=str(actor), at=at)
        if member is None:
            raise errors.Conflict("seat-held", detail=_("Esa persona ya integra la Mesa."))
        return {
            "event": "board.seated",
            "id": str(member),
            "board": code,
            "institution": institution,
            "user": user,
        }

    return work


def unseating(code: str, member: UUID) -> Work:
    """Return the change that ends a seat at once; raises NotFound."""

    async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
        await _own(connection, code, actor)
        if not await store.unseat(connection, code, member, by=str(actor), at=at):
            raise errors.NotFound("not-found")
        return {"event": "board.unseated", "id": str(member), "board": code}

    return work


def copied_to(board: Board) -> ColumnElement[bool]:
    """Return which referrals a board gets a copy of: the priority track in its territory."""
    row = referral.c
    place = row.department == board.department
    if board.district is not None:
        place &= row.district == board.district
    return and_(row.priority == PRIORITY_TRACK, place)


def _request(caller: Caller, item: Listed, at: datetime) -> Request:
    return Request(
        action=SEE,
        caller=caller,
        holder=COORDINATOR,
        dataset=DATASET,
        fields=REFERRAL_FIELDS,
        purpose=item.current.purpose,
        basis=item.current.basis,
        at=at,
    )


def _listed(person: UUID, actor: dict[str, Any], told: dict[str, Any], at: datetime) -> Entry:
    return evidence.entry(
        "board.listed", "done", at=at, policy_version="none", subject=person, actor=actor, exchange=told
    )


async def _own(connection: AsyncConnection, code: str, actor: Actor) -> Board:
    board = await store.by_code(connection, code)
    if board is None or actor.institution not in (None, board.institution):
        raise errors.NotFound("not-found")
    return board


def _require_place(department: str, district: str | None) -> None:
    try:
        geography.department(department)
    except (InvalidIdentifier, UnknownCode):
        allowed = [each.ine for each in geography.departments()]
        detail = _("Use el código del INE, de dos cifras.")
        raise errors.BadRequest("unknown-code", pointer="/department", detail=detail, allowed=allowed) from None
    known = [each.ine for each in geography.districts(department)]
    if district is not None and district not in known:
        detail = _("Use el código del INE de un distrito del departamento, de cuatro cifras.")
        raise errors.BadRequest("unknown-code", pointer="/district", detail=detail, allowed=known)
