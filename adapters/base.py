"""What every kind of adapter shares: the permit is checked, the identifier fits, the guard makes the call."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, ClassVar, Self

import httpx

from adapters.connections import Connection
from adapters.errors import PermitMismatch
from adapters.manifest import Bulk, Dataset, Manifest, Polling, Sending
from adapters.models import (
    NOTHING,
    BulkOutcome,
    EntryReceipt,
    FetchOutcome,
    Guarantees,
    Health,
    Identifier,
    NotFound,
    PollOutcome,
    ReferralMessage,
    Register,
    Rejected,
    SendOutcome,
)
from adapters.reading import Unsayable, message_document, write
from adapters.resilience import Call, Guard
from schemas.errors import InvalidIdentifier
from schemas.ids import parse_cedula
from schemas.permit import Permit, Rehearsal
from schemas.text import _

# What may stand in a path or a message as an identifier; no lone dots, so no path ever climbs.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", re.ASCII)


#: Gives the secret a manifest names at a place in it; refuses the manifest where there is none.
Secrets = Callable[..., str]


class ProducerAdapter:
    """A producer's system as its manifest describes it.

    A kind fills in ``check``, ``connect`` and what is below ``close``. A third party's kind is a subclass
    behind an entry point of the group ``siis.adapters``.
    """

    #: Schemes an address of this kind may have.
    schemes: ClassVar[tuple[str, ...]] = ("https", "http")
    connected = True
    #: Opened by the conformance kit, towards this machine only: such an adapter takes rehearsals, and no permits.
    rehearsing = False

    def __init__(self, manifest: Manifest, guard: Guard) -> None:
        self.manifest, self.guard = manifest, guard
        self.name, self.institution, self.kind = manifest.name, manifest.institution, manifest.kind
        self.datasets, self.services = frozenset(manifest.datasets), manifest.services
        self.registers = frozenset(manifest.bulk)
        #: Kinds of messages about a referral that may follow it.
        self.further = frozenset(manifest.further)
        self.polls, self.deduplicates = manifest.poll is not None, manifest.deduplicates

    @classmethod
    def check(cls, manifest: Manifest) -> None:
        """Refuse a manifest (``manifest.source.refuse``) for what only this kind can see is wrong in it."""

    @classmethod
    def connect(
        cls,
        manifest: Manifest,
        guard: Guard,
        connection: Connection,
        secret: Secrets,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> Self:
        """Make the adapter of a checked manifest; nothing is opened yet. ``transport`` stands in for the network."""
        raise NotImplementedError

    @property
    def health(self) -> Health:
        """What the last call showed."""
        return self.guard.health

    @property
    def guarantees(self) -> Guarantees:
        """What it makes sure of and what it does not check, as its manifest has it."""
        return _guarantees(self.manifest)

    def check_permit(self, permit: Permit | Rehearsal, action: str, dataset: str | None = None) -> None:
        """Raise :class:`~adapters.errors.PermitMismatch` unless the permit is for exactly this action and dataset here.

        A rehearsal is good for an adapter opened for one, and for nothing else.
        """
        if isinstance(permit, Rehearsal) or self.rehearsing:
            if not (isinstance(permit, Rehearsal) and self.rehearsing):
                raise PermitMismatch("a rehearsal is one on both sides")
        elif permit.action != action or permit.holder != self.institution or dataset not in (None, permit.dataset):
            raise PermitMismatch(f"a permit for another action, holder or dataset than {action} at {self.institution}")

    def asks_by(self, dataset: str) -> str:
        """Return the identifier system by which this producer knows a subject of a dataset; KeyError without it."""
        return self.manifest.datasets[dataset].identifier

    async def fetch(
        self,
        permit: Permit | Rehearsal,
        dataset: str,
        identifier: Identifier,
        presented: Mapping[str, str] = NOTHING,
        *,
        receipt: EntryReceipt | None = None,
    ) -> FetchOutcome:
        """Ask for a dataset about one subject. Raises PermitMismatch; everything else is an outcome.

        ``Rejected`` with code ``incomplete-question``: the producer's contract asks for something not presented.
        """
        self.check_permit(permit, "disclosure.fetch", dataset)
        spec = self.manifest.datasets.get(dataset)
        if spec is None:
            return self._refused("unsupported", "no such dataset here")
        value = _identifier(spec, identifier)
        if value is None:
            return self._refused("identifier", f"not a usable identifier of system {spec.identifier}")
        asked = {"system": spec.identifier, "value": value, "presented": presented}
        try:
            query, content = write(spec.query, asked), self._encode(spec.request, write(spec.body, asked))
        except Unsayable as error:
            return self._refused("incomplete-question", str(error))
        attempt = partial(self._fetch, spec=spec, value=value, query=query, content=content)
        return await self.guard.run(attempt, effect=False, repeatable=True, receipt=receipt)

    async def send(
        self, permit: Permit | Rehearsal, message: ReferralMessage, *, receipt: EntryReceipt | None = None
    ) -> SendOutcome:
        """Transmit a referral or more about it under its id. Raises PermitMismatch; everything else is an outcome.

        ``Rejected`` with code ``incomplete-message``: the recipient's contract cannot carry it, and nothing was sent.
        """
        self.check_permit(permit, "referral.send", f"service:{message.service}")
        spec = self.manifest.send if message.kind == "referral" else self.manifest.further.get(message.kind)
        if spec is None or message.service not in self.services:
            return self._refused("unsupported", "no such service here")
        try:
            document = message_document(message, receipt)
            query, content = write(spec.query, document), self._encode(spec.request, write(spec.body, document))
        except Unsayable as error:
            return self._refused("incomplete-message", str(error))
        attempt = partial(self._send, spec=spec, message=message, query=query, content=content)
        return await self.guard.run(attempt, effect=True, repeatable=self.deduplicates, receipt=receipt)

    async def poll(self, permit: Permit | Rehearsal, cursor: str | None) -> PollOutcome:
        """Ask for counter-referrals after ``cursor``. Raises PermitMismatch; everything else is an outcome."""
        self.check_permit(permit, "reply.poll")
        spec = self.manifest.poll
        if spec is None:
            return self._refused("unsupported", "nothing to poll here")
        asked = {"cursor": cursor}
        try:
            query, content = write(spec.query, asked), self._encode(spec.request, write(spec.body, asked))
        except Unsayable as error:
            return self._refused("incomplete-question", str(error))
        attempt = partial(self._poll, spec=spec, cursor=cursor, query=query, content=content)
        return await self.guard.run(attempt, effect=False, repeatable=True)

    async def bulk(self, permit: Permit | Rehearsal, dataset: str, taken: Collection[bytes]) -> BulkOutcome:
        """Fetch the first register of a dataset that was not taken. Raises PermitMismatch; else an outcome."""
        self.check_permit(permit, "register.take", dataset)
        spec = self.manifest.bulk.get(dataset)
        if spec is None:
            return self._refused("unsupported", "no such register here")
        attempt = partial(self._bulk, spec=spec, taken=taken)
        return await self.guard.run(attempt, effect=False, repeatable=True, budget_s=self.manifest.limits.bulk_s)

    async def close(self) -> None:
        """Release connections."""

    def _encode(self, request: Mapping[str, Any], values: dict[str, Any]) -> bytes:
        """Write a message's fields as this kind sends them; raise :class:`~adapters.reading.Unsayable`."""
        raise NotImplementedError

    async def _fetch(
        self, call: Call, *, spec: Dataset, value: str, query: Mapping[str, Any], content: bytes
    ) -> FetchOutcome:
        raise NotImplementedError

    async def _send(
        self, call: Call, *, spec: Sending, message: ReferralMessage, query: Mapping[str, Any], content: bytes
    ) -> SendOutcome:
        raise NotImplementedError

    async def _poll(
        self, call: Call, *, spec: Polling, cursor: str | None, query: Mapping[str, Any], content: bytes
    ) -> PollOutcome:
        raise NotImplementedError

    async def _bulk(self, call: Call, *, spec: Bulk, taken: Collection[bytes]) -> Register | NotFound | Rejected:
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


def _guarantees(manifest: Manifest) -> Guarantees:
    sure = [
        _("Cada respuesta lleva fuente, hora, hash del mensaje, duración e intentos."),
        _("Una respuesta que no cumple el contrato no se entrega."),
    ]
    unchecked = [_("Que lo que la institución dice sea cierto.")]
    echoed = [name for name, spec in manifest.datasets.items() if spec.echo]
    others = [name for name, spec in manifest.datasets.items() if not spec.echo]
    if echoed:
        sure.append(_("La respuesta es sobre la persona preguntada: {names}.").format(names=", ".join(echoed)))
    if others:
        unchecked.append(
            _("Que la respuesta sea sobre la persona preguntada: {names}.").format(names=", ".join(others))
        )
    if manifest.send is not None and manifest.deduplicates:
        sure.append(_("Una referencia repetida tiene efecto una sola vez, según la institución."))
    elif manifest.send is not None:
        unchecked.append(_("Que la institución reconozca una referencia repetida; no se repite sin una persona."))
    if manifest.bulk:
        sure.append(_("Cada archivo se toma una vez por su contenido, y cada fila mala se nombra."))
    if manifest.security.get("partner"):
        sure.append(_("La respuesta está firmada por la institución."))
    if manifest.assumed:
        unchecked.append(_("Contrato supuesto: {what}").format(what=manifest.assumed))
    return Guarantees(tuple(sure), tuple(unchecked))
