"""Answers in pages, in XML, and whole registers over HTTP: all of it, once, and from where it was asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import prometheus_client
import pytest
from adapter_examples import poll
from adapter_written import FIELDS, asking, fetch, load, manifest, names, rows_of, take, taking

from adapters.models import Found, Malformed, NotFound, Page, RejectedRow, Unavailable
from schemas.canonical import sha256

BASE = "http://127.0.0.1:9"
# Five people in pages of two; the one asked for is the last.
PEOPLE = [{"ci": str(4123452 + n), "nombres": f"N{n}"} for n in range(5)]
WANTED = "lista.personas[?ci=='4123456'] | [0]"


def body(people: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"lista": {"personas": people}, **more}


class Pages:
    """A service that gives five people in pages of two, and forgets nothing of what it was asked."""

    def __init__(self, page: Callable[[httpx.Request], httpx.Response]) -> None:
        self.asked: list[httpx.URL] = []
        self.raw = b""
        self._page = page

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url)
        response = self._page(request)
        self.raw += response.content
        return response


def by_page(request: httpx.Request) -> httpx.Response:
    first = 2 * (int(request.url.params["pagina"]) - 1)
    return httpx.Response(200, json=body(PEOPLE[first : first + 2]))


def by_page_told(request: httpx.Request) -> httpx.Response:
    number = int(request.url.params["pagina"])
    return httpx.Response(200, json=body(PEOPLE[2 * number - 2 : 2 * number], mas=number < 3))


def by_offset(request: httpx.Request) -> httpx.Response:
    first = int(request.url.params["desde"])
    return httpx.Response(200, json=body(PEOPLE[first : first + 2]))


def by_cursor(request: httpx.Request) -> httpx.Response:
    first = int(request.url.params.get("c", "-100")) + 100
    return httpx.Response(200, json=body(PEOPLE[first : first + 2], sigue=first - 98 if first < 4 else None))


def by_header(request: httpx.Request) -> httpx.Response:
    first = int(request.url.params.get("n", "0"))
    link = f'<?n={first + 2}>; rel="next last"; title="más; de, <esto>"' if first < 4 else "</>; rel=first"
    return httpx.Response(200, json=body(PEOPLE[first : first + 2]), headers=[(b"link", link.encode())])


def by_link(request: httpx.Request) -> httpx.Response:
    first = int(request.url.params.get("n", "0"))
    return httpx.Response(
        200, json=body(PEOPLE[first : first + 2], sigue=f"{BASE}/p?n={first + 2}" if first < 4 else "")
    )


PAGING: dict[str, tuple[Any, dict[str, Any], int]] = {
    "page": (by_page, {"by": "page", "parameter": "pagina"}, 4),
    "page, told": (by_page_told, {"by": "page", "parameter": "pagina", "next": "mas"}, 3),
    "offset": (by_offset, {"by": "offset", "parameter": "desde"}, 4),
    "cursor": (by_cursor, {"by": "cursor", "parameter": "c", "next": "sigue"}, 3),
    "link in header": (by_header, {"by": "link"}, 3),
    "link in answer": (by_link, {"by": "link", "next": "sigue"}, 3),
}


def paged(paging: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"method": "GET", "path": "/p", "paging": {"items": "lista.personas", **paging}, **more}


def adapter_of(folder: Path, pages: Any, content: dict[str, Any], **more: Any) -> Any:
    return load(folder, content, BASE, transport=httpx.MockTransport(pages), **more)


@pytest.mark.parametrize("case", PAGING)
async def test_all_pages_are_read_as_one_answer(tmp_path: Path, case: str) -> None:
    service, paging, requests = PAGING[case]
    pages = Pages(service)
    content = manifest("rest", datasets=asking(paged(paging), root=WANTED))
    outcome = await fetch(adapter_of(tmp_path, pages, content))
    assert isinstance(outcome, Found)
    assert outcome.facts["given_names"] == "N4"
    assert len(pages.asked) == requests
    assert outcome.provenance.raw_sha256 == sha256(pages.raw)


async def test_a_list_may_be_the_whole_answer(tmp_path: Path) -> None:
    pages = Pages(lambda request: httpx.Response(200, json=by_page(request).json()["lista"]["personas"]))
    paging = {"by": "page", "parameter": "pagina", "items": "@"}
    content = manifest("rest", datasets=asking(paged(paging), root="[?ci=='4123456'] | [0]"))
    outcome = await fetch(adapter_of(tmp_path, pages, content))
    assert isinstance(outcome, Found)
    assert outcome.facts["given_names"] == "N4"


async def test_the_key_in_the_query_stands_in_every_address_once(tmp_path: Path) -> None:
    def service(request: httpx.Request) -> httpx.Response:
        first = int(request.url.params.get("n", "0"))
        more = f"/p?clave=vieja&n={first + 2}" if first < 4 else None
        return httpx.Response(200, json=body(PEOPLE[first : first + 2], sigue=more))

    pages = Pages(service)
    auth = {"type": "api-key", "query": "clave", "secret": "clave"}
    content = manifest("rest", auth=auth, datasets=asking(paged({"by": "link", "next": "sigue"}), root=WANTED))
    assert isinstance(await fetch(adapter_of(tmp_path, pages, content, secrets={"clave": "a b"})), Found)
    assert [url.params.get_list("clave") for url in pages.asked] == [["a b"]] * 3


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("https://127.0.0.1:9/p", "the next page is at another origin"),
        ("http://127.0.0.1:10/p", "the next page is at another origin"),
        ("//elsewhere.example/p", "the next page is at another origin"),
        ("http://user:pass@127.0.0.1:9/p", "the next page is at another origin"),
        ("http://127.0.0.1:9@elsewhere.example/p", "the next page is at another origin"),
        ("file:///etc/passwd", "the next page is at another origin"),
        ("http://[::1", "the link to the next page is no address"),
        ("/\x1f", "the link to the next page is no address"),
        (["/p"], "the next page is of another type"),
        (True, "the next page is of another type"),
        ("/p", "a page came twice"),
        ("/otra", "more than 3 pages"),
    ],
)
async def test_a_link_that_leads_elsewhere_or_round_in_a_circle_is_not_followed(
    tmp_path: Path, link: Any, reason: str
) -> None:
    def service(request: httpx.Request) -> httpx.Response:
        more = {"dado": str(uuid4())} if link == "/otra" else {}
        return httpx.Response(200, json=body(PEOPLE[:2], sigue=link, **more))

    pages = Pages(service)
    content = manifest("rest", datasets=asking(paged({"by": "link", "next": "sigue", "most": 3}), root=WANTED))
    outcome = await fetch(adapter_of(tmp_path, pages, content))
    assert (type(outcome), outcome.reason) == (Malformed, reason)
    assert all(url.host == "127.0.0.1" and url.port == 9 for url in pages.asked)


@pytest.mark.parametrize(("most", "kind"), [(3, Found), (2, Malformed)])
async def test_no_more_pages_are_read_than_the_manifest_allows(tmp_path: Path, most: int, kind: type) -> None:
    content = manifest("rest", datasets=asking(paged({"by": "page", "parameter": "pagina", "most": most}), root=WANTED))
    assert isinstance(await fetch(adapter_of(tmp_path, by_page, content)), kind)


async def test_the_limit_of_an_answer_counts_all_its_pages(tmp_path: Path) -> None:
    def service(request: httpx.Request) -> httpx.Response:
        number = int(request.url.params["pagina"])
        return httpx.Response(200, json=body([{"ci": str(number), "nombres": "x" * 600}]))

    limits = {"budget_s": 5, "max_body": 1024}
    content = manifest(
        "rest", limits=limits, datasets=asking(paged({"by": "page", "parameter": "pagina"}), root=WANTED)
    )
    outcome = await fetch(adapter_of(tmp_path, service, content))
    assert isinstance(outcome, Malformed)
    assert "longer than" in outcome.reason


@pytest.mark.parametrize(
    ("broken", "kind", "reason"),
    [
        (httpx.Response(503), Unavailable, "http 503"),
        (httpx.Response(404, json={}), Malformed, "http 404 is not in the contract"),
        (httpx.Response(200, json={"lista": {"personas": "no"}}), Malformed, "the items of a page are no list"),
        (httpx.Response(200, html="<html>"), Malformed, "the answer is not JSON"),
    ],
)
async def test_half_an_answer_in_pages_is_none(tmp_path: Path, broken: httpx.Response, kind: type, reason: str) -> None:
    def service(request: httpx.Request) -> httpx.Response:
        return broken if request.url.params["pagina"] == "2" else by_page(request)

    paging = {"by": "page", "parameter": "pagina"}
    content = manifest("rest", datasets=asking(paged(paging), outcomes=[{"is": "not-found", "status": 404}]))
    outcome = await fetch(adapter_of(tmp_path, service, content))
    assert (type(outcome), outcome.reason) == (kind, reason)
    register = manifest("rest", bulk=taking(paged(paging), items="lista.personas"))
    outcome = await take(adapter_of(tmp_path, service, register))
    assert (type(outcome), outcome.reason) == (kind, reason)


async def test_an_outcome_of_the_first_page_is_told_apart_as_ever(tmp_path: Path) -> None:
    gone = httpx.Response(404, json={"mensaje": "no existe"})
    content = manifest(
        "rest",
        datasets=asking(paged({"by": "page", "parameter": "pagina"}), outcomes=[{"is": "not-found", "status": 404}]),
    )
    assert isinstance(await fetch(adapter_of(tmp_path, lambda _request: gone, content)), NotFound)


XML = """<?xml version="1.0" encoding="{charset}"?><r:respuesta xmlns:r="urn:x"><lista>{people}</lista></r:respuesta>"""
XML_FIELDS = {
    "cedula": {"from": '"@ci"', "through": ["cedula"], "required": True},
    "given_names": {"from": "nombres", "required": True},
}


def xml_people(request: httpx.Request) -> httpx.Response:
    first = 2 * (int(request.url.params["pagina"]) - 1)
    people = "".join(f'<p ci="{p["ci"]}"><nombres>Ñ{p["nombres"]}</nombres></p>' for p in PEOPLE[first : first + 2])
    content = XML.format(charset="ISO-8859-1", people=people).encode("latin-1")
    return httpx.Response(200, content=content, headers={"content-type": "application/xml"})


async def test_xml_is_read_like_json_a_lone_element_as_a_list_where_one_is_declared(tmp_path: Path) -> None:
    paging = {"by": "page", "parameter": "pagina", "items": "respuesta.lista.p"}
    dataset = asking(
        paged(paging, answer="xml"), root="respuesta.lista.p[?\"@ci\"=='4123456'] | [0]", fields=XML_FIELDS
    )
    outcome = await fetch(adapter_of(tmp_path, xml_people, manifest("rest", datasets=dataset)))
    assert isinstance(outcome, Found)
    assert outcome.facts == {"cedula": "4123456", "given_names": "ÑN4"}


async def test_a_web_page_where_xml_was_agreed_is_malformed_and_under_500_trouble(tmp_path: Path) -> None:
    content = manifest("rest", datasets=asking({"method": "GET", "path": "/p", "answer": "xml"}))
    for status, kind in ((200, Malformed), (503, Unavailable)):
        page = httpx.Response(status, html="<!DOCTYPE html><html><body>Mantenimiento</body></html>")
        assert isinstance(await fetch(adapter_of(tmp_path, lambda _request, page=page: page, content)), kind)


REPLIES = {
    "message_id": {"from": "id", "through": ["text"], "required": True},
    "referral_id": {"from": "ref", "required": True},
    "event": {"from": "evento", "codes": {"OK": "accept"}, "required": True},
    "occurred_on": {"from": "fecha", "through": ["date10"], "required": True},
}
REPLY = {"id": 1, "ref": "019a2b3c-4d5e-7f60-8a1b-2c3d4e5f6071", "evento": "OK", "fecha": "2026-11-20"}


async def test_counter_referrals_are_polled_behind_a_cursor_and_a_bad_one_is_named(tmp_path: Path) -> None:
    asked: list[httpx.URL] = []

    def service(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        return httpx.Response(200, json={"items": [REPLY, {**REPLY, "evento": "??"}], "ultimo": 17, "hay": False})

    spec = {
        "request": {"method": "GET", "path": "/r", "query": {"desde": "cursor"}},
        "items": "items",
        "cursor": "to_string(ultimo)",
        "more": "hay",
        "fields": REPLIES,
    }
    adapter = adapter_of(tmp_path, service, manifest("rest", poll=spec))
    for cursor in (None, "16"):
        page = await poll(adapter, cursor)
        assert isinstance(page, Page)
        assert ([reply.message_id for reply in page.items], page.cursor, page.more) == (["1"], "17", False)
        assert page.rejects == (RejectedRow(2, "event", "unknown code"),)
    assert [url.params.get("desde") for url in asked] == [None, "16"]
    failing = adapter_of(tmp_path, lambda _request: httpx.Response(404), manifest("rest", poll=spec))
    assert isinstance(await poll(failing), Malformed)


async def test_a_register_in_pages_is_taken_once_row_by_row(tmp_path: Path) -> None:
    people = [*PEOPLE, {"ci": 4, "nombres": "x"}, {"ci": "Ñandú 12", "nombres": "x"}]

    def service(request: httpx.Request) -> httpx.Response:
        first = 2 * (int(request.url.params["pagina"]) - 1)
        # The answer says when it was made; the register is the same all the same.
        return httpx.Response(200, json=body(people[first : first + 2], hora=str(uuid4())))

    register = taking(paged({"by": "page", "parameter": "pagina"}), items="lista.personas", fields=FIELDS)
    adapter = adapter_of(tmp_path, service, manifest("rest", bulk=register))
    taken = await take(adapter)
    assert taken.name == "identity"
    rows = await rows_of(taken)
    assert names(rows) == ["N0", "N1", "N2", "N3", "N4"]
    assert rows[5:] == [
        RejectedRow(6, "ci", "not a text", "9"),
        RejectedRow(7, "ci", "not a cédula", "A 99"),
    ]
    assert names(await rows_of(taken, after=3)) == ["N3", "N4"]
    await taken.close()
    counted = {"adapter": "prueba", "outcome": "Register"}
    assert prometheus_client.REGISTRY.get_sample_value("siis_producer_calls_total", counted)
    assert isinstance(await take(adapter, (taken.sha256,)), NotFound)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (body([]), NotFound),
        ({"error": "mantenimiento"}, Malformed),
        ({"lista": {"personas": {"ci": "1"}}}, Malformed),
    ],
)
async def test_an_answer_without_a_register_never_empties_one(tmp_path: Path, answer: Any, kind: type) -> None:
    register = manifest("rest", bulk=taking({"method": "GET", "path": "/p"}, items="lista.personas"))
    outcome = await take(adapter_of(tmp_path, lambda _request: httpx.Response(200, json=answer), register))
    assert isinstance(outcome, kind)
