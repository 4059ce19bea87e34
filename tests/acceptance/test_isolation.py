"""Whoever has no part in a referral learns nothing of it, over every route that there is, in whatever role they come.

Every route stands in the table: with what to try on it, or why it can tell of nobody. A new route without a line fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio

from schemas.ids import uuid7
from tests.acceptance.bad_input import DUTY, replying, subject
from tests.acceptance.governed import call
from tests.acceptance.isolation_world import (
    ABSENT,
    COORDINATOR,
    MEMBER,
    OTHER,
    PART,
    RECIPIENT,
    REQUESTER,
    ROLES,
    SERVICE,
    STRANGER,
    World,
    build_world,
    found,
    written,
)
from tests.house import House

pytestmark = pytest.mark.asyncio(loop_scope="session")
Body = Callable[[str], dict[str, Any]]
_PERIOD = {"since": "2026-01-01T00:00:00Z", "until": "2026-12-31T00:00:00Z"}


@dataclass(frozen=True)
class Try:
    """What is tried on a route: with things of others by ``kind``, in the address or a body; ``queries`` of lists."""

    kind: str | None = None
    body: Body | None = None
    queries: tuple[str, ...] = ("",)
    address: str = ""


def _who(cedula: str) -> dict[str, Any]:
    return {"subject": subject(cedula)}


def _fixed(**body: Any) -> Body:
    return lambda _number: body


def _asked(cedula: str) -> dict[str, Any]:
    return {**_who(cedula), **DUTY}


def _scopes(**scope: str) -> Body:
    return _fixed(scope=scope)


_REFERRAL = "/api/v1/referrals/{referral_id}"
_SNAPSHOTS = lambda number: {name: {"snapshot": number} for name in ("first", "second")}  # noqa: E731
_DISCLOSURE = {"dataset": "identity", "fields": ["given_names"], **DUTY}
_REPORTS = tuple(f"?side={side}&format={form}" for side in ("received", "sent") for form in ("json", "csv", "xlsx"))
_FACTS = {"facts": [{"service": SERVICE, "received": True, "observed_on": "2026-11-01"}]}

#: Routes that are tried; with several tries each is made.
TRIES: dict[str, tuple[Try, ...]] = {
    # First of all: what they try in vain on the others stands in the log as their own.
    "POST /api/v1/audit/search": (
        Try(body=_fixed(criteria={"type": "referral.created"}, limit=200)),
        Try("referral", lambda number: {"criteria": {"referral": number}, "limit": 200}),
        Try("cedula", lambda cedula: {"criteria": _who(cedula), "limit": 200}),
    ),
    "POST /api/v1/audit/exports": (
        Try("referral", lambda number: {"criteria": {"referral": number}, "format": "csv"}),
        Try("referral", lambda number: {"criteria": {"referral": number}, "format": "jsonl"}),
    ),
    "GET /api/v1/referrals": (Try(queries=("?direction=sent&limit=200", "?direction=received&limit=200")),),
    "GET /api/v1/referrals/open": (Try(queries=("?limit=200",)),),
    "GET " + _REFERRAL: (Try("referral"), Try("other"), Try("part"), Try("claimed")),
    f"GET {_REFERRAL}/events": (Try("referral"), Try("other"), Try("part"), Try("claimed")),
    f"POST {_REFERRAL}/counter-referrals": (
        Try("referral", lambda _n: replying("accept", str(uuid7()))),
        Try("part", lambda _n: replying("outcome", str(uuid7()), outcome="provided")),
    ),
    f"POST {_REFERRAL}/steps": (
        Try("referral", _fixed(step="note", note="x")),
        Try("claimed", _fixed(step="withdraw", reason={"code": "sent-by-mistake"})),
    ),
    f"POST {_REFERRAL}/claim": (Try("referral", _fixed(service="school-enrolment")),),
    f"POST {_REFERRAL}/parts": (
        Try("referral", _fixed(parts=[{"service": "school-enrolment", "reason": {"code": "protection-gap"}}], **DUTY)),
    ),
    f"GET {_REFERRAL}/links": (Try("referral"), Try("other")),
    f"POST {_REFERRAL}/links": (Try("referral", _fixed()), Try("other", _fixed())),
    "GET /api/v1/links/{link_id}/pin": (Try("link"),),
    "POST /api/v1/links/{link_id}/revoke": (Try("link"),),
    "GET /api/v1/reports/referrals": (Try(queries=_REPORTS),),
    "GET /api/v1/boards": (Try(),),
    "GET /api/v1/boards/{board}/referrals": (Try("board", queries=("", "?format=csv", "?format=xlsx")),),
    "GET /api/v1/boards/{board}/gaps": (Try("board"),),
    "GET /api/v1/boards/{board}/members": (Try("board"),),
    "POST /api/v1/boards/{board}/members": (Try("board", _fixed(institution=STRANGER, user="quien-sea")),),
    "POST /api/v1/boards/{board}/members/{member_id}/end": (Try("board", address=str(uuid7())),),
    "POST /api/v1/cases": (Try("referral", lambda number: {"referral": number}),),
    "GET /api/v1/cases": (Try(queries=("?limit=200",)),),
    "GET /api/v1/cases/{case_id}": (Try("case"),),
    "POST /api/v1/cases/{case_id}/steps": (
        Try("case", _fixed(step="note", text="x")),
        Try("case", lambda _n: {"step": "add_referral", "referral": str(uuid7())}),
    ),
    "GET /api/v1/guidance/threads": (Try(queries=("?limit=200", "?waiting=true&limit=200")),),
    "POST /api/v1/guidance/threads": (Try("referral", lambda number: {"referral": number, "text": "x"}),),
    "GET /api/v1/guidance/threads/{thread_id}": (Try("thread"),),
    "POST /api/v1/guidance/threads/{thread_id}/messages": (Try("thread", _fixed(text="x")),),
    "POST /api/v1/guidance/threads/{thread_id}/close": (Try("thread"),),
    "POST /api/v1/guidance": (Try("cedula", _asked),),
    "POST /api/v1/protection-status/query": (Try("cedula", _asked),),
    "POST /api/v1/statistics/trajectory": (Try("cedula", _asked),),
    "POST /api/v1/disclosures": (Try("cedula", lambda cedula: {**_who(cedula), **_DISCLOSURE}),),
    "POST /api/v1/facts": (Try("cedula", lambda cedula: {**_who(cedula), **_FACTS}),),
    "POST /api/v1/statistics/funnel": (
        Try(body=_scopes(service=SERVICE)),
        Try(body=_scopes(requester=REQUESTER)),
        Try(body=_scopes(recipient=RECIPIENT)),
        Try(body=_fixed(scope={"service": SERVICE}, format="csv")),
        Try(body=_fixed(scope={"service": SERVICE}, format="xlsx")),
    ),
    "POST /api/v1/statistics/comparison": (
        Try("snapshot", _SNAPSHOTS),
        Try(body=_fixed(first={"scope": {"service": SERVICE}}, second={"scope": {"service": SERVICE}})),
    ),
    "GET /api/v1/statistics/snapshots": (Try(queries=("?limit=200",)),),
    "GET /api/v1/statistics/snapshots/{snapshot_id}": (Try("snapshot"),),
    "GET /api/v1/achievements": (Try(queries=("", "?format=csv", "?level=department")),),
    "GET /api/v1/delivery": (Try(),),
    "GET /api/v1/delivery/dead": (Try(queries=("?limit=200", f"?institution={RECIPIENT}&limit=200")),),
    "POST /api/v1/delivery/lanes/{institution}/pause": (Try("recipient"),),
    "POST /api/v1/delivery/lanes/{institution}/resume": (Try("recipient"),),
    "POST /api/v1/delivery/replay": (Try(body=_fixed(institution=RECIPIENT)),),
    "POST /api/v1/delivery/letters/{letter_id}/replay": (Try("referral"), Try("part")),
    "POST /api/v1/delivery/letters/{letter_id}/give-up": (Try("referral", _fixed(reason="x")),),
    "POST /api/v1/delivery/letters/{letter_id}/transmitted": (Try("referral"),),
    "GET /api/v1/subscriptions": (Try(queries=("?limit=200",)),),
    "GET /api/v1/subscriptions/{subscription_id}": (Try("subscription"),),
    "DELETE /api/v1/subscriptions/{subscription_id}": (Try("subscription"),),
    "POST /api/v1/subscriptions/{subscription_id}/secret": (Try("subscription"),),
    "POST /api/v1/subscriptions/{subscription_id}/enable": (Try("subscription"),),
    "POST /api/v1/events/next": (Try("subscription", lambda number: {"subscription": number}),),
    "POST /api/v1/events/confirm": (
        Try("subscription", lambda number: {"subscription": number, "ids": [str(uuid7())]}),
    ),
    "GET /api/v1/audit/receipts": (Try(queries=("?limit=200",)),),
    "POST /api/v1/audit/anomalies": (Try(body=_fixed(**_PERIOD)),),
    "POST /api/v1/decisions/explain": (Try("entry", lambda number: {"entry": number}),),
    "GET /api/v1/rights-requests": (Try(queries=("?limit=200",)),),
    "GET /api/v1/rights-requests/{request_id}": (Try("request"),),
    "POST /api/v1/rights-requests/{request_id}/route": (Try("request", _fixed(institution=STRANGER)),),
    "POST /api/v1/rights-requests/{request_id}/start": (Try("request"),),
    "POST /api/v1/rights-requests/{request_id}/withdraw": (Try("request"),),
    "POST /api/v1/consents/search": (Try("cedula", _who),),
    "POST /api/v1/representatives/search": (Try("cedula", _who),),
    "POST /api/v1/objections/search": (Try("cedula", _who),),
    "POST /api/v1/protection-flags/search": (Try("cedula", _who),),
    "GET /api/v1/usage": (Try(),),
    "GET /api/v1/notices": (Try(queries=("?limit=200",)),),
    "GET /api/v1/emergencies": (Try(queries=("?limit=200",)),),
    "GET /api/v1/breaches": (Try(queries=("?limit=200",)),),
    "GET /metrics": (Try(),),
    "GET /health/ready": (Try(),),
    "POST /api/v1/person-merges": (
        Try("cedula", lambda cedula: {**_pair(cedula), "reason": "duplicate-record", "confirmed": True}),
    ),
    "POST /api/v1/person-unmerges": (
        Try("cedula", lambda cedula: {"absorbed": subject(cedula), "reason": "other-person"}),
    ),
}


def _pair(cedula: str) -> dict[str, Any]:
    return {"survivor": subject(cedula), "absorbed": subject("99999997")}


_OWN, _PUBLIC = "only what the caller's own institution or the message itself says", "the same for everybody"
_CASES_OF_LAW = "records of their own; test_no_leaks.py walks them"
_STANDARD = "another face of what stands here; its own conformance tests walk it"
#: Why a route can tell nobody of a referral, a person, or what goes with them, that the caller has no part in.
HARMLESS: dict[str, str] = {
    "POST /api/v1/referrals": _OWN,
    "POST /api/v1/referrals/capacity": "a word of four of a service, nothing about persons",
    "POST /api/v1/forms": _OWN,
    "POST /api/v1/statistics/snapshots": "an id; what it holds is read by another route",
    "POST /api/v1/subscriptions": _OWN,
    "POST /api/v1/usage": "to who attends the person, who is there; test_usage_over_http.py",
    "GET /api/v1/producers": _PUBLIC,
    "GET /api/v1/codes": _PUBLIC,
    "GET /api/v1/codes/{name}": _PUBLIC,
    "GET /enlace/{token}": "asks for a PIN; test_boards_links_reports.py",
    "POST /enlace/{token}": "asks for a PIN; test_boards_links_reports.py",
}
#: The same for all routes below a path.
HARMLESS_BELOW: dict[str, str] = {
    "/api/v1/catalogue": _PUBLIC,
    "/hsds": _PUBLIC,
    "/audit/log": "hashes and proofs alone",
    "/oauth2": "tokens",
    "/.well-known": _PUBLIC,
    "/health/live": _PUBLIC,
    "/api/v1/agreements": "between institutions",
    "/api/v1/role-assignments": "of officials",
    "/api/v1/compartments": "of officials",
    "/api/v1/consents": _CASES_OF_LAW,
    "/api/v1/consent-texts": _PUBLIC,
    "/api/v1/representatives": _CASES_OF_LAW,
    "/api/v1/objections": _CASES_OF_LAW,
    "/api/v1/protection-flags": _CASES_OF_LAW,
    "/api/v1/rights-requests": _CASES_OF_LAW,
    "/api/v1/breaches": _CASES_OF_LAW,
    "/api/v1/emergencies": _CASES_OF_LAW,
    "/api/v1/notices": _CASES_OF_LAW,
    "/consent-bb": _STANDARD,
    "/data-tracker": _STANDARD,
    "/digital-registries": _STANDARD,
}

#: Who walks, in which roles, and what of the world is theirs to know.
READERS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "stranger": (STRANGER, ROLES, ()),
    "requester": (
        REQUESTER,
        ROLES,
        (
            *("referral", "part", "claimed", "link", "entry", "cedula", "name", "request"),
            *(f"text of {kind}" for kind in ("referral", "claimed", "step")),
        ),
    ),
    "recipient": (
        RECIPIENT,
        ("system", "operator", "supervisor", "administrator"),
        (
            *("referral", "part", "claimed", "case", "thread", "link", "snapshot", "subscription", "entry"),
            *("cedula", "name", "barrier", "task", "board", "request"),
            *(f"text of {kind}" for kind in ("referral", "claimed", "case", "task", "note", "thread", "step")),
        ),
    ),
    "recipient of another": (OTHER, ROLES, ("other", "text of other", "cedula", "name", "request")),
    "recipient of a part": (PART, ROLES, ("part", "cedula", "name", "request")),
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(house: House) -> World:
    return await build_world(house)


async def _routes(house: House) -> set[str]:
    paths = (await house.http.get(f"{house.issuer.url}/openapi.json")).json()["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def _harmless(route: str) -> bool:
    path = route.partition(" ")[2]
    return route in HARMLESS or any(path == each or path.startswith(f"{each}/") for each in HARMLESS_BELOW)


async def test_every_route_stands_in_the_table(house: House) -> None:
    routes = await _routes(house)
    assert {each for each in routes if each not in TRIES and not _harmless(each)} == set()
    assert (TRIES.keys() | HARMLESS.keys()) - routes == set()


def _bare(told: Any) -> Any:
    """Return an answer without receipts: each question has its own."""
    if isinstance(told, dict):
        return {name: _bare(value) for name, value in told.items() if name != "receipt"}
    return [_bare(each) for each in told] if isinstance(told, list) else told


def _comparable(answer: httpx.Response, number: str) -> tuple[Any, ...]:
    headers = {name for name in answer.headers if name not in ("date", "content-length")}
    media = answer.headers.get("content-type", "")
    if "json" in media and answer.content:
        # Whoever asked repeats what they asked by, as in the address.
        body = json.dumps(_bare(answer.json())).replace(number, "*")
        return (answer.status_code, sorted(headers), body)
    return (answer.status_code, sorted(headers), None if answer.content.startswith(b"PK") else answer.content)


async def _tried(world: World, who: str, role: str, route: str, one: Try, number: str) -> list[httpx.Response]:
    method, _space, path = route.partition(" ")
    where = path
    if "{" in path:
        head, _open, rest = path.partition("{")
        where = head + number + rest.partition("}")[2]
        where = where.replace("{member_id}", one.address)
    where = where.removeprefix("/api/v1/")
    body = None if one.body is None else one.body(number)
    if where.startswith("/"):
        url = world.house.issuer.url + where
        return [await world.house.http.request(method, url, json=body)]
    return [await world.ask(who, role, method, where + query, body) for query in one.queries]


def _numbers(world: World, kind: str) -> tuple[str, str]:
    """Return the number of a thing that is there, and one of nothing."""
    nothing = {"cedula": ABSENT, "board": "mesa-que-no-hay", "recipient": "NADIE"}
    there = {**world.secrets(), "recipient": RECIPIENT}
    return there[kind], nothing.get(kind, str(uuid7()))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("route", TRIES)
async def test_nobody_learns_of_what_they_have_no_part_in(world: World, reader: str, route: str) -> None:
    institution, roles, known = READERS[reader]
    secrets = world.secrets(*known)
    for role in roles:
        for one in TRIES[route]:
            if one.kind is None:
                for answer in await _tried(world, institution, role, route, one, ""):
                    assert found(answer, secrets) == [], (role, answer.text[:2000])
                continue
            if one.kind != "recipient" and one.kind not in secrets:
                continue
            if one.kind == "recipient" and institution in (RECIPIENT, COORDINATOR):
                continue
            there, nothing = _numbers(world, one.kind)
            theirs = await _tried(world, institution, role, route, one, there)
            absent = await _tried(world, institution, role, route, one, nothing)
            for given, missing in zip(theirs, absent, strict=True):
                # What they asked by is nothing they were told.
                assert found(given, {name: value for name, value in secrets.items() if value != there}) == [], role
                assert _comparable(given, there) == _comparable(missing, nothing), (role, one.kind)


async def test_counts_of_others_are_none(world: World) -> None:
    asked = {"scope": {"service": SERVICE}}
    told = (await world.ask(STRANGER, "supervisor", "POST", "statistics/funnel", asked)).json()
    assert [step["reached"] for step in told["steps"][1:]] == [0] * len(told["steps"][1:])
    assert told["doors"] == []
    lanes = (await world.ask(STRANGER, "supervisor", "GET", "delivery")).json()["lanes"]
    assert {lane["institution"] for lane in lanes} <= {STRANGER}


async def test_events_that_are_pulled_tell_each_of_its_own(world: World) -> None:
    own = {
        STRANGER: set(),
        RECIPIENT: {"referral", "part", "claimed"},
        OTHER: {"other"},
        PART: {"part"},
        REQUESTER: {"referral", "claimed"},
    }
    for institution, kinds in own.items():
        asked = {"subscription": world.urls[f"subscription-{institution}"], "limit": 200}
        pulled = await world.ask(institution, "system", "POST", "events/next", asked)
        assert pulled.status_code == 200, pulled.text
        told = {name for name in found(pulled, world.secrets()) if name not in ("board",)}
        assert told <= kinds, institution


async def test_who_keeps_a_case_sees_the_referrals_of_its_own_and_a_member_of_the_board_all(world: World) -> None:
    here = f"cases/{world.made['case']}"
    kept = (await world.ask(RECIPIENT, "operator", "GET", here)).json()
    assert [each["id"] for each in kept["referrals"]] == [world.made["referral"]]
    assert [each["referral"] for each in kept["barriers"]] == [None]
    seen = (await world.ask(MEMBER, "board-member", "GET", here)).json()
    assert {each["id"] for each in seen["referrals"]} == {world.made["referral"], world.made["other"]}
    assert [each["referral"] for each in seen["barriers"]] == [world.made["other"]]


async def test_a_key_of_others_answers_nobody_else(world: World, house: House) -> None:
    key = str(uuid7())
    body = {"step": "note", "note": written("key")}
    where = f"referrals/{world.made['referral']}/steps"
    first = await call(house, world.systems[REQUESTER], "POST", where, body, key=key)
    assert first.status_code == 201, first.text
    for institution in (STRANGER, OTHER, RECIPIENT):
        again = await call(house, world.systems[institution], "POST", where, body, key=key)
        assert again.status_code == 404, (institution, again.text)
        assert "idempotency-replayed" not in again.headers


@pytest.mark.parametrize("role", ["analyst", "auditor", "administrator", "data-protection-officer", "board-member"])
async def test_a_role_without_nominal_access_reads_and_moves_no_referral_of_its_own_institution(
    world: World, role: str
) -> None:
    main = f"referrals/{world.made['referral']}"
    for method, path, body in (
        ("GET", main, None),
        ("GET", f"{main}/events", None),
        ("GET", "referrals?direction=received", None),
        ("GET", "referrals/open", None),
        ("POST", f"{main}/counter-referrals", replying("start", str(uuid7()))),
        ("POST", f"{main}/steps", {"step": "note", "note": "x"}),
    ):
        answer = await world.ask(RECIPIENT, role, method, path, body)
        assert answer.status_code == 403, (path, answer.text)
        assert found(answer, world.secrets()) == []
