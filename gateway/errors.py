"""What the domain refuses, in the words the faces translate: each has a stable code and, maybe, a field."""

from __future__ import annotations

from collections.abc import Iterable

from adapters.models import Provenance
from audit.models import Receipt


class Refusal(Exception):
    """A request the domain does not carry out; ``code`` is stable, ``pointer`` names the field (RFC 6901)."""

    def __init__(self, code: str, *, pointer: str | None = None, receipt: Receipt | None = None) -> None:
        super().__init__(code)
        self.code, self.pointer, self.receipt = code, pointer, receipt


class BadRequest(Refusal):
    """The request itself is wrong: an unknown code, an identifier that is not one.

    ``allowed`` are the codes that could have stood there; ``detail`` says in Spanish what to do, where the code alone
    does not.
    """

    def __init__(
        self,
        code: str,
        *,
        pointer: str | None = None,
        receipt: Receipt | None = None,
        allowed: Iterable[str] = (),
        detail: str | None = None,
    ) -> None:
        super().__init__(code, pointer=pointer, receipt=receipt)
        self.allowed, self.detail = tuple(allowed), detail


class Denied(Refusal):
    """The decision was no, for a reason that does not depend on the subject."""

    def __init__(self, reasons: tuple[str, ...], receipt: Receipt) -> None:
        super().__init__("denied", receipt=receipt)
        self.reasons = reasons


class NotFound(Refusal):
    """Nothing there, or nothing this caller may learn of: to a caller outside, the two look the same.

    ``source`` is the producer that said it has nothing; without one nobody was asked. It never leaves the gateway.
    """

    def __init__(
        self,
        code: str,
        *,
        pointer: str | None = None,
        receipt: Receipt | None = None,
        source: Provenance | None = None,
    ) -> None:
        super().__init__(code, pointer=pointer, receipt=receipt)
        self.source = source


class Conflict(Refusal):
    """The request contradicts what is already there: another body under one key, an event out of order."""

    def __init__(self, code: str, *, detail: str | None = None) -> None:
        super().__init__(code)
        self.detail = detail


class EvidenceStopped(Refusal):
    """Ordinary disclosures stop: nobody outside has confirmed the log for too long. Nobody was asked anything."""

    def __init__(self, receipt: Receipt) -> None:
        super().__init__("evidence-stopped", receipt=receipt)


class ProducerFailed(Refusal):
    """The producer's system did not answer usefully; ``kind`` is unavailable, malformed or rejected."""

    def __init__(self, kind: str, retry_after_s: float | None = None, *, receipt: Receipt) -> None:
        super().__init__(f"producer-{kind}", receipt=receipt)
        self.kind, self.retry_after_s = kind, retry_after_s
