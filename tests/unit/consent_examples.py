"""Small examples of agreements, requests and persons; each builder takes the changes that a test is about."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from consent.models import FETCH, AgreedBasis, Agreement, Caller, ConsentFact, Request, SubjectFacts

AT = datetime(2026, 6, 1, 15, 0, tzinfo=UTC)
PERSON = UUID("01980000-0000-7000-8000-000000000001")
RECORD = UUID("01980000-0000-7000-8000-000000000002")
IDENTITY = ("cedula", "given_names", "surnames", "birth_date", "sex")


def agreement(**changes: Any) -> Agreement:
    """MDS may ask PN-IDENT for five fields of identity, by duty, by law or with consent."""
    usual = Agreement(
        code="A",
        es="Acuerdo",
        en="Agreement",
        requester="MDS",
        holder="PN-IDENT",
        datasets={"identity": frozenset(IDENTITY)},
        purposes=frozenset({"service-provision"}),
        bases=(
            AgreedBasis("official-authority", "Decreto 4775/2021"),
            AgreedBasis("legal-obligation", "Ley 7322/2024"),
            AgreedBasis("consent", "Ley 7593/2025"),
        ),
        channels=frozenset({"api"}),
        minimum_assurance=1,
        labels=frozenset({"identifying"}),
        roles=frozenset({"operator", "system"}),
        valid_from=AT - timedelta(days=100),
        valid_to=None,
        status="active",
        version=3,
    )
    return replace(usual, **changes)


def caller(**changes: Any) -> Caller:
    return replace(Caller(client_id="mds-core", institution="MDS", roles=frozenset({"operator"})), **changes)


def request(**changes: Any) -> Request:
    usual = Request(
        action=FETCH,
        caller=caller(),
        holder="PN-IDENT",
        dataset="identity",
        fields=IDENTITY,
        purpose="service-provision",
        basis="official-authority",
        at=AT,
    )
    return replace(usual, **changes)


def consent(**changes: Any) -> ConsentFact:
    usual = ConsentFact(
        id=RECORD,
        agreement="A",
        purposes=frozenset({"service-provision"}),
        fields=frozenset(IDENTITY),
        state="given",
        text_version="2026-1",
        given_at=AT - timedelta(days=10),
        scope_sha256=agreement().scope_sha256(),
    )
    return replace(usual, **changes)


def person(**changes: Any) -> SubjectFacts:
    return replace(SubjectFacts(subject=PERSON, birth_date=date(1980, 2, 29)), **changes)
