"""Consents for the faces: recorded, shown, ended, and the receipt that the person keeps; each with its entry."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from consent import records
from consent.errors import InvalidConsent, NotEntitled, NotInForce, UnknownAgreement
from consent.models import Actor, Caller
from consent.people import Mandate
from consent.receipts import document_sha256, receipt_text, record_27560
from consent.records import Answer, ConsentRecord, ConsentText, NewConsent, Step
from gateway.commands import Command, Done
from gateway.governance.people import MANAGE, RECORD, Desk, Looked, Named, acting
from schemas.canonical import sha256
from schemas.ids import parse_uuid


class Consents(Desk):
    """What is done with consents; ``caller`` is ``None`` for whoever runs this machine."""

    async def record(
        self,
        caller: Caller | None,
        named: Named | None,
        new: NewConsent,
        *,
        state: Answer,
        command: Command | None = None,
    ) -> Done:
        """Record an answer; the result has the SHA-256 of the record as its receipt shows it.

        Raises BadRequest, Denied, or NotFound for somebody who is nobody to the caller.
        """

        async def work(connection: AsyncConnection, actor: Actor, at: datetime) -> dict[str, Any]:
            await self._require_party(connection, caller, new.agreement)
            who, mandate = await self.subject(connection, caller, named, at)
            agreed = new
            if caller is not None and caller.person is not None:
                if new.representation is not None and (mandate is None or new.representation != mandate.id):
                    raise InvalidConsent("representation", "mandate")
                agreed = replace(new, representation=None if mandate is None else mandate.id)
                if state == "requested":
                    raise NotEntitled
            said = await records.record_consent(
                connection, who.id, agreed, birth_date=who.birth_date, recorded_by=str(actor), at=at, state=state
            )
            return said | acting(mandate) | await _hashed(connection, parse_uuid(said["consent"]))

        return await self.do(caller, RECORD, work, command)

    async def step(self, caller: Caller | None, consent_id: UUID, step: Step, *, reason: str | None) -> Done:
        """End a consent: withdrawn by its person or on their word, revoked or invalidated by an officer.

        Raises BadRequest for a reason that is none of the step, Conflict for a consent that is not in force, Denied,
        and NotFound.
        """

        async def work(connection: AsyncConnection, _actor: Actor, at: datetime) -> dict[str, Any]:
            record, mandate = await self._visible(connection, caller, consent_id, at)
            why = reason or ("word-to-officer" if step == "withdraw" else "")
            if caller is not None and caller.person is not None:
                why = "person" if caller.person == record.subject else "representative"
            said = await records.end_consent(connection, consent_id, step=step, reason=why, at=at)
            return said | acting(mandate) | await _hashed(connection, consent_id)

        return await self.do(caller, RECORD if step == "withdraw" else MANAGE, work)

    async def search(
        self,
        caller: Caller | None,
        named: Named | None,
        *,
        agreement: str | None = None,
        after: UUID | None = None,
        limit: int = 50,
    ) -> Looked:
        """Show a person's consents under the agreements of the caller's institution, all of them to the person.

        Of somebody who is nobody to the caller there are none: the answer does not tell which of the two it is.
        """

        async def read(connection: AsyncConnection, at: datetime) -> tuple[UUID | None, dict[str, Any], Any]:
            who = await self.shown(connection, caller, named, at)
            if who is None:
                return None, {"consents": []}, []
            party = None if caller is None or caller.person is not None else caller.institution
            found = await records.records_of(
                connection, who.id, party=party, agreement=agreement, after=after, limit=limit
            )
            newest = await records.newest_of(connection, who.id, {each.agreement for each in found})
            ids = [str(each.id) for each in found]
            return who.id, {"consents": ids}, [item_json(each, newest, at) for each in found]

        return await self.look(caller, RECORD, "consent.read", read)

    async def read(self, caller: Caller | None, consent_id: UUID) -> Looked:
        """Show one consent; raises NotFound for one that the caller may not know of."""

        async def read(connection: AsyncConnection, at: datetime) -> tuple[UUID | None, dict[str, Any], Any]:
            record, mandate = await self._visible(connection, caller, consent_id, at)
            newest = await records.newest_of(connection, record.subject, {record.agreement})
            whole = item_json(record, newest, at) | {
                "proof_reference": record.proof_reference,
                "recorded_by": record.recorded_by,
            }
            return record.subject, {"consents": [str(consent_id)], **acting(mandate)}, whole

        return await self.look(caller, RECORD, "consent.read", read)

    async def receipt(self, caller: Caller | None, consent_id: UUID) -> Looked:
        """Issue the receipt: the record after ISO/IEC TS 27560, its SHA-256, and a plain text with its own.

        The entry of its issue holds both hashes, so the log proves what was handed out. Raises NotFound.
        """

        async def read(connection: AsyncConnection, at: datetime) -> tuple[UUID | None, dict[str, Any], Any]:
            record, mandate = await self._visible(connection, caller, consent_id, at)
            agreement = await records.agreement_of(connection, record)
            asked = await records.read_text(connection, record.agreement, record.text_version, record.language)
            document, text = record_27560(record, agreement, asked), receipt_text(record, agreement, asked, at)
            hashes = {"record_sha256": document_sha256(document).hex(), "text_sha256": sha256(text.encode()).hex()}
            said = {"consent": str(consent_id), **hashes, **acting(mandate)}
            return record.subject, said, {"record": document, "text": text, **hashes}

        return await self.look(caller, RECORD, "consent.receipt", read)

    async def publish(
        self,
        caller: Caller | None,
        *,
        agreement: str,
        version: str,
        language: str,
        text: str,
        command: Command | None = None,
    ) -> Done:
        """Publish what persons are asked under an agreement; raises BadRequest, Conflict or Denied."""

        async def work(connection: AsyncConnection, _actor: Actor, at: datetime) -> dict[str, Any]:
            await self._require_party(connection, caller, agreement)
            return await records.publish_text(
                connection, agreement=agreement, version=version, language=language, text=text, at=at
            )

        return await self.do(caller, MANAGE, work, command)

    async def texts(
        self, caller: Caller | None, agreement: str, *, after: tuple[str, str] = ("", ""), limit: int = 50
    ) -> list[ConsentText]:
        """Return the published texts of an agreement; none where the caller's institution is no party of it."""
        if caller is not None:
            await self.governance.authorise(caller, *RECORD, MANAGE)
        async with self.governance.database.connection() as connection:
            mine = caller is None or caller.person is not None
            if caller is not None and not mine:
                mine = await records.is_party(connection, agreement, caller.institution)
            return await records.texts_of(connection, agreement, after=after, limit=limit) if mine else []

    async def _require_party(self, connection: AsyncConnection, caller: Caller | None, agreement: str) -> None:
        if caller is None or caller.person is not None:
            return
        if not await records.is_party(connection, agreement, caller.institution):
            raise UnknownAgreement(agreement)

    async def _visible(
        self, connection: AsyncConnection, caller: Caller | None, consent_id: UUID, at: datetime
    ) -> tuple[ConsentRecord, Mandate | None]:
        """Return a record under an agreement of the caller's institution, or of a person they are or act for, then with
        the mandate.
        """
        record = await records.read_record(connection, consent_id)
        try:
            await self._require_party(connection, caller, record.agreement)
        except UnknownAgreement:
            raise NotInForce from None
        return record, await self.known(connection, caller, record.subject, at)


async def _hashed(connection: AsyncConnection, consent_id: UUID) -> dict[str, str]:
    """Return the hash of a record as its receipt will show it, for the entry of what was done."""
    record = await records.read_record(connection, consent_id)
    agreement = await records.agreement_of(connection, record)
    asked = await records.read_text(connection, record.agreement, record.text_version, record.language)
    return {"record_sha256": document_sha256(record_27560(record, agreement, asked)).hex()}


def item_json(record: ConsentRecord, newest: frozenset[UUID], at: datetime) -> dict[str, Any]:
    """Return a record as faces list it; ``in_force`` says that it is the newest answer, given, and not over."""
    over = record.expires_at is not None and record.expires_at <= at
    return {
        "id": str(record.id),
        "agreement": record.agreement,
        "agreement_version": record.agreement_version,
        "purposes": record.purposes,
        "fields": record.fields,
        "labels": record.labels,
        "state": record.state,
        "in_force": record.id in newest and record.state == "given" and not over,
        "text": {"version": record.text_version, "language": record.language},
        "channel": record.channel,
        "representation": None if record.representation is None else str(record.representation),
        "given_at": record.given_at.isoformat(),
        "expires_at": None if record.expires_at is None else record.expires_at.isoformat(),
        "ended_at": None if record.withdrawn_at is None else record.withdrawn_at.isoformat(),
        "end_reason": record.end_reason,
    }
