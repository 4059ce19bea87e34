"""Signed links on a real database: what opens, what is on record, what repeats, and what nobody can tell apart."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
import pytest_asyncio
from referral_desk import caller, command, prepare
from territory import Territory, number, open_territory, someone

from adapters.models import Reply
from gateway import embedded, errors
from gateway.commands import Command
from gateway.links import pages
from gateway.links.service import MOST_LINKS, OPEN_FOR, WRONG_PINS, NewLink
from gateway.settings import Settings, load_settings
from schemas.ids import uuid7

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def prepared(folders: Callable[[str], Path]) -> Iterator[Settings]:
    chosen = load_settings(data_dir=folders("links") / "data")
    prepare(chosen)
    yield chosen
    embedded.stop(chosen.data_dir)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(prepared: Settings) -> AsyncIterator[Territory]:
    async with open_territory(prepared) as territory:
        yield territory


class Given(NamedTuple):
    """A link as an office got it."""

    id: UUID
    referral: UUID
    token: str
    pin: str


async def given(place: Territory, referral: UUID | None = None, **asked: Any) -> Given:
    which = referral or await place.referral(person=await place.desk.person(identifiers=(("cedula", _cedula()),)))
    done = await place.links.make(someone("MSPBS"), which, NewLink(**asked), command())
    return Given(number(done), which, done.answer["url"].rpartition("/")[2], done.answer["pin"])


_numbers = iter(range(3_000_000, 4_000_000))


def _cedula() -> str:
    return str(next(_numbers))


def reply(place: Territory, event: str = "accept", message: str | None = None, **changes: Any) -> Reply:
    day = place.desk.at.date()
    return Reply(UUID(int=0), message or str(uuid7()), event, day, **changes)


async def refused(place: Territory, link: Given, pin: str | None = None) -> None:
    """Hold a link to opening nothing, whichever door is tried."""
    with pytest.raises(errors.NotFound):
        await place.links.look_at(link.token)
    with pytest.raises(errors.NotFound):
        await place.links.open(link.token, pin or link.pin, None)


async def test_an_office_sees_the_referral_and_answers_it_in_the_recipients_name(place: Territory) -> None:
    link = await given(place)
    opened = await place.links.open(link.token, link.pin, "10.0.0.7")
    assert opened.release.person is not None
    assert opened.release.person["surnames"] == "Ficticia"
    [seen] = await place.entries("link.released", 1)
    assert seen.detail is not None
    assert seen.detail["actor"]["institution"] == "MSPBS"
    assert seen.detail["actor"]["channel"] == "link"
    assert seen.detail["exchange"]["link"] == str(link.id)
    await place.links.act(link.token, opened.passing, reply(place), None)
    await place.links.act(
        link.token,
        opened.passing,
        reply(place, "outcome", outcome="not_provided", reason_code="no-capacity", proof_reference="acta 7"),
        None,
    )
    current, events, row = await place.desk.seen(link.referral)
    assert (current.state, row["outcome"], row["end_reason"]) == ("completed", "not_provided", "no-capacity")
    assert events[-1].texts["proof"] == "acta 7"
    [told] = await place.entries("counterreferral.received", 1)
    assert told.detail is not None
    assert told.detail["actor"]["channel"] == "link"
    assert told.detail["exchange"]["link"] == str(link.id)
    again = await place.links.open(link.token, link.pin, None)
    assert again.acts == ()


async def test_looking_at_the_address_shows_counts_and_changes_nothing(place: Territory) -> None:
    link = await given(place, uses=1)
    before = await place.rows("SELECT count(*) FROM audit.entry")
    for _time in range(3):
        await place.links.look_at(link.token)
    assert await place.rows("SELECT count(*) FROM audit.entry") == before
    assert await place.rows("SELECT uses, wrong_pins FROM siis.link WHERE id = %s", link.id) == [(0, 0)]


async def test_an_answer_that_comes_twice_is_one_and_is_answered_the_same(place: Territory) -> None:
    link = await given(place)
    opened = await place.links.open(link.token, link.pin, None)
    told = reply(place)
    first = await place.links.act(link.token, opened.passing, told, None)
    second = await place.links.act(link.token, opened.passing, told, None)
    assert first["receipt"] == second["receipt"]
    assert await place.happened(link.referral) == ["accept"]
    with pytest.raises(errors.Conflict, match="out-of-order"):
        await place.links.act(link.token, opened.passing, reply(place), None)


@pytest.mark.parametrize("why", ["expired", "revoked", "spent", "locked", "forged", "another-seal", "cut", "erased"])
async def test_a_link_that_opens_nothing_looks_like_one_that_never_was(place: Territory, why: str) -> None:
    link, begun = await given(place, hours=1, uses=1), place.desk.at
    match why:
        case "expired":
            place.desk.at += timedelta(hours=2)
        case "revoked":
            await place.links.revoke(someone("UTGS"), link.id)
        case "spent":
            await place.links.open(link.token, link.pin, None)
        case "locked":
            for _time in range(WRONG_PINS):
                with pytest.raises(errors.Conflict, match="wrong-pin"):
                    await place.links.open(link.token, "x", None)
            assert len(await place.entries("link.locked", 5)) == 1
        case "forged":
            raw = urlsafe_b64decode(link.token + "=")
            link = link._replace(token=urlsafe_b64encode(uuid7().bytes + raw[16:]).rstrip(b"=").decode())
        case "another-seal":
            raw = urlsafe_b64decode(link.token + "=")
            link = link._replace(token=urlsafe_b64encode(raw[:31] + bytes([raw[31] ^ 1])).rstrip(b"=").decode())
        case "cut":
            link = link._replace(token=link.token[:-1])
        case "erased":
            async with place.runtime.database.transaction() as connection:
                await connection.exec_driver_sql(
                    "UPDATE siis.referral SET texts = NULL WHERE id = %s", (link.referral,)
                )
            with pytest.raises(errors.NotFound):
                await place.links.open(link.token, link.pin, None)
            return
    await refused(place, link)
    place.desk.at = begun


async def test_a_page_left_open_asks_for_the_pin_again_and_a_pass_opens_no_other_link(place: Territory) -> None:
    link, other = await given(place), await given(place)
    opened = await place.links.open(link.token, link.pin, None)
    for passing in ("", "x", "99999999999.00", opened.passing.partition(".")[0] + ".00"):
        with pytest.raises(errors.Conflict, match="pass-ended"):
            await place.links.act(link.token, passing, reply(place), None)
    with pytest.raises(errors.Conflict, match="pass-ended"):
        await place.links.act(other.token, opened.passing, reply(place), None)
    place.desk.at += OPEN_FOR
    with pytest.raises(errors.Conflict, match="pass-ended"):
        await place.links.act(link.token, opened.passing, reply(place), None)


async def test_an_act_that_the_link_does_not_allow_is_refused(place: Territory) -> None:
    link = await given(place, acts=("accept",))
    opened = await place.links.open(link.token, link.pin, None)
    assert opened.acts == ("accept",)
    for event in ("decline", "confirm_cancel", "note"):
        with pytest.raises(errors.NotFound):
            await place.links.act(link.token, opened.passing, reply(place, event), None)


@pytest.mark.parametrize("kind", ["sealed", "court-order", "aggressor"])
async def test_a_protected_person_is_shown_to_no_office_and_the_attempt_is_on_record(
    place: Territory, kind: str
) -> None:
    person = await place.desk.person()
    link = await given(place, await place.referral(person=person))
    await place.protect(person, kind, "MSPBS" if kind == "aggressor" else "")
    with pytest.raises(errors.NotFound):
        await place.links.open(link.token, link.pin, None)
    [entry] = await place.entries("link.withheld", 1)
    assert entry.detail is not None
    assert entry.detail["what"]["released"] == []


async def test_links_to_one_referral_are_few_so_nobody_guesses_by_making_more(place: Territory) -> None:
    first = await given(place)
    for _time in range(MOST_LINKS - 1):
        link = await given(place, first.referral)
        await place.links.revoke(someone("MSPBS"), link.id)
    with pytest.raises(errors.Conflict) as caught:
        await given(place, first.referral)
    assert caught.value.code == "too-many-links"


async def test_who_made_a_link_for_another_office_never_learns_its_pin(place: Territory) -> None:
    # The requester must not see, by a link of its own making, what is released to the recipient alone.
    person = await place.desk.person()
    referral = UUID((await place.desk.refer(person, requester="MINNA")).answer["id"])
    made = await place.links.make(someone("MINNA"), referral, NewLink(), command())
    assert "pin" not in made.answer
    with pytest.raises(errors.NotFound):
        await place.links.pin(someone("MINNA"), number(made))
    told = await place.links.pin(someone("MSPBS"), number(made))
    opened = await place.links.open(made.answer["url"].rpartition("/")[2], told["pin"], None)
    assert opened.release.current.id == referral
    assert len(await place.entries("link.pin_read", 5)) == 1


async def test_links_are_for_supervisors_of_the_parties_and_nothing_secret_is_kept(place: Territory) -> None:
    link = await given(place)
    with pytest.raises(errors.Denied):
        await place.links.make(caller("MSPBS"), link.referral, NewLink(), command())
    for door in (
        place.links.make(someone("MDS"), link.referral, NewLink(), command()),
        place.links.list(someone("MDS"), link.referral),
        place.links.pin(someone("MDS"), link.id),
        place.links.revoke(someone("MDS"), link.id),
    ):
        with pytest.raises(errors.NotFound):
            await door
    again = Command("mspbs-1", str(uuid7()), b"{}")
    first = await place.links.make(someone("MSPBS"), link.referral, NewLink(), again)
    second = await place.links.make(someone("MSPBS"), link.referral, NewLink(), again)
    assert first.answer == second.answer
    assert second.replayed
    kept = [answer for (answer,) in await place.rows("SELECT answer FROM siis.idempotency")]
    assert not any({"url", "pin"} & answer.keys() for answer in kept)
    token = first.answer["url"].rpartition("/")[2]
    assert token not in str(await place.rows("SELECT * FROM siis.link"))


async def test_no_link_leads_to_a_referral_that_awaits_nothing(place: Territory) -> None:
    done = await place.delivered()
    await place.desk.report(done, "outcome")
    with pytest.raises(errors.Conflict, match="nothing-awaited"):
        await place.links.make(someone("MSPBS"), done, NewLink(), command())


async def test_marks_that_turn_the_writing_round_are_shown_as_dots(place: Territory) -> None:
    link = await given(place)
    opened = await place.links.open(link.token, link.pin, None)
    turned = replace(opened, release=replace(opened.release, reason_text="12\u202e34"))
    page = pages.show(turned, uuid7(), place.desk.at).decode()
    assert "12·34" in page
    assert "\u202e" not in page
