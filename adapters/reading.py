"""Turns an answer already parsed into an outcome; the same for JSON and XML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date
from typing import Any
from uuid import UUID

from jmespath.exceptions import JMESPathError

from adapters.errors import CallFailed, ContractBroken
from adapters.manifest import Dataset, Polling, Sending
from adapters.mapping import Expression, FieldTable
from adapters.models import (
    AlreadyTaken,
    EntryReceipt,
    Found,
    NotFound,
    Page,
    ReferralMessage,
    Rejected,
    RejectedRow,
    Reply,
    SendOutcome,
    Taken,
)
from adapters.resilience import Call
from adapters.rules import Rule, first_match

#: What an answer means for which no rule holds; ``None`` for a plain success.
Otherwise = CallFailed | ContractBroken | None


class Unsayable(ValueError):
    """A message lacks what the recipient's contract demands, or holds what it cannot carry; names the field."""


def fetched(
    spec: Dataset,
    document: Any,
    asked: str,
    call: Call,
    *,
    status: int | None = None,
    fault: str | None = None,
    otherwise: Otherwise = None,
) -> Found | NotFound | Rejected:
    """Read an answer to a fetch.

    Raises ContractBroken for what does not follow the manifest, an answer about somebody else included; CallFailed
    where a rule says so; ``otherwise``, where no rule holds.
    """
    root = document
    if otherwise is None and spec.root is not None:
        root = spec.root(document)
        if not isinstance(root, dict):
            raise ContractBroken("the answer lacks its root")
    rule = first_match(spec.rules, root, status=status, fault=fault)
    if rule is not None:
        if rule.outcome == "not-found":
            return NotFound(call.provenance())
        return _refusal(rule, root, call)
    if otherwise is not None:
        raise otherwise
    mapped = spec.table.read(root)
    if mapped.problems:
        raise ContractBroken(_problem_text(mapped.problems))
    if spec.echo is not None and mapped.values.get(spec.echo) != asked:
        raise ContractBroken(f"{spec.echo}: the answer is about somebody else")
    return Found(mapped.values, call.provenance(), mapped.raw_codes)


def sent(
    spec: Sending,
    document: Any,
    call: Call,
    *,
    status: int | None = None,
    fault: str | None = None,
    otherwise: Otherwise = None,
) -> SendOutcome:
    """Read an answer to a send. Raises ContractBroken or ``otherwise`` where no rule holds, CallFailed by a rule."""
    rule = first_match(spec.rules, document, status=status, fault=fault)
    if rule is None:
        raise otherwise or ContractBroken("the answer matches no outcome")
    if rule.outcome == "taken":
        return Taken(rule.text(rule.reference, document), call.provenance())
    if rule.outcome == "already-taken":
        return AlreadyTaken(rule.text(rule.reference, document), call.provenance())
    return _refusal(rule, document, call)


def _refusal(rule: Rule, document: Any, call: Call) -> Rejected:
    code, reason = rule.text(rule.code, document), rule.text(rule.reason, document)
    if rule.outcome == "unavailable":
        raise CallFailed(f"the producer says it cannot: {rule.fault or 'by its own code'}")
    return Rejected(code or rule.fault or "rejected", reason, call.provenance())


def paged(spec: Polling, document: Any, call: Call) -> Page:
    """Read an answer to a poll: items that cannot be read are named and stop nothing."""
    items = _look(spec.items, document)
    cursor, more = _look(spec.cursor, document), _look(spec.more, document)
    if not isinstance(items, list | None) or not isinstance(cursor, str) or not isinstance(more, bool):
        raise ContractBroken("the answer lacks its items, cursor or continuation")
    replies, rejects = read_replies(spec.table, enumerate(items or (), start=1))
    return Page(replies, rejects, cursor, more, call.provenance())


def read_replies(
    table: FieldTable, rows: Iterable[tuple[int, Any]]
) -> tuple[tuple[Reply, ...], tuple[RejectedRow, ...]]:
    """Read numbered rows into replies; every row ends in one of the two lists."""
    replies: list[Reply] = []
    rejects: list[RejectedRow] = []
    for number, row in rows:
        mapped = table.read(row)
        if mapped.problems:
            rejects.extend(RejectedRow(number, column, what) for column, what in mapped.problems[:1])
            continue
        replies.append(reply_of(mapped.values, mapped.raw_codes))
    return tuple(replies), tuple(rejects)


def reply_of(values: Mapping[str, Any], raw_codes: Mapping[str, str]) -> Reply:
    """Make a reply of the fields read by a manifest's table, which makes sure of the required ones."""
    typed = {
        "referral_id": UUID(values["referral_id"]),
        "occurred_on": date.fromisoformat(values["occurred_on"]),
        "raw_codes": raw_codes,
    }
    return Reply(**{**values, **typed})


def message_document(message: ReferralMessage, receipt: EntryReceipt | None = None) -> dict[str, Any]:
    """Lay a referral out for the field tables: texts only, ISO dates, instants in UTC, the cédula first.

    ``receipt`` is written as the header ``X-SIIS-Receipt`` has it, for interfaces without headers.
    """
    identifiers = sorted(message.identifiers, key=lambda item: item.system != "cedula")
    return {
        "referral_id": str(message.referral_id),
        "service": message.service,
        "requester": message.requester,
        "recipient": message.recipient,
        "identifiers": [{"system": item.system, "value": item.value} for item in identifiers],
        "given_names": message.given_names,
        "surnames": message.surnames,
        "birth_date": None if message.birth_date is None else message.birth_date.isoformat(),
        "sex": message.sex,
        "department": message.department,
        "district": message.district,
        "reason_code": message.reason_code,
        "reason_text": message.reason_text,
        "priority": message.priority,
        "issued_at": message.issued_at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "due_on": None if message.due_on is None else message.due_on.isoformat(),
        "kind": message.kind,
        "message_id": str(message.key),
        "receipt": None if receipt is None else str(receipt),
    }


def write(table: FieldTable, document: Any) -> dict[str, Any]:
    """Write a message's fields; raise :class:`Unsayable` when one is missing or does not fit."""
    mapped = table.read(document)
    if mapped.problems:
        raise Unsayable(_problem_text(mapped.problems))
    return mapped.values


def _problem_text(problems: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{name}: {what}" for name, what in problems[:5])


def _look(expression: Expression | None, document: Any) -> Any:
    try:
        return None if expression is None else expression(document)
    except JMESPathError:
        raise ContractBroken("a field of the page is of another type") from None
