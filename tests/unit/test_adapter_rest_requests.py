"""How the REST kind asks: every way of saying who we are, what is said in address and body, and what is refused."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from adapter_examples import closed_address, permit, referral
from adapter_written import asking, fetch, load, manifest, taking

from adapters.errors import ManifestError
from adapters.models import Found, Malformed, Rejected, Taken, Unavailable

BASE = "http://127.0.0.1:9"
PERSON = {"ci": "4123456", "nombres": "MARÍA", "nacimiento": "1980-02-29"}
GET = {"method": "GET", "path": "/personas/{identifier}"}
KEY = "clave/de+prueba="
Answers = Callable[[httpx.Request], httpx.Response]


def always(response: httpx.Response | None = None) -> tuple[list[httpx.Request], httpx.MockTransport]:
    asked: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return response or httpx.Response(200, json=PERSON)

    return asked, httpx.MockTransport(handle)


BASIC = "Basic " + base64.b64encode(f"siis:{KEY}".encode()).decode()


@pytest.mark.parametrize(
    ("auth", "headers", "target"),
    [
        ({"type": "none"}, {}, "/personas/4123456"),
        ({"type": "basic", "username": "siis", "secret": "clave"}, {"authorization": BASIC}, "/personas/4123456"),
        ({"type": "bearer", "secret": "clave"}, {"authorization": f"Bearer {KEY}"}, "/personas/4123456"),
        ({"type": "api-key", "header": "X-Clave", "secret": "clave"}, {"x-clave": KEY}, "/personas/4123456"),
        (
            {"type": "api-key", "query": "clave", "secret": "clave"},
            {},
            "/personas/4123456?clave=clave%2Fde%2Bprueba%3D",
        ),
    ],
    ids=["none", "basic", "bearer", "key in header", "key in query"],
)
async def test_a_request_says_who_we_are_as_the_manifest_has_it(
    tmp_path: Path, auth: dict[str, str], headers: dict[str, str], target: str
) -> None:
    asked, transport = always()
    adapter = load(
        tmp_path,
        manifest("rest", auth=auth, datasets=asking(GET)),
        BASE,
        secrets={"clave": KEY},
        transport=transport,
    )
    assert isinstance(await fetch(adapter), Found)
    [request] = asked
    assert request.url.raw_path.decode() == target
    assert {
        name: request.headers.get(name) for name in ("authorization", "x-clave") if name in request.headers
    } == headers


@pytest.mark.parametrize(
    ("auth", "secret"),
    [
        ({"type": "bearer", "secret": "clave"}, "clave con espacio"),
        ({"type": "api-key", "header": "X-Clave", "secret": "clave"}, "clave-ñ"),
        ({"type": "api-key", "header": "X-Clave", "secret": "clave"}, "<a>\r\nX-Otro: 1"),
        ({"type": "none"}, "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"),
    ],
)
def test_a_secret_that_cannot_be_sent_stops_the_start_unnamed(
    tmp_path: Path, auth: dict[str, str], secret: str
) -> None:
    content = manifest("rest", auth=auth, datasets=asking(GET))
    if auth["type"] == "none":
        content["tls"] = {"certificate": "clave"}
    with pytest.raises(ManifestError, match=r"prueba\.yaml:\d+: (auth\.secret|tls\.certificate): ") as refused:
        load(tmp_path, content, "https://127.0.0.1:9", secrets={"clave": secret})
    assert secret not in str(refused.value)


@pytest.mark.parametrize(
    "auth",
    [
        {"type": "api-key", "query": "clave", "secret": "clave"},
        {"type": "api-key", "header": "X-Clave", "secret": "clave"},
        {"type": "bearer", "secret": "clave"},
    ],
    ids=["query", "header", "bearer"],
)
@pytest.mark.parametrize("trouble", ["nobody there", "echo", "page", "401"])
async def test_a_key_shows_up_nowhere_when_something_goes_wrong(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    auth: dict[str, str],
    trouble: str,
) -> None:
    caplog.set_level(0)
    said = f"bad request: /personas?clave={KEY} clave=clave%2Fde%2Bprueba%3D"
    answers = {
        "nobody there": None,
        "echo": httpx.Response(400, json={"error": said, "codigo": KEY}),
        "page": httpx.Response(200, html=said),
        "401": httpx.Response(401, text=said),
    }
    rejected = {"is": "rejected", "status": 400, "code": "codigo", "reason": "error"}
    response = answers[trouble]
    adapter = load(
        tmp_path,
        manifest("rest", auth=auth, datasets=asking(GET, outcomes=[rejected])),
        closed_address(),
        secrets={"clave": KEY},
        transport=None if response is None else always(response)[1],
    )
    outcome = await fetch(adapter)
    await adapter.close()
    assert isinstance(outcome, Unavailable | Rejected | Malformed)
    told = repr(outcome) + repr(vars(adapter)) + repr(adapter.health) + caplog.text + "".join(capsys.readouterr())
    assert KEY not in told
    assert "clave%2Fde" not in told
    if isinstance(outcome, Rejected):
        assert (outcome.code, outcome.reason) == ("***", "bad request: /personas?clave=*** clave=***")


class Issuer:
    """An authorization server and the resource beside it; tokens are numbered."""

    def __init__(self, **answer: Any) -> None:
        self.answer: dict[str, Any] = {"token_type": "Bearer", "expires_in": 3600, **answer}
        self.refuse: httpx.Response | None = None
        self.asked: list[httpx.Request] = []
        self.taken = {"t-1", "t-2"}
        self.seen: list[str] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/oauth/token":
            self.asked.append(request)
            # A moment in which others come to wait.
            await asyncio.sleep(0)
            return self.refuse or httpx.Response(200, json={"access_token": f"t-{len(self.asked)}", **self.answer})
        token = request.headers["authorization"].removeprefix("Bearer ")
        self.seen.append(token)
        return httpx.Response(200, json=PERSON) if token in self.taken else httpx.Response(401)

    def adapter(self, folder: Path) -> Any:
        auth = {"type": "oauth2", "username": "si/is", "secret": "clave", "path": "/oauth/token", "scope": "a b"}
        content = manifest("rest", auth=auth, datasets=asking(GET))
        return load(folder, content, BASE, secrets={"clave": "ñ%"}, transport=httpx.MockTransport(self))


async def test_a_token_is_asked_for_once_as_rfc_6749_has_it_and_kept(tmp_path: Path) -> None:
    issuer = Issuer()
    adapter = issuer.adapter(tmp_path)
    outcomes = await asyncio.gather(*(fetch(adapter) for _ in range(10)))
    assert [type(outcome) for outcome in outcomes] == [Found] * 10
    [request] = issuer.asked
    assert parse_qs(request.content.decode()) == {"grant_type": ["client_credentials"], "scope": ["a b"]}
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    # Clause 2.3.1: both are written as in a form first.
    given = base64.b64decode(request.headers["authorization"].removeprefix("Basic "))
    assert given == b"si%2Fis:%C3%B1%25"


async def test_a_token_about_to_end_is_replaced_before_it_does(tmp_path: Path) -> None:
    issuer = Issuer(expires_in=0)
    adapter = issuer.adapter(tmp_path)
    assert isinstance(await fetch(adapter), Found)
    assert isinstance(await fetch(adapter), Found)
    assert issuer.seen == ["t-1", "t-2"]


@pytest.mark.parametrize("life", [{}, {"expires_in": "3600"}, {"expires_in": None}])
async def test_a_token_refused_before_its_end_is_renewed_once_for_all(tmp_path: Path, life: dict[str, Any]) -> None:
    issuer = Issuer(**life)
    adapter = issuer.adapter(tmp_path)
    assert isinstance(await fetch(adapter), Found)
    issuer.taken = {"t-2"}
    outcomes = await asyncio.gather(*(fetch(adapter) for _ in range(5)))
    assert [type(outcome) for outcome in outcomes] == [Found] * 5
    assert len(issuer.asked) == 2
    issuer.taken = set()
    outcome = await fetch(adapter)
    assert (type(outcome), outcome.reason) == (Unavailable, "http 401: credentials refused")
    assert len(issuer.asked) == 3


@pytest.mark.parametrize(
    ("response", "kind", "reason"),
    [
        (httpx.Response(401, json={"error": "invalid_client"}), Unavailable, "session: invalid_client"),
        (httpx.Response(400, json={"error": "el 4123456"}), Malformed, "http 400 is not in the contract"),
        (httpx.Response(503), Unavailable, "http 503"),
        (httpx.Response(200, html="<html>"), Malformed, "session: the answer is not JSON"),
        (
            httpx.Response(200, json={"access_token": "t", "token_type": "mac"}),
            Malformed,
            "session: not a bearer token",
        ),
        (httpx.Response(200, json={"token_type": "bearer"}), Malformed, "session: no token"),
        (httpx.Response(200, json={"access_token": "a\nb", "token_type": "bearer"}), Malformed, "session: no token"),
        (
            httpx.Response(200, json={"access_token": "t", "token_type": "bearer", "expires_in": -1}),
            Malformed,
            "session: expires_in is not a number of seconds",
        ),
    ],
)
async def test_a_token_that_cannot_be_had_is_no_answer_about_the_person(
    tmp_path: Path, response: httpx.Response, kind: type, reason: str
) -> None:
    issuer = Issuer()
    issuer.refuse = response
    outcome = await fetch(issuer.adapter(tmp_path))
    assert (type(outcome), outcome.reason) == (kind, reason)
    assert issuer.seen == []


async def test_what_is_asked_travels_percent_encoded_in_the_address_or_as_a_form(tmp_path: Path) -> None:
    asked, transport = always()
    query = {"documento": "value", "nombre": "presented.names", "activo": {"const": "sí&no"}, "sin": "presented.other"}
    content = manifest("rest", datasets=asking({"method": "GET", "path": "/buscar", "query": query}))
    presented = {"names": "Ñandutí & Cía=1/2"}
    assert isinstance(await fetch(load(tmp_path, content, BASE, transport=transport), presented=presented), Found)
    request = {"method": "PUT", "path": "/buscar", "format": "form"}
    content = manifest("rest", datasets=asking(request, body=query))
    assert isinstance(await fetch(load(tmp_path, content, BASE, transport=transport), presented=presented), Found)
    by_query, by_form = asked
    expected = {"documento": ["4123456"], "nombre": ["Ñandutí & Cía=1/2"], "activo": ["sí&no"]}
    assert parse_qs(by_query.url.query.decode()) == expected
    assert b" " not in by_query.url.query
    assert b"+" not in by_query.url.query
    assert by_query.content == b""
    assert "content-type" not in by_query.headers
    assert (by_form.method, by_form.url.raw_path) == ("PUT", b"/buscar")
    assert parse_qs(by_form.content.decode("ascii")) == expected
    assert by_form.headers["content-type"] == "application/x-www-form-urlencoded"


async def test_a_referral_is_put_under_its_id(tmp_path: Path) -> None:
    asked, transport = always(httpx.Response(200, json={"id": 7}))
    send = {
        "request": {
            "method": "PUT",
            "path": "/derivaciones",
            "query": {"id": "referral_id"},
            "idempotency_header": "X-Id",
        },
        "body": {"persona.nombres": "given_names"},
        "outcomes": [{"is": "taken", "reference": "id"}],
    }
    content = manifest("rest", services=["abrazo"], send=send) | {"institution": "MINNA"}
    adapter = load(tmp_path, content, BASE, transport=transport)
    outcome = await adapter.send(permit("referral.send", "MINNA", "service:abrazo"), referral("abrazo"))
    assert isinstance(outcome, Taken)
    [request] = asked
    assert (request.method, request.url.params["id"]) == ("PUT", request.headers["x-id"])


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({"datasets": asking({**GET, "idempotency_header": "X-Id"})}, "datasets.identity.request.idempotency_header"),
        ({"datasets": asking(GET, body={"ci": "value"})}, "datasets.identity.body"),
        (
            {"datasets": asking({**GET, "paging": {"by": "link", "items": "x", "next": "]["}})},
            "datasets.identity.request.paging.next",
        ),
        (
            {"datasets": asking({**GET, "paging": {"by": "cursor", "items": "x", "parameter": "c"}})},
            "datasets.identity.request.paging",
        ),
        ({"bulk": taking({"method": "GET", "path": "/{identifier}"}, items="x")}, "bulk.identity.request.path"),
        (
            {
                "bulk": taking(
                    {"method": "GET", "path": "/", "query": {"a": {"from": "value", "required": True}}}, items="x"
                )
            },
            "bulk.identity",
        ),
        (
            {
                "auth": {"type": "sii-session", "username": "u", "secret": "clave", "path": "/{identifier}"},
                "datasets": asking(GET),
            },
            "auth.path",
        ),
    ],
)
def test_a_request_that_cannot_be_made_is_refused_with_its_line(
    tmp_path: Path, parts: dict[str, Any], field: str
) -> None:
    with pytest.raises(ManifestError) as refused:
        load(tmp_path, manifest("rest", **parts), BASE, secrets={"clave": "x"})
    assert (refused.value.file, refused.value.field) == ("prueba.yaml", field)
    assert refused.value.line is not None
    assert refused.value.line > 1
