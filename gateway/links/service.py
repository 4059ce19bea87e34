"""Signed links: an office without a system sees one referral and answers it, for a while and with a PIN told by phone.

The link carries its number and our seal over it, the PIN is made of the same key: neither is stored. Who made a link
for somebody else's office does not learn the PIN, so nobody but the recipient sees what was released to the recipient.
Looking at the address alone shows and changes nothing; what shows the person is on record before it is shown.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.models import Reply
from audit.service import AuditLog
from consent.models import Actor, Caller
from consent.policy import PolicyStore
from gateway import errors, evidence
from gateway.catalogue.models import COORDINATOR
from gateway.commands import Command, Done
from gateway.governance.people import Desk
from gateway.governance.service import Governance, Work
from gateway.links.tables import link
from gateway.referrals import states, store
from gateway.referrals.models import Referral
from gateway.referrals.releases import Release, refuse_while_stopped, releases
from gateway.referrals.service import ReferralService
from gateway.vault import Vault
from gateway.witnesses.quorum import NO_WITNESSES, Quorum
from schemas.ids import uuid7
from schemas.text import _

MAKE = "link.manage"
ACTS = ("accept", "decline", "schedule", "outcome")
USUAL_HOURS, USUAL_USES = 72, 20
#: Wrong PINs after which a link is locked for good, and how long a page may stay open before the PIN is asked again.
WRONG_PINS, OPEN_FOR = 5, timedelta(minutes=30)
#: Links to one referral within their term: each is five guesses at a PIN for who made it and may not know it.
MOST_LINKS = 10
PIN_DIGITS = 6
_SEAL_BYTES = 16


class Link(NamedTuple):
    """A link as those may see it who can take it back."""

    id: UUID
    referral_id: UUID
    institution: str
    acts: list[str]
    made_by: str
    made_for: str
    made_at: datetime
    expires_at: datetime
    uses: int
    uses_allowed: int
    wrong_pins: int
    revoked_at: datetime | None

    def stands(self, at: datetime) -> bool:
        """Say whether a page opened by it may still be used at an instant."""
        return self.revoked_at is None and at < self.expires_at and self.wrong_pins < WRONG_PINS

    def opens(self, at: datetime) -> bool:
        """Say whether it opens a page at an instant, which counts as a use."""
        return self.stands(at) and self.uses < self.uses_allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLink:
    """A link to make: what its office may do, for how many hours and how often."""

    acts: tuple[str, ...] = ACTS
    hours: int = USUAL_HOURS
    uses: int = USUAL_USES


@dataclass(frozen=True, slots=True)
class Opened:
    """What an office is shown: the referral with what was released, what it may do now, and a pass for doing it."""

    link: Link
    release: Release
    acts: tuple[str, ...]
    passing: str


_LINK = tuple(link.c[name] for name in Link._fields)


class Links(Desk):
    """Makes links, and lets offices in by them."""

    def __init__(
        self,
        *,
        governance: Governance,
        vault: Vault,
        audit: AuditLog,
        policies: PolicyStore,
        referrals: ReferralService,
        public_address: str,
        quorum: Quorum = NO_WITNESSES,
    ) -> None:
        """``public_address`` is where offices reach the gateway."""
        super().__init__(governance, vault)
        self._audit, self._policies, self._referrals = audit, policies, referrals
        self._public_address, self._quorum = public_address, quorum

    # Of those who make links

    async def make(self, caller: Caller, referral_id: UUID, new: NewLink, command: Command) -> Done:
        """Make a link; the answer has its address, and the PIN where the caller is the recipient or the coordinator.

        Raises Denied, NotFound for somebody else's referral, Conflict for one that awaits no answer of its recipient.
        """
        done = await self.do(caller, MAKE, self.making(referral_id, new, caller), command)
        return replace(done, answer=self._with_address(done.answer, caller.institution))

    def making(self, referral_id: UUID, new: NewLink, caller: Caller | None = None) -> Work:
        """Return the change that makes a link; without a caller whoever runs the machine makes it."""

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            current = await store.by_id(connection, referral_id, lock=True)
            if current is None or not _concerns(caller, current):
                raise errors.NotFound("not-found")
            await self.known(connection, caller, current.person_id, at)
            # An open one has no recipient yet: its services claim it by their own systems.
            if current.state in states.TERMINAL or current.state == states.OPEN:
                raise errors.Conflict("nothing-awaited", detail=_("La referencia no espera una respuesta por enlace."))
            # Also those taken back: else who guesses would take them back and make others.
            made = select(func.count()).where(link.c.referral_id == referral_id, link.c.expires_at > at)
            if (await connection.scalar(made) or 0) >= MOST_LINKS:
                raise errors.Conflict("too-many-links", detail=_("La referencia tiene demasiados enlaces; espere."))
            row: dict[str, Any] = {
                "id": uuid7(),
                "referral_id": referral_id,
                "institution": current.recipient,
                "acts": list(new.acts),
                "made_by": str(actor),
                "made_for": COORDINATOR if caller is None else caller.institution,
                "made_at": at,
                "expires_at": at + timedelta(hours=new.hours),
                "uses_allowed": new.uses,
            }
            await connection.execute(insert(link).values(**row))
            return {
                "event": "link.made",
                "subject": str(current.person_id),
                "id": str(row["id"]),
                "referral": str(referral_id),
                "recipient": current.recipient,
                "acts": list(new.acts),
                "expires_at": row["expires_at"].isoformat(),
            }

        return work

    async def list(self, caller: Caller, referral_id: UUID) -> list[Link]:
        """Return the links of a referral to its parties and the coordinator; raises Denied, NotFound."""
        await self.governance.authorise(caller, MAKE)
        async with self.governance.database.connection() as connection:
            current = await store.by_id(connection, referral_id)
            if current is None or not _concerns(caller, current):
                raise errors.NotFound("not-found")
            return await links_of(connection, referral_id)

    async def pin(self, caller: Caller, link_id: UUID) -> dict[str, Any]:
        """Show the PIN of a link to the recipient or the coordinator, who tells the office; raises Denied, NotFound."""

        async def read(connection: AsyncConnection, at: datetime) -> tuple[UUID | None, dict[str, Any], str]:
            found, current = await self._own(connection, caller, link_id)
            if caller.institution not in (found.institution, COORDINATOR) or not found.stands(at):
                raise errors.NotFound("not-found")
            return current.person_id, {"id": str(link_id), "referral": str(current.id)}, self.pin_of(link_id)

        looked = await self.look(caller, MAKE, "link.pin_read", read)
        return {"id": str(link_id), "pin": looked.shown, "receipt": looked.receipt}

    async def revoke(self, caller: Caller, link_id: UUID) -> Done:
        """Take a link back at once: a party to the referral, or the coordinator. Raises Denied, NotFound."""
        return await self.do(caller, MAKE, self.revoking(link_id, caller))

    def revoking(self, link_id: UUID, caller: Caller | None = None) -> Work:
        """Return the change that takes a link back; without a caller whoever runs the machine does."""

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            found, current = await self._own(connection, caller, link_id)
            ending = update(link).where(link.c.id == link_id, link.c.revoked_at.is_(None))
            if (
                await connection.scalar(ending.values(revoked_by=str(actor), revoked_at=at).returning(link.c.id))
                is None
            ):
                raise errors.NotFound("not-found")
            return {
                "event": "link.revoked",
                "subject": str(current.person_id),
                "id": str(found.id),
                "referral": str(current.id),
            }

        return work

    def address(self, link_id: UUID) -> str:
        """Return the address of a link: its number and our seal over it."""
        token = urlsafe_b64encode(link_id.bytes + self._seal_of("link", str(link_id))).rstrip(b"=").decode()
        return f"{self._public_address}/enlace/{token}"

    def pin_of(self, link_id: UUID) -> str:
        """Return the PIN of a link, always the same."""
        return f"{int.from_bytes(self._seal_of('link-pin', str(link_id))) % 10**PIN_DIGITS:0{PIN_DIGITS}d}"

    # Of the office

    async def look_at(self, token: str) -> None:
        """Raise NotFound unless the address opens something now, whatever the reason; nothing is shown or counted."""
        async with self.governance.database.connection() as connection:
            found = await self._standing(connection, self._read(token))
        if not found.opens(self.governance.now()):
            raise errors.NotFound("not-found")

    async def open(self, token: str, pin: str, address: str | None) -> Opened:
        """Show the referral of a link to who knows its PIN; it counts as one use, and is on record before it is shown.

        Raises NotFound for a link that opens nothing, a wrong PIN that locked it, and a person who may not be shown;
        Conflict (``wrong-pin``) while attempts are left; EvidenceStopped.
        """
        link_id, at = self._read(token), self.governance.now()
        async with self.governance.database.transaction() as connection:
            found = await self._standing(connection, link_id, lock=True)
            if not found.opens(at):
                raise errors.NotFound("not-found")
            right = hmac.compare_digest(pin.encode(), self.pin_of(link_id).encode())
            counted = {"uses": link.c.uses + 1} if right else {"wrong_pins": link.c.wrong_pins + 1}
            await connection.execute(update(link).where(link.c.id == link_id).values(**counted))
            if not right and found.wrong_pins + 1 >= WRONG_PINS:
                await self._lock(connection, found, address, at)
        if not right:
            # The count is committed before anybody learns that it was wrong.
            raise errors.Conflict("wrong-pin")
        return await self._shown(found, address, at)

    async def again(self, token: str, passing: str, address: str | None) -> Opened:
        """Show it again to who came with a pass of an open page; raises NotFound, EvidenceStopped."""
        link_id, at = self._read(token), self.governance.now()
        self._require_pass(link_id, passing, at)
        async with self.governance.database.connection() as connection:
            found = await self._standing(connection, link_id)
        return await self._shown(found, address, at)

    async def act(self, token: str, passing: str, reply: Reply, address: str | None) -> dict[str, Any]:
        """Answer the referral in the recipient's name; repeated with the same message it is answered as before.

        ``reply`` names no referral yet. Raises NotFound, BadRequest, Conflict (``out-of-order``).
        """
        link_id, at = self._read(token), self.governance.now()
        self._require_pass(link_id, passing, at)
        async with self.governance.database.transaction() as connection:
            found = await self._standing(connection, link_id, lock=True)
            if reply.event not in found.acts:
                raise errors.NotFound("not-found")
            current = await self._of(connection, found)
            done = await self._referrals.apply(
                connection,
                found.institution,
                replace(reply, referral_id=current.id, message_id=f"link:{found.id.hex[-12:]}:{reply.message_id}"),
                actor=_office(found, address),
                came={"link": str(found.id)},
            )
            return done.answer

    async def _shown(self, found: Link, address: str | None, at: datetime) -> Opened:
        actor, policy = _office(found, address), self._policies.current
        await refuse_while_stopped(
            self._audit, self._quorum, "link.stopped", actor=actor, version=policy.version, at=at
        )
        async with self.governance.database.connection() as connection:
            current = await self._of(connection, found)
            [release] = await releases(connection, self.vault, policy, [current], at)
        told = release.entry(
            "link.withheld" if release.person is None else "link.released",
            actor=actor,
            exchange={"link": str(found.id)},
        )
        await self._audit.append(told)
        if release.person is None:
            raise errors.NotFound("not-found")
        acts = tuple(act for act in found.acts if states.path(current.state, act) is not None)
        return Opened(found, release, acts, self._pass(found.id, at + OPEN_FOR))

    async def _standing(self, connection: AsyncConnection, link_id: UUID, *, lock: bool = False) -> Link:
        found = await _one(connection, link.c.id == link_id, lock=lock)
        if found is None or not found.stands(self.governance.now()):
            raise errors.NotFound("not-found")
        return found

    async def _of(self, connection: AsyncConnection, found: Link) -> Referral:
        current = await store.by_id(connection, found.referral_id)
        # Of somebody erased nothing is left; and a recipient that is no longer one has lost its office's link too.
        if current is None or current.recipient != found.institution:
            raise errors.NotFound("not-found")
        return current

    async def _own(self, connection: AsyncConnection, caller: Caller | None, link_id: UUID) -> tuple[Link, Referral]:
        found = await _one(connection, link.c.id == link_id)
        current = None if found is None else await store.by_id(connection, found.referral_id)
        if found is None or current is None or not _concerns(caller, current):
            raise errors.NotFound("not-found")
        return found, current

    async def _lock(self, connection: AsyncConnection, found: Link, address: str | None, at: datetime) -> None:
        current = await store.by_id(connection, found.referral_id)
        entry = evidence.entry(
            "link.locked",
            "deny",
            at=at,
            policy_version="none",
            subject=None if current is None else current.person_id,
            actor=_office(found, address),
            exchange={"referral": str(found.referral_id), "link": str(found.id)},
            decision={"effect": "deny", "reasons": ["wrong-pin"]},
        )
        await self._audit.stage(connection, entry)

    def _with_address(self, answer: Mapping[str, Any], institution: str) -> dict[str, Any]:
        """Add what the memory of commands must not hold: it is made again each time."""
        link_id = UUID(answer["id"])
        told = {"pin": self.pin_of(link_id)} if institution in (answer["recipient"], COORDINATOR) else {}
        return {**answer, "url": self.address(link_id), **told}

    def _read(self, token: str) -> UUID:
        """Return the number of a link whose seal is ours; raises NotFound."""
        try:
            raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (NotBase64, ValueError):
            raise errors.NotFound("not-found") from None
        if len(raw) != len(UUID(int=0).bytes) + _SEAL_BYTES or urlsafe_b64encode(raw).rstrip(b"=") != token.encode():
            raise errors.NotFound("not-found")
        link_id = UUID(bytes=raw[:-_SEAL_BYTES])
        if not hmac.compare_digest(raw[-_SEAL_BYTES:], self._seal_of("link", str(link_id))):
            raise errors.NotFound("not-found")
        return link_id

    def _pass(self, link_id: UUID, until: datetime) -> str:
        seconds = int(until.timestamp())
        return f"{seconds}.{self._seal_of('link-pass', f'{link_id}/{seconds}').hex()}"

    def _require_pass(self, link_id: UUID, passing: str, at: datetime) -> None:
        seconds, _dot, seal = passing.partition(".")
        whole = seconds.isascii() and seconds.isdecimal() and len(seconds) < len("99999999999")
        made = self._seal_of("link-pass", f"{link_id}/{seconds}").hex()
        if not whole or int(seconds) <= at.timestamp() or not hmac.compare_digest(seal.encode(), made.encode()):
            raise errors.Conflict("pass-ended")

    def _seal_of(self, purpose: str, text: str) -> bytes:
        return self.vault.index(purpose, text)


async def links_of(connection: AsyncConnection, referral_id: UUID) -> list[Link]:
    """Return the links of a referral, in the order they were made."""
    rows = await connection.execute(select(*_LINK).where(link.c.referral_id == referral_id).order_by(link.c.id))
    return [Link(*row) for row in rows]


async def _one(connection: AsyncConnection, which: ColumnElement[bool], *, lock: bool = False) -> Link | None:
    query = select(*_LINK).where(which)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    return None if row is None else Link(*row)


def _concerns(caller: Caller | None, current: Referral) -> bool:
    return caller is None or caller.institution in (current.requester, current.recipient, COORDINATOR)


def _office(found: Link, address: str | None) -> dict[str, Any]:
    """Return the group of an entry that says who acted: an office of the recipient, known by link and PIN alone."""
    return {
        "client": f"link:{found.id}",
        "institution": found.institution,
        "roles": ["office"],
        "assurance": 1,
        "channel": "link",
        "made_by": found.made_by,
        **evidence.origin(address, None),
    }
