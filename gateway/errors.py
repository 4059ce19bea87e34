"""What the domain refuses, in the words the faces translate: each has a stable code and, maybe, a field."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong with a message: the rule broken, where (RFC 6901), what to do, and the codes there are."""

    rule: str
    pointer: str
    detail: str
    allowed: tuple[str, ...] = ()


class Invalid(BadRequest):
    """A message with mistakes that its schema cannot see; all of them are told at once."""

    def __init__(self, code: str, mistakes: Iterable[Mistake]) -> None:
        super().__init__(code)
        self.mistakes = tuple(mistakes)


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
    """The request contradicts what is already there: another body under one key, an event out of order.

    ``told`` are codes and ids that the caller may learn of what is there, by the name the answer gives them.
    """

    def __init__(
        self, code: str, *, detail: str | None = None, receipt: Receipt | None = None, **told: str | list[str]
    ) -> None:
        super().__init__(code, receipt=receipt)
        self.detail = detail
        self.told: dict[str, Any] = dict(told)


class EvidenceStopped(Refusal):
    """Ordinary disclosures stop: nobody outside has confirmed the log for too long. Nobody was asked anything."""

    def __init__(self, receipt: Receipt) -> None:
        super().__init__("evidence-stopped", receipt=receipt)


class ProducerFailed(Refusal):
    """The producer's system did not answer usefully; ``kind`` is unavailable, malformed or rejected."""

    def __init__(self, kind: str, retry_after_s: float | None = None, *, receipt: Receipt) -> None:
        super().__init__(f"producer-{kind}", receipt=receipt)
        self.kind, self.retry_after_s = kind, retry_after_s


def place_of(error: BaseException) -> str:
    """Return file and line where an unforeseen error was raised: its text may hold anything, so that is not told."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return "" if place is None else f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
