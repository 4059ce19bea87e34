"""What holds at the same moment: one command given twice is one referral, a record made with others stands alone."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from referral_desk import START, Desk, caller, command

from adapters.models import Provenance, Taken
from gateway.delivery.queue import Job
from gateway.referrals.models import NewReferral

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("additional", [False, True])
async def test_the_same_command_several_times_at_once_makes_one_referral(desk: Desk, additional: bool) -> None:
    new = NewReferral(
        identifiers=(("siis", str(await desk.person())),),
        service="vaccination",
        reason_code="protection-gap",
        reason_text="",
        priority="routine",
        purpose="service-provision",
        basis="official-authority",
        additional=additional,
    )
    given = command()
    done = await asyncio.gather(*(desk.referrals.create(caller("UTGS"), given, new) for _ in range(6)))
    assert all(each.answer == done[0].answer for each in done)
    assert sorted(each.replayed for each in done) == [False] + [True] * 5


async def test_what_is_recorded_together_costs_nobody_else_their_record(desk: Desk) -> None:
    referrals = [UUID((await desk.refer()).answer["id"]) for _ in range(16)]
    spoilt = referrals[10]
    delivery = desk.runtime.delivery
    attempts = []
    for referral in referrals:
        found = await delivery._reader.read(referral)
        assert found is not None
        # What no database takes, as an institution might answer it.
        taken = Taken("\x00" if referral == spoilt else "7", Provenance("mspbs", "MSPBS", START, None, 5, 1))
        number = await _job(desk, referral)
        assert number is not None
        attempts.append(
            delivery._conclusions.transmitted(Job(number, referral, "MSPBS", 1, False), found, taken, "rest")
        )
    ended = await asyncio.gather(*attempts, return_exceptions=True)
    assert [referral for referral, end in zip(referrals, ended, strict=True) if end is not None] == [spoilt]
    for referral in referrals:
        _current, happened, row = await desk.seen(referral)
        sent = referral != spoilt
        assert row["delivery"] == ("transmitted" if sent else "pending")
        assert [each.type for each in happened] == ["create", *(["send"] if sent else [])]
        assert (await _job(desk, referral) is None) == sent


async def _job(desk: Desk, referral: UUID) -> int | None:
    async with desk.runtime.database.connection() as connection:
        result = await connection.exec_driver_sql(
            "SELECT id FROM jobs.procrastinate_jobs WHERE lock = %s", (str(referral),)
        )
        found: int | None = result.scalar_one_or_none()
        return found
