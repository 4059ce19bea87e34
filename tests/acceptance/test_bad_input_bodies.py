"""Bodies and bare HTTP that no honest client sends: refused at the door, in time, and without a trace of it in logs."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from gateway.cli.demo.clients import Caller, callers
from schemas.ids import uuid7
from tests.acceptance.bad_input import (
    DISCLOSURES,
    REFERRALS,
    STATUS,
    adults,
    asking,
    entries,
    logs_are_quiet,
    nothing_leaks,
    problem,
    referring,
)
from tests.house import House, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
LIMIT = 512 * 1024
FHIR = "application/fhir+json"
AT_ONCE = 16


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mds(house: House) -> Caller:
    """A client system with a token of its own."""
    caller = callers(house.http, house.issuer, house.settings.data_dir)["demo-mds"]
    assert (await caller.post(DISCLOSURES, asking(adults(house)[12]))).status_code == 200
    return caller


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def aps(house: House) -> Caller:
    """The client system that sends FHIR messages."""
    return callers(house.http, house.issuer, house.settings.data_dir)["demo-mspbs-aps"]


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "json"),
    "half": (b'{"subject": {"system": "cedula"', "json"),
    "two values": (b'{"a":1}{"b":2}', "json"),
    "comment": (b'{"a":1} // b', "json"),
    "raw NUL": (b'{"a":"\x00"}', "json"),
    "raw line feed": (b'{"a":"\n"}', "json"),
    "number of 5000 digits": (b'{"a":' + b"1" * 5000 + b"}", "json"),
    "byte order mark": (b'\xef\xbb\xbf{"a":1}', "json"),
    "NUL": (b'{"a":"\\u0000"}', "nul"),
    "NUL in a name": (b'{"\\u0000":1}', "nul"),
    "lone surrogate": (b'{"a":"\\ud800"}', "surrogate"),
    "wrong half first": (b'{"a":"\\udc00\\ud800"}', "surrogate"),
    "lone surrogate in a name": (b'{"\\udfff":1}', "surrogate"),
    "raw surrogate": (b'{"a":"\xed\xa0\x80"}', "utf-8"),
    "over-long UTF-8": (b'{"a":"\xc0\xaf"}', "utf-8"),
    "repeated key": (b'{"a":1,"a":1}', "duplicate-key"),
    "key repeated inside": (b'{"a":{"b":{"c":1,"\\u0063":2}}}', "duplicate-key"),
    "NaN": (b'{"a":NaN}', "number"),
    "Infinity": (b'{"a":-Infinity}', "number"),
    "infinite": (b'{"a":-1.5e999}', "number"),
    "33 lists": (b"[" * 33 + b"]" * 33, "depth"),
    "100000 lists": (b"[" * 100_000, "depth"),
    "objects in lists": (b'{"a":[' * 40_000, "depth"),
    "UTF-16": ('{"subject": "Ñandú"}'.encode("utf-16"), "utf-8"),
    "UTF-16 without mark": ('{"a": 1}'.encode("utf-16-le"), "json"),
    "latin-1": ('{"subject": "Ñandú"}'.encode("latin-1"), "utf-8"),
}


@pytest.mark.parametrize(("body", "rule"), BROKEN.values(), ids=BROKEN)
async def test_a_body_that_cannot_be_read_is_told_by_its_rule_and_has_an_entry(
    house: House, mds: Caller, body: bytes, rule: str
) -> None:
    since = uuid7()
    told = problem(await mds.post(DISCLOSURES, body), 400, "malformed-json", pointer="", secrets=["Ñandú", "cedula"])
    assert [item["rule"] for item in told["errors"]] == [rule]
    [entry] = await entries(house, "request.refused", since)
    assert entry["id"] == told["receipt"]["entry_id"]
    assert (entry["actor"]["client"], entry["what"]) == ("demo-mds", {"reasons": [f" {rule}"], "route": DISCLOSURES})


@pytest.mark.parametrize("body", [b"[]", b"[{}]", b"1", b"-0.5", b'"text"', b"null", b"true", b"{}"])
async def test_any_other_json_than_the_message_is_invalid_but_readable(mds: Caller, body: bytes) -> None:
    problem(await mds.post(DISCLOSURES, body), 400, "invalid-message")


async def test_every_text_that_no_parser_may_take_is_refused_here_too(mds: Caller, aps: Caller, samples: Path) -> None:
    files = sorted((samples / "attack" / "json-parsing").glob("[ni]_*.json"))
    assert len([path for path in files if path.name.startswith("n_")]) > 80
    gate = asyncio.Semaphore(AT_ONCE)

    async def attack(path: Path) -> None:
        body = await asyncio.to_thread(path.read_bytes)
        async with gate:
            answer = await mds.post(DISCLOSURES, body)
            message = await aps.post(REFERRALS, body, media_type=FHIR)
        assert answer.status_code == 400, path.name
        assert path.name.startswith("i_") or answer.json()["type"] == "urn:siis:problem:malformed-json", path.name
        assert message.status_code in ((400,) if path.name.startswith("n_") else (400, 422)), path.name
        assert message.headers["content-type"] == FHIR
        assert message.json()["resourceType"] == "OperationOutcome"
        for each in (answer, message):
            nothing_leaks(each)

    await asyncio.gather(*(attack(path) for path in files))


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        "application/json5",
        FHIR,
        "*/*",
        "nonsense",
    ],
)
async def test_another_media_type_is_refused_and_told_the_right_one(house: House, mds: Caller, media_type: str) -> None:
    since = uuid7()
    answer = await mds.post(DISCLOSURES, asking(adults(house)[12]), media_type=media_type)
    told = problem(answer, 415, "unsupported-media-type")
    assert "application/json" in told["detail"]
    assert answer.headers["accept"] == "application/json"
    [entry] = await entries(house, "request.refused", since)
    assert entry["what"]["reasons"] == ["unsupported-media-type"]


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "Application/JSON", ""])
async def test_a_media_type_that_means_json_is_taken(house: House, mds: Caller, media_type: str) -> None:
    answer = await mds.post(DISCLOSURES, asking(adults(house)[12]), media_type=media_type)
    assert answer.status_code == 200, answer.text


async def test_a_body_at_the_limit_is_read_and_one_beyond_it_is_not(house: House, mds: Caller) -> None:
    body = json.dumps(asking(adults(house)[12])).encode()
    assert (await mds.post(DISCLOSURES, body.ljust(LIMIT))).status_code == 200
    since = uuid7()
    problem(await mds.post(DISCLOSURES, body.ljust(LIMIT + 1)), 413, "too-large")
    [entry] = await entries(house, "request.refused", since)
    assert (entry["actor"]["client"], entry["what"]["reasons"]) == ("demo-mds", ["too-large"])


async def exchange(house: House, sent: bytes) -> httpx.Response:
    """Send bytes as they are and read one answer, without ending the connection."""
    host, port = house.issuer.url.removeprefix("http://").split(":")
    return await asyncio.to_thread(_exchange, (host, int(port)), sent)


def _exchange(address: tuple[str, int], sent: bytes) -> httpx.Response:
    # A plain socket keeps what arrived before the other side cut the line.
    with socket.create_connection(address, timeout=20) as line:
        line.sendall(sent)
        received = b""
        while not _complete(received):
            part = line.recv(65536)
            assert part, received
            received += part
    first, *lines = received.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    headers = [(name, value.strip()) for name, _colon, value in (line.partition(":") for line in lines)]
    return httpx.Response(int(first.split(" ")[1]), headers=headers, content=received.partition(b"\r\n\r\n")[2])


def _complete(received: bytes) -> bool:
    head, _blank, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    return length is not None and len(body) >= int(length[1])


def head(caller: Caller, *lines: str, path: str = DISCLOSURES) -> bytes:
    start = [f"POST {path} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {caller.token}"]
    return "\r\n".join([*start, "Content-Type: application/json", *lines, "", ""]).encode("latin-1")


@pytest.mark.parametrize("path", [DISCLOSURES, REFERRALS, STATUS])
async def test_a_declared_length_over_the_limit_is_refused_before_any_byte_of_it(house: House, path: str) -> None:
    name = "demo-mds" if path == DISCLOSURES else "demo-utgs"
    caller = callers(house.http, house.issuer, house.settings.data_dir)[name]
    await caller.post(path, {}, key=str(uuid7()))
    answer = await exchange(house, head(caller, "Content-Length: 10000000000", path=path))
    problem(answer, 413, "too-large")
    assert answer.headers["connection"] == "close"


async def test_a_stream_is_cut_off_at_the_limit_while_it_goes_on(house: House, mds: Caller) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    # One byte more than the limit, and never an end: whoever waits for all of it waits for ever.
    body = chunk * (LIMIT // 0x10000) + b"1\r\n \r\n"
    answer = await exchange(house, head(mds, "Transfer-Encoding: chunked") + body)
    problem(answer, 413, "too-large")


SMUGGLED: dict[str, tuple[str, ...]] = {
    "length and chunks": ("Content-Length: 5", "Transfer-Encoding: chunked"),
    "two lengths": ("Content-Length: 5", "Content-Length: 6"),
    "the same length twice": ("Content-Length: 5", "Content-Length: 5"),
    "negative length": ("Content-Length: -5",),
    "signed length": ("Content-Length: +5",),
    "length in other digits": ("Content-Length: ²",),
    "length beyond 64 bits": ("Content-Length: 99999999999999999999999",),
    "unknown coding": ("Transfer-Encoding: xchunked",),
    "space before the colon": ("Transfer-Encoding : chunked",),
    "folded header": ("X-Note: a\r\n b", "Content-Length: 5"),
    "NUL in a header": ("X-Note: a\0b", "Content-Length: 5"),
    "bare line feed": ("X-Note: a\nX-Other: b", "Content-Length: 5"),
    "nameless header": (": a", "Content-Length: 5"),
}


@pytest.mark.parametrize("lines", SMUGGLED.values(), ids=SMUGGLED)
async def test_what_two_servers_could_read_differently_is_read_by_none(
    house: House, mds: Caller, lines: tuple[str, ...]
) -> None:
    answer = await exchange(house, head(mds, *lines) + b"0\r\n\r\nPOST /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.status_code == 400, answer.text
    assert answer.headers["connection"] == "close"
    nothing_leaks(answer)


@pytest.mark.parametrize(
    "request_line",
    ["GET / HTTP/9.9", "GET", "\x16\x03\x01\x02", "GET /\xff\xfe HTTP/1.1", "GET /\0 HTTP/1.1", "CONNECT a:1 HTTP/1.1"],
)
async def test_what_is_no_http_is_refused(house: House, request_line: str) -> None:
    answer = await exchange(house, f"{request_line}\r\nHost: gateway\r\n\r\n".encode("latin-1"))
    assert answer.status_code in (400, 404)
    nothing_leaks(answer)


async def test_huge_headers_break_nothing(house: House, mds: Caller) -> None:
    body = json.dumps(asking(adults(house)[12])).encode()
    for lines in (["X-Note: " + "n" * 100_000], [f"X-Note-{number}: n" for number in range(5000)]):
        answer = await exchange(house, head(mds, *lines, f"Content-Length: {len(body)}") + body)
        assert answer.status_code in (200, 400, 431)
    assert (await mds.post(DISCLOSURES, body)).status_code == 200


@pytest.mark.parametrize("path", [DISCLOSURES, REFERRALS])
async def test_who_hangs_up_in_the_middle_is_forgotten_quietly(house: House, mds: Caller, path: str) -> None:
    caller = callers(house.http, house.issuer, house.settings.data_dir)["demo-utgs"] if path == REFERRALS else mds
    await caller.post(path, {}, key=str(uuid7()))
    host, port = house.issuer.url.removeprefix("http://").split(":")
    for _time in range(5):
        _reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head(caller, "Content-Length: 1000", path=path) + b'{"subject"')
        await writer.drain()
        writer.transport.abort()
    good = referring(adults(house)[12]) if path == REFERRALS else asking(adults(house)[12])

    async def serves() -> bool:
        return (await caller.post(path, good, key=str(uuid7()))).status_code in (200, 201)

    await until(serves, within_s=10)
    logs_are_quiet(house)
