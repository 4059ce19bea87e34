"""Deadlines on a real database: each step once, in Paraguay's days, whoever dies in between, and who learns of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from uuid import UUID

import prometheus_client
import pytest
import pytest_asyncio
from referral_desk import START, prepare
from territory import DISTRICT, Territory, open_territory

from gateway import embedded
from gateway.deadlines.keeper import ESCALATE_AFTER, REMIND_BEFORE, Deadlines, Swept
from gateway.settings import Settings, load_settings

pytestmark = pytest.mark.asyncio(loop_scope="module")
NOTHING = Swept()


@pytest.fixture(scope="module")
def prepared(folders: Callable[[str], Path]) -> Iterator[Settings]:
    chosen = load_settings(data_dir=folders("deadlines") / "data")
    prepare(chosen)
    yield chosen
    embedded.stop(chosen.data_dir)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(prepared: Settings) -> AsyncIterator[Territory]:
    async with open_territory(prepared) as territory:
        yield territory


@pytest_asyncio.fixture(loop_scope="module")
async def place(opened: Territory) -> Territory:
    """Begin with no referral of another test that could come due."""
    async with opened.runtime.database.transaction() as connection:
        await connection.exec_driver_sql("UPDATE siis.referral SET due_on = NULL, state = 'completed'")
    opened.desk.at = START
    return opened


async def due(place: Territory, referral: UUID) -> datetime:
    """Return the last second of a referral's last day, in Paraguay."""
    _current, _events, row = await place.desk.seen(referral)
    return datetime.combine(row["due_on"] + timedelta(days=1), time(3), UTC) - timedelta(seconds=1)


async def test_a_referral_is_reminded_of_then_overdue_then_escalated_each_once(place: Territory) -> None:
    referral, keeper = await place.referral(), place.keeper()
    last = await due(place, referral)
    second = timedelta(seconds=1)
    steps = [
        (last - REMIND_BEFORE - timedelta(days=1), NOTHING),
        (last - REMIND_BEFORE - timedelta(days=1) + second, Swept(reminder=1)),
        (last, NOTHING),
        (last + second, Swept(overdue=1)),
        (last + ESCALATE_AFTER, NOTHING),
        (last + ESCALATE_AFTER + second, Swept(escalated=1)),
        (last + timedelta(days=99), NOTHING),
    ]
    for at, expected in steps:
        place.desk.at = at
        assert await keeper.sweep() == expected, at
    assert await place.happened(referral) == ["reminder", "overdue", "escalated"]


async def test_a_keeper_that_comes_late_reminds_nobody_of_a_day_that_is_over(place: Territory) -> None:
    referral = await place.referral()
    place.desk.at = await due(place, referral) + timedelta(days=60)
    assert await place.keeper().sweep() == Swept(overdue=1, escalated=1)


@pytest.mark.parametrize("ended", ["declined", "completed", "withheld"])
async def test_nobody_is_late_with_what_is_closed_or_was_never_to_be_sent(place: Territory, ended: str) -> None:
    referral = await place.referral()
    if ended == "withheld":
        async with place.runtime.database.transaction() as connection:
            await connection.exec_driver_sql(
                "UPDATE siis.referral SET delivery = 'withheld' WHERE id = %s", (referral,)
            )
    else:
        await place.desk.report(referral, {"declined": "decline", "completed": "outcome"}[ended])
    place.desk.at += timedelta(days=99)
    assert await place.keeper().sweep() == NOTHING


async def test_what_is_reopened_has_its_deadline_again(place: Territory) -> None:
    referral, keeper = await place.referral(), place.keeper()
    place.desk.at = await due(place, referral) + timedelta(hours=1)
    await keeper.sweep()
    await place.desk.report(referral, "decline")
    await place.desk.step(referral, "reopen")
    place.desk.at = await due(place, referral) + timedelta(hours=1)
    assert await keeper.sweep() == Swept(overdue=1)


async def test_a_service_that_claims_an_overdue_open_referral_gets_a_term_of_its_own(place: Territory) -> None:
    referral, keeper = await place.desk.open(), place.keeper()
    place.desk.at = await due(place, referral) + timedelta(hours=1)
    assert await keeper.sweep() == Swept(overdue=1)
    await place.desk.claim(referral)
    place.desk.at = await due(place, referral) + timedelta(hours=1)
    assert await keeper.sweep() == Swept(overdue=1)


@pytest.mark.parametrize("urgent", [False, True])
async def test_an_escalation_is_an_entry_and_a_notice_to_who_must_look_into_it(place: Territory, urgent: bool) -> None:
    known = await place.rows("SELECT code FROM siis.board")
    if not known:
        await place.board("mesa-limpio", DISTRICT)
    referral = await (place.tracked() if urgent else place.referral())
    place.desk.at = await due(place, referral) + timedelta(days=6)
    await place.keeper().sweep()
    [entry] = await place.entries("referral.escalated", 1)
    assert entry.detail is not None
    assert entry.detail["exchange"]["referral"] == str(referral)
    told = await place.rows(
        "SELECT audience_institution, audience_role FROM siis.notice WHERE reference = %s AND entry_id = %s",
        referral,
        entry.entry_id,
    )
    supervisors = {("UTGS", "supervisor"), ("MSPBS", "supervisor")}
    assert set(told) == supervisors | ({("MTESS", "board-member")} if urgent else set())


async def test_a_keeper_cut_off_in_the_middle_and_two_after_it_write_each_step_once(place: Territory) -> None:
    referrals = [await place.tracked() for _time in range(12)]
    place.desk.at = max([await due(place, each) for each in referrals]) + timedelta(days=6)
    looked_up = iter(range(5))

    async def fails(_connection: object, _department: str | None, _district: str | None) -> frozenset[str]:
        # As the database does when it goes away between two statements of a batch.
        if next(looked_up, None) is None:
            raise OSError
        return frozenset()

    cut_off = Deadlines(
        database=place.runtime.database,
        vault=place.runtime.vault,
        audit=place.runtime.audit,
        boards=fails,
        now=lambda: place.desk.at,
    )
    with pytest.raises(OSError):  # noqa: PT011
        await cut_off.sweep()
    assert await place.happened(referrals[0]) == ["overdue"]
    done = await asyncio.gather(*(place.keeper().sweep() for _time in range(2)))
    assert sum(each.escalated for each in done) == len(referrals)
    for each in referrals:
        assert await place.happened(each) == ["overdue", "escalated"]


async def test_the_metric_counts_what_each_recipient_is_late_with_and_forgets_what_was_done(place: Territory) -> None:
    def shown() -> float | None:
        return prometheus_client.REGISTRY.get_sample_value("siis_referrals_overdue", {"recipient": "MSPBS"})

    keeper, referral = place.keeper(), await place.referral()
    await place.referral()
    place.desk.at = await due(place, referral) + timedelta(days=1)
    seen = await keeper.count_overdue()
    assert shown() == 2
    await place.desk.report(referral, "outcome")
    await keeper.count_overdue(seen)
    assert shown() == 1
