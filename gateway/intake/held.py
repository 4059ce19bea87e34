"""Answers for a producer from the registers taken of it, as if it were asked: the newest facts held, and from when."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import and_, select
from sqlalchemy.exc import SQLAlchemyError

from adapters.base import ProducerAdapter
from adapters.manifest import Bulk
from adapters.models import (
    NOTHING,
    BulkOutcome,
    EntryReceipt,
    FetchOutcome,
    Found,
    Guarantees,
    Health,
    Identifier,
    Malformed,
    NotFound,
    PollOutcome,
    Provenance,
    ReferralMessage,
    Rejected,
    SendOutcome,
    Unavailable,
)
from gateway.clock import utc_now
from gateway.database import Database
from gateway.intake.packing import unpack
from gateway.intake.register_store import CONTENT
from gateway.intake.tables import register_file, register_row
from gateway.registry.service import normalise
from gateway.vault import Vault
from schemas.errors import InvalidIdentifier
from schemas.permit import Permit

_NONE: frozenset[str] = frozenset()
#: Rows of one subject that make an answer at most.
_MOST_ROWS = 1000


class HeldRegisters:
    """The registers taken of one producer (:class:`~adapters.models.Adapter`); its own system is not asked.

    Several rows of a subject make one answer: the fields the manifest sums are added up, the others are the last row's.
    """

    connected, polls, deduplicates = True, False, False

    def __init__(self, adapter: ProducerAdapter, database: Database, vault: Vault) -> None:
        self._adapter, self._database, self._vault = adapter, database, vault
        self.name, self.institution, self.kind = adapter.name, adapter.institution, adapter.kind
        self.datasets, self.registers, self.services = adapter.registers, _NONE, _NONE

    @property
    def health(self) -> Health:
        """What the producer's own last call showed."""
        return self._adapter.health

    @property
    def guarantees(self) -> Guarantees:
        """What the producer's adapter makes sure of."""
        return self._adapter.guarantees

    def asks_by(self, dataset: str) -> str:
        """Return the identifier system by which a register's rows are found; KeyError without the register."""
        return self._adapter.manifest.bulk[dataset].system

    async def fetch(
        self,
        permit: Permit,
        dataset: str,
        identifier: Identifier,
        presented: Mapping[str, str] = NOTHING,
        *,
        receipt: EntryReceipt | None = None,
    ) -> FetchOutcome:
        """Look a subject up in the register in force. Raises PermitMismatch; everything else is an outcome.

        No call leaves, so no receipt does either: the institution finds it in the list of its receipts.
        """
        self._adapter.check_permit(permit, "disclosure.fetch", dataset)
        started = time.monotonic()
        spec = self._adapter.manifest.bulk[dataset]
        try:
            value = normalise(spec.system, identifier.value) if identifier.system == spec.system else None
        except InvalidIdentifier:
            value = None
        if value is None:
            return Rejected("identifier", f"not a usable identifier of system {spec.system}", self._told(started))
        try:
            rows, newest = await self._look_up(spec, value)
        except (SQLAlchemyError, OSError):
            return Unavailable("the register could not be read", self._told(started))
        if len(rows) > _MOST_ROWS:
            return Malformed(f"more than {_MOST_ROWS} rows about one subject", self._told(started, rows[-1]))
        if rows:
            facts, raw_codes = self._combined(spec, rows)
            return Found(facts, self._told(started, rows[-1]), raw_codes)
        if newest is None:
            return Unavailable("no register taken yet", self._told(started))
        return NotFound(self._told(started, newest))

    async def send(
        self, permit: Permit, message: ReferralMessage, *, receipt: EntryReceipt | None = None
    ) -> SendOutcome:
        """Refuse: a register takes no referrals."""
        return self._unsupported()

    async def poll(self, permit: Permit, cursor: str | None) -> PollOutcome:
        """Refuse: a register answers no referrals."""
        return self._unsupported()

    async def bulk(self, permit: Permit, dataset: str, taken: Collection[bytes]) -> BulkOutcome:
        """Refuse: what is held is not taken again from here."""
        return self._unsupported()

    async def close(self) -> None:
        """There is nothing to release."""

    def _unsupported(self) -> Rejected:
        return Rejected("unsupported", "a register taken only answers", self._told(time.monotonic()))

    async def _look_up(self, spec: Bulk, value: str) -> tuple[Sequence[Any], Any]:
        """Return a subject's rows, oldest register first, and without any, the newest register there is."""
        file, row = register_file.c, register_row.c
        told = (file.id, file.name, file.sha256, file.finished_at, file.fields, file.sealed)
        in_force = and_(file.adapter == self.name, file.dataset == spec.name, file.state == "taken")
        subject = self._vault.register_index(spec.system)(value)
        async with self._database.connection() as connection:
            rows = await connection.execute(
                select(*told, row.row, row.content)
                .join(register_row, row.file_id == file.id)
                .where(in_force, row.subject == subject)
                .order_by(file.finished_at, file.id, row.row)
                .limit(_MOST_ROWS + 1)
            )
            if found := rows.all():
                return found, None
            newest = await connection.execute(select(*told).where(in_force).order_by(file.finished_at.desc()).limit(1))
            return (), newest.one_or_none()

    def _combined(self, spec: Bulk, rows: Sequence[Any]) -> tuple[dict[str, Any], Mapping[str, str]]:
        sums = dict.fromkeys(spec.sums, 0)
        for row in rows:
            content = row.content
            if row.sealed:
                content = self._vault.rows(CONTENT, row.id).open(row.row, content)
            facts, raw_codes = unpack(content, row.fields)
            for name in sums:
                sums[name] += facts.get(name, 0)
        return {**facts, **{name: total for name, total in sums.items() if name in rows[-1].fields}}, raw_codes

    def _told(self, started: float, file: Any = None) -> Provenance:
        at: datetime = utc_now() if file is None else file.finished_at
        return Provenance(
            adapter=self.name,
            institution=self.institution,
            at=at,
            raw_sha256=None if file is None else file.sha256,
            duration_ms=round((time.monotonic() - started) * 1000),
            attempts=1,
            register="" if file is None else file.name,
        )
