"""What every kind of adapter shares: the permit is checked, the identifier fits, the guard makes the call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from adapters.errors import PermitMismatch
from adapters.manifest import Dataset, Manifest, Polling, Sending
from adapters.models import (
    FetchOutcome,
    Health,
    Identifier,
    PollOutcome,
    ReferralMessage,
    Rejected,
    SendOutcome,
)
from adapters.reading import Unsayable, message_document, write
from adapters.resilience import Call, Guard
from schemas.errors import InvalidIdentifier
from schemas.ids import parse_cedula
from schemas.permit import Permit

# What may stand in a path or a message as an identifier; no lone dots, so no path ever climbs.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", re.ASCII)


def check_permit(permit: Permit, action: str, institution: str, dataset: str | None = None) -> None:
    """Raise :class:`~adapters.errors.PermitMismatch` unless the permit is for exactly this action, holder, dataset."""
    if permit.action != action or permit.holder != institution or dataset not in (None, permit.dataset):
        raise PermitMismatch(f"a permit for another action, holder or dataset than {action} at {institution}")


class ProducerAdapter:
    """A producer's system as its manifest describes it. Kinds fill in the methods below ``close``."""

    connected = True

    def __init__(self, manifest: Manifest, guard: Guard) -> None:
        self.manifest, self.guard = manifest, guard
        self.name, self.institution, self.kind = manifest.name, manifest.institution, manifest.kind
        self.datasets, self.services = frozenset(manifest.datasets), manifest.services
        self.polls, self.deduplicates = manifest.poll is not None, manifest.deduplicates

    @property
    def health(self) -> Health:
        """What the last call showed."""
        return self.guard.health

    def asks_by(self, dataset: str) -> str:
        """Return the identifier system by which this producer knows a subject of a dataset; KeyError without it."""
        return self.manifest.datasets[dataset].identifier

    async def fetch(self, permit: Permit, dataset: str, identifier: Identifier) -> FetchOutcome:
        """Ask for a dataset about one subject. Raises PermitMismatch; everything else is an outcome."""
        check_permit(permit, "disclosure.fetch", self.institution, dataset)
        spec = self.manifest.datasets.get(dataset)
        if spec is None:
            return self._refused("unsupported", "no such dataset here")
        value = _identifier(spec, identifier)
        if value is None:
            return self._refused("identifier", f"not a usable identifier of system {spec.identifier}")
        content = self._encode(spec.request, write(spec.body, {"system": spec.identifier, "value": value}))
        attempt = partial(self._fetch, spec=spec, value=value, content=content)
        return await self.guard.run(attempt, effect=False, repeatable=True)

    async def send(self, permit: Permit, message: ReferralMessage) -> SendOutcome:
        """Transmit a referral under its id. Raises PermitMismatch; everything else is an outcome.

        ``Rejected`` with code ``incomplete-message``: the recipient's contract cannot carry it, and nothing was sent.
        """
        check_permit(permit, "referral.send", self.institution, f"service:{message.service}")
        spec = self.manifest.send
        if spec is None or message.service not in self.services:
            return self._refused("unsupported", "no such service here")
        try:
            content = self._encode(spec.request, write(spec.body, message_document(message)))
        except Unsayable as error:
            return self._refused("incomplete-message", str(error))
        attempt = partial(self._send, spec=spec, message=message, content=content)
        return await self.guard.run(attempt, effect=True, repeatable=self.deduplicates)

    async def poll(self, permit: Permit, cursor: str | None) -> PollOutcome:
        """Ask for counter-referrals after ``cursor``. Raises PermitMismatch; everything else is an outcome."""
        check_permit(permit, "reply.poll", self.institution)
        spec = self.manifest.poll
        if spec is None:
            return self._refused("unsupported", "nothing to poll here")
        content = self._encode(spec.request, write(spec.body, {"cursor": cursor}))
        attempt = partial(self._poll, spec=spec, cursor=cursor, content=content)
        return await self.guard.run(attempt, effect=False, repeatable=True)

    async def close(self) -> None:
        """Release connections."""

    def _encode(self, request: Mapping[str, Any], values: dict[str, Any]) -> bytes:
        """Write a message's fields as this kind sends them; raise :class:`~adapters.reading.Unsayable`."""
        raise NotImplementedError

    async def _fetch(self, call: Call, *, spec: Dataset, value: str, content: bytes) -> FetchOutcome:
        raise NotImplementedError

    async def _send(self, call: Call, *, spec: Sending, message: ReferralMessage, content: bytes) -> SendOutcome:
        raise NotImplementedError

    async def _poll(self, call: Call, *, spec: Polling, cursor: str | None, content: bytes) -> PollOutcome:
        raise NotImplementedError

    def _refused(self, code: str, reason: str) -> Rejected:
        return Rejected(code, reason, Call(self.guard).provenance())


def _identifier(spec: Dataset, identifier: Identifier) -> str | None:
    if identifier.system != spec.identifier:
        return None
    if identifier.system == "cedula":
        try:
            return parse_cedula(identifier.value)
        except InvalidIdentifier:
            return None
    return identifier.value if _PLAIN.match(identifier.value) else None
