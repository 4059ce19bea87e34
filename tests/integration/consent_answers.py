"""What the tests of consents do over and over: give one, and ask the way the gateway does."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from consent import agreements, facts, records
from consent.decision import decide
from consent.models import FETCH, Agreement, Caller, Decision, Request
from consent.policy import PolicyStore

AT = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
FIELDS = ("cedula", "given_names", "surnames")
GROWN, CHILD = date(1990, 5, 5), date(2012, 6, 2)
AGREEMENT = "DEMO-SNPP-IDENT"


def demonstration(code: str) -> Agreement:
    """One of the agreements a new database starts with."""
    return next(each for each in agreements.demonstration_agreements() if each.code == code)


def new_consent(**changes: Any) -> records.NewConsent:
    """A course applicant's consent to three fields of identity."""
    usual = records.NewConsent(
        agreement=AGREEMENT,
        purposes=frozenset({"service-provision"}),
        fields=frozenset(FIELDS),
        text_version="2026-1",
        language="gn",
        channel="in-person",
        proof_reference="form-17",
    )
    return replace(usual, **changes)


async def give(
    conn: AsyncConnection,
    subject: UUID,
    *,
    at: datetime = AT,
    birth_date: date | None = GROWN,
    state: records.Answer = "given",
    **changes: Any,
) -> UUID:
    """Record an answer and return its id."""
    said = await records.record_consent(
        conn, subject, new_consent(**changes), birth_date=birth_date, recorded_by="SNPP/operator-7", at=at, state=state
    )
    return UUID(said["consent"])


async def withdraw(conn: AsyncConnection, consent_id: UUID, *, at: datetime = AT) -> dict[str, Any]:
    """Withdraw a consent as its person."""
    return await records.end_consent(conn, consent_id, step="withdraw", reason="person", at=at)


async def ask(
    conn: AsyncConnection,
    subject: UUID,
    *,
    at: datetime = AT,
    birth_date: date = GROWN,
    caller: Caller | None = None,
    **changes: Any,
) -> Decision:
    """Decide the way the gateway does: the policy from the tables, the facts in one query, the birth date added."""
    policy = await PolicyStore(conn.engine).load(conn)
    known = facts.completed(await facts.subject_facts(conn, subject), birth_date=birth_date, deceased=False)
    request = Request(
        action=FETCH,
        caller=caller or Caller(client_id="c", institution="SNPP", roles=frozenset({"operator"})),
        holder="PN-IDENT",
        dataset="identity",
        fields=FIELDS,
        purpose="service-provision",
        basis="consent",
        at=at,
    )
    return decide(replace(request, **changes), known, policy)
