"""Webhooks of subscriptions on real sockets: verified, signed, in order, repeated until taken, given up visibly."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest
import pytest_asyncio
from events_desk import ALL, ASKS, ELSE, GIVES, Desk, Receiver, kinds, make_desk, receiving, system, until, verified
from rights_office import Office
from sqlalchemy import select, update

from consent.agreements import resume_institution, suspend_institution
from gateway import errors
from gateway.catalogue.service import services
from gateway.commands import Command
from gateway.governance.tables import notice
from gateway.subscriptions.models import Filter, NewSubscription
from gateway.subscriptions.tables import subscription
from schemas.ids import uuid7


@pytest_asyncio.fixture
async def desk(office: Office) -> AsyncIterator[Desk]:
    async with office.context.database.connection() as connection:
        await office.policies.load(connection)
        service = next(each.code for each in (await services(connection)).values() if each.institution == GIVES)
    opened = make_desk(office, service)
    await opened.clear()
    yield opened


async def test_an_address_that_does_not_repeat_the_word_is_told_nothing_until_it_does(desk: Desk) -> None:
    async with receiving(Receiver(status=200, echoes=False)) as receiver:
        mine, secret = await desk.subscribe(ASKS, receiver.url)
        await desk.refer()
        async with desk.pushing():
            await until_failed(desk, mine, 1)
            assert (len(receiver.calls), receiver.messages) == (1, [])
            assert (await desk.state(ASKS, mine)).state == "unverified"
            receiver.echoes = True
            desk.office.at += timedelta(seconds=10)
            await until(lambda: kinds(receiver.messages) == ["referral.create"])
        assert (await desk.state(ASKS, mine)).state == "active"
        assert all(verified(headers, body, secret, desk.office.at) for headers, body in receiver.calls)


async def test_each_institution_is_called_with_its_own_events_signed_with_its_own_secret(desk: Desk) -> None:
    async with (
        receiving(Receiver()) as asks,
        receiving(Receiver()) as gives,
        receiving(Receiver()) as other,
        receiving(Receiver()) as coordinator,
    ):
        of = {ASKS: asks, GIVES: gives, ELSE: other, ALL: coordinator}
        secrets = {code: (await desk.subscribe(code, receiver.url))[1] for code, receiver in of.items()}
        number = await desk.refer()
        await desk.move(number, "attempt_failed", "send", "accept")
        async with desk.pushing():
            await until(lambda: len(asks.messages) == len(coordinator.messages) == 4 and len(gives.messages) == 2)
    whole = ["referral.create", "referral.attempt_failed", "referral.send", "referral.accept"]
    assert kinds(asks.messages) == kinds(coordinator.messages) == whole
    assert kinds(gives.messages) == ["referral.send", "referral.accept"]
    assert other.messages == []
    for code, receiver in of.items():
        for headers, body in receiver.calls:
            assert [held for held, secret in secrets.items() if verified(headers, body, secret, desk.office.at)] == [
                code
            ]
            assert headers["webhook-id"] == json.loads(body)["id"]
            assert not verified(headers, body + b" ", secrets[code], desk.office.at), "changed on the way"
            late = desk.office.at + timedelta(minutes=6)
            assert not verified(headers, body, secrets[code], late), "an old copy"
    person = await desk.office.rows("SELECT person_id FROM siis.referral WHERE id = %s", number)
    assert str(person[0][0]) not in "".join(body.decode() for _headers, body in asks.calls)


async def test_what_is_not_taken_is_repeated_under_its_id_and_holds_back_its_own_referral_alone(desk: Desk) -> None:
    poison = await desk.refer()
    await desk.move(poison, "send")
    receiver = Receiver(judge=lambda message: 400 if message["data"]["referral"] == str(poison) else None)
    async with receiving(receiver):
        mine, _secret = await desk.subscribe(ASKS, receiver.url)
        others = [await desk.refer() for _number in range(3)]
        for number in others:
            await desk.move(number, "send", "accept")
        async with desk.pushing():
            await until(lambda: len([each for each in receiver.messages if str(poison) not in str(each)]) == 9)
            assert set(kinds(receiver.messages, poison)) == {"referral.create"}
            for number in others:
                assert kinds(receiver.messages, number) == ["referral.create", "referral.send", "referral.accept"]
            await until_waiting(desk, mine, 2)
            receiver.judge = lambda _message: None
            desk.office.at += timedelta(hours=7)
            await until(lambda: kinds(receiver.messages, poison)[-1] == "referral.send")
    tried = [headers["webhook-id"] for headers, body in receiver.calls if str(poison).encode() in body]
    assert len(set(tried)) == 2, "the same id in every repetition"
    await until_waiting(desk, mine, 0)


async def test_an_address_that_fails_for_days_is_disabled_with_a_notice_and_goes_on_where_it_stopped(
    desk: Desk,
) -> None:
    async with receiving(Receiver(status=503)) as receiver:
        mine, _secret = await desk.subscribe(ASKS, receiver.url)
        for _number in range(5):
            await desk.refer()
        async with desk.pushing():
            await until(lambda: len(receiver.messages) == 5)
            await until_failed(desk, mine, 1)
            await rounds(desk)
            assert len(receiver.messages) == 5, "not asked again before its time"
            desk.office.at += timedelta(hours=1)
            await until_failed(desk, mine, 2)
            await rounds(desk)
            assert len(receiver.messages) == 6, "one event at a time while it fails"
            desk.office.at += timedelta(days=6)
            await until(lambda: disabled(desk, mine))
            called = len(receiver.calls)
            desk.office.at += timedelta(days=1)
            await rounds(desk)
            assert len(receiver.calls) == called
            [told] = await desk.office.entries("subscription.disabled")
            assert told.detail is not None
            assert told.detail["what"]["subscription"] == str(mine)
            async with desk.office.context.database.connection() as connection:
                row = (await connection.execute(select(notice).where(notice.c.reference == mine))).one()
            assert (row.kind, row.audience_institution, row.subject) == ("subscription-disabled", ASKS, None)
            receiver.status = 204
            await desk.subscriptions.change(system(ASKS), desk.subscriptions.enabling(mine))
            await until_waiting(desk, mine, 0)
    assert len({each["id"] for each in receiver.messages}) == 5


async def test_an_address_that_says_it_is_gone_is_disabled_at_once(desk: Desk) -> None:
    async with receiving(Receiver(status=410)) as receiver:
        mine, _secret = await desk.subscribe(ASKS, receiver.url)
        await desk.refer()
        async with desk.pushing():
            await until(lambda: disabled(desk, mine))


async def test_a_redirect_is_not_followed(desk: Desk) -> None:
    async with receiving(Receiver(status=302)) as receiver:
        mine, _secret = await desk.subscribe(ASKS, receiver.url)
        await desk.refer()
        async with desk.pushing():
            await until(lambda: len(receiver.messages) == 1)
            await rounds(desk)
        assert len(receiver.messages) == 1
        assert (await desk.state(ASKS, mine)).failures == 1


async def test_a_renewed_secret_signs_beside_the_one_before_for_a_day(desk: Desk) -> None:
    async with receiving(Receiver()) as receiver:
        mine, old = await desk.subscribe(ASKS, receiver.url)
        command = Command("client-MDS", str(uuid7()), b"")
        _done, new = await desk.subscriptions.renew(system(ASKS), mine, command)
        replayed, nothing = await desk.subscriptions.renew(system(ASKS), mine, command)
        assert new is not None
        assert (replayed.replayed, nothing) == (True, None), "shown once"
        async with desk.pushing():
            await desk.refer()
            await until(lambda: len(receiver.messages) == 1)
            headers, body = receiver.calls[-1]
            assert verified(headers, body, old, desk.office.at)
            assert verified(headers, body, new, desk.office.at)
            desk.office.at += timedelta(days=2)
            await desk.refer()
            await until(lambda: len(receiver.messages) == 2)
    headers, body = receiver.calls[-1]
    assert not verified(headers, body, old, desk.office.at)
    assert verified(headers, body, new, desk.office.at)


async def test_what_a_worker_was_calling_when_it_died_is_called_again_by_another(desk: Desk) -> None:
    async with receiving(Receiver()) as receiver:
        mine, _secret = await desk.subscribe(ASKS, receiver.url)
        async with desk.office.context.database.transaction() as connection:
            # As a worker leaves it that took the calls and was killed before it noted anything.
            busy = {"state": "active", "busy_until": desk.office.at + timedelta(seconds=30)}
            await connection.execute(update(subscription).where(subscription.c.id == mine).values(busy))
        await desk.refer()
        async with desk.pushing():
            await rounds(desk)
            assert receiver.calls == [], "nobody else's for the time of a round of calls"
            desk.office.at += timedelta(seconds=31)
            await until(lambda: len(receiver.messages) == 1)


async def test_a_suspended_institution_is_told_when_that_is_over(desk: Desk) -> None:
    database, policies = desk.office.context.database, desk.office.policies
    async with receiving(Receiver()) as receiver:
        await desk.subscribe(ASKS, receiver.url)
        async with database.transaction() as connection:
            await suspend_institution(connection, ASKS, reason="test", at=desk.office.at)
            await policies.load(connection)
        await desk.refer()
        async with desk.pushing():
            await rounds(desk)
            assert receiver.calls == []
            async with database.transaction() as connection:
                await resume_institution(connection, ASKS, at=desk.office.at)
                await policies.load(connection)
            await until(lambda: kinds(receiver.messages) == ["referral.create"])


@pytest.mark.parametrize(
    ("channel", "url", "code"),
    [
        ("webhook", None, "subscription-url"),
        ("pull", "https://mds.example/", "subscription-url"),
        ("webhook", "http://mds.example/avisos", "bad-url"),
        ("webhook", "https://user:word@mds.example/", "bad-url"),
        ("webhook", "https://mds.example/ avisos", "bad-url"),
        ("webhook", "https://mds .example/", "bad-url"),
    ],
)
async def test_an_address_that_may_not_be_called_is_not_stored(
    desk: Desk, channel: str, url: str | None, code: str
) -> None:
    new = NewSubscription(channel="pull" if channel == "pull" else "webhook", wanted=Filter(), url=url)
    with pytest.raises(errors.BadRequest) as refused:
        await desk.subscriptions.create(system(ASKS), new, Command("client-MDS", str(uuid7()), b"{}"))
    assert (refused.value.code, refused.value.pointer) == (code, "/url")


async def rounds(desk: Desk) -> None:
    """Let several rounds of calls go by: somebody else is told of one thing after the other."""
    async with receiving(Receiver()) as other:
        theirs, _secret = await desk.subscribe(ELSE, other.url)
        for number in range(1, 4):
            await desk.refer(requester=ELSE)
            await until(lambda number=number: len(other.messages) == number)  # type: ignore[misc]
        await desk.subscriptions.change(system(ELSE), desk.subscriptions.removing(theirs))


async def disabled(desk: Desk, subscription_id: UUID) -> bool:
    return (await desk.state(ASKS, subscription_id)).state == "disabled"


async def until_failed(desk: Desk, subscription_id: UUID, times: int) -> None:
    async def failed() -> bool:
        return (await desk.state(ASKS, subscription_id)).failures == times

    await until(failed)


async def until_waiting(desk: Desk, subscription_id: UUID, number: int) -> None:
    async def waits() -> bool:
        return (await desk.state(ASKS, subscription_id)).waiting == number

    await until(waits)
