"""What a referral message holds, and how attempts are spaced."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from consent.models import REFERRAL_FIELDS
from gateway.delivery.plan import Plan
from gateway.delivery.service import _referral
from gateway.referrals.models import Referral
from gateway.registry.models import PersonDetails, PersonRef

PERSON = PersonDetails(
    PersonRef(UUID(int=1), None, date(1950, 1, 2), None, "F", "11", "1101", {}), "Arami", "Báez", (("cedula", "123"),)
)
REFERRAL = Referral(
    id=UUID(int=2),
    person_id=UUID(int=1),
    service="health-control",
    requester="UTGS",
    recipient="MSPBS",
    purpose="service-provision",
    basis="official-authority",
    agreement=None,
    caller={},
    reason_code="protection-gap",
    priority="routine",
    state="created",
    delivery="pending",
    delivery_reason=None,
    attempts=0,
    recipient_reference=None,
    created_at=datetime(2026, 11, 22, tzinfo=UTC),
    due_on=None,
    foreign_system=None,
    foreign_value=None,
)


def test_a_message_holds_only_what_the_decision_released() -> None:
    whole = _referral(REFERRAL, PERSON, "", frozenset(REFERRAL_FIELDS))
    assert (whole.given_names, whole.birth_date, whole.district) == ("Arami", date(1950, 1, 2), "1101")
    for field, nothing in {
        "identifiers": (),
        "given_names": "",
        "surnames": "",
        "birth_date": None,
        "sex": None,
        "department": None,
        "district": None,
    }.items():
        trimmed = _referral(REFERRAL, PERSON, "", frozenset(REFERRAL_FIELDS) - {field})
        assert trimmed == replace(whole, **{field: nothing})


def test_waits_double_up_to_a_day_and_a_silent_institution_is_tried_every_minute() -> None:
    plan = Plan(first_wait_s=5, attempts=20)
    waits = [plan.wait(attempt) for attempt in range(1, 20)]
    assert timedelta(seconds=4.5) <= waits[0] <= timedelta(seconds=5.5)
    assert all(later > earlier for earlier, later in itertools.pairwise(waits[:10]))
    assert timedelta(hours=21) < waits[-1] <= timedelta(hours=27)
    assert timedelta(days=5) < sum(waits, timedelta()) < timedelta(days=8)
    assert [plan.closed(closings).total_seconds() for closings in (0, 1, 2, 3, 4, 99)] == [5, 10, 20, 40, 60, 60]
