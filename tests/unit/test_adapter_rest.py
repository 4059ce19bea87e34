"""The REST kind: requests as the contract has them, every answer an outcome, one session renewed once for all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import respx
from adapter_examples import CEDULA, REFERRAL, connect, fetch, permit, referral, send

from adapters.models import (
    AlreadyTaken,
    EntryReceipt,
    Found,
    Identifier,
    Malformed,
    NotFound,
    Rejected,
    Taken,
    Unavailable,
)
from schemas.canonical import sha256

BASE = "http://127.0.0.1:9"
PERSON = f"{BASE}/frontend-identificaciones/api/persona/obtenerPersonaPorCedula/4123456"
RECORD = {
    "cedula": "04123456",
    "nombres": " MARÍA\u0015  ASUNCIÓN ",
    "apellido": "NÚÑEZ G̃UAHÉ",
    "sexo": "F",
    "fechNacim": "1980-02-29T00:00:00-04:00",
    "estadoCivil": "SO",
    "nacionalidadBean": "PARAGUAYA",
    "profesionBean": "",
}


def answer(record: Any) -> dict[str, Any]:
    return {"obtenerPersonaPorNroCedulaResponse": {"return": record}}


class Platform:
    """The exchange platform in a transport: opens sessions, and answers a person query from a list of responses."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.sessions = 0
        self.asked: list[httpx.Request] = []
        self.login: Callable[[], httpx.Response] = self._open

    def _open(self) -> httpx.Response:
        self.sessions += 1
        return httpx.Response(200, json={"token": f"token-{self.sessions}", "success": True})

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._handle)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/security":
            assert json.loads(request.content) == {"username": "siis", "password": "clave-ñ"}
            return self.login()
        self.asked.append(request)
        given = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(given, Exception):
            raise given
        return given


async def ask(folder: Path, *answers: httpx.Response | Exception) -> Any:
    return await fetch(connect(folder, "identificaciones", BASE, transport=Platform(*answers).transport()))


async def test_a_person_is_found_with_cleaned_names_the_day_as_written_and_the_origin(tmp_path: Path) -> None:
    raw = orjson.dumps(answer(RECORD))
    platform = Platform(httpx.Response(200, content=raw))
    found = await fetch(connect(tmp_path, "identificaciones", BASE, transport=platform.transport()))
    assert isinstance(found, Found)
    assert found.facts == {
        "cedula": "4123456",
        "given_names": "MARÍA ASUNCIÓN",
        "surnames": "NÚÑEZ G̃UAHÉ",
        "birth_date": "1980-02-29",
        "sex": "F",
        "marital_status": "SO",
        "nationality": "PARAGUAYA",
    }
    assert found.raw_codes == {"sex": "F"}
    assert found.provenance.raw_sha256 == sha256(raw)
    assert (found.provenance.adapter, found.provenance.institution) == ("identificaciones", "PN-IDENT")
    assert found.provenance.attempts == 1
    assert found.provenance.at.utcoffset() is not None
    [request] = platform.asked
    assert (request.method, str(request.url)) == ("GET", PERSON)
    assert request.headers["authorization"] == "Bearer token-1"
    assert request.headers["accept-encoding"] == "identity"


async def test_respx_sees_the_client(tmp_path: Path) -> None:
    with respx.mock(using="httpx") as router:
        router.post(f"{BASE}/security").respond(json={"token": "t", "success": True})
        person = router.get(PERSON).respond(json=answer(RECORD))
        assert isinstance(await fetch(connect(tmp_path, "identificaciones", BASE)), Found)
        assert person.called


async def test_an_error_text_inside_a_200_is_told_apart(tmp_path: Path) -> None:
    unknown = await ask(tmp_path, httpx.Response(200, json=answer({"error": "Persona no encontrada."})))
    assert isinstance(unknown, NotFound)
    refused = await ask(tmp_path, httpx.Response(200, json=answer({"error": "Servicio restringido"})))
    assert isinstance(refused, Rejected)
    assert (refused.code, refused.reason) == ("error", "Servicio restringido")


MALFORMED = {
    "html": httpx.Response(200, html="<html>Mantenimiento</html>"),
    "empty": httpx.Response(200),
    "truncated json": httpx.Response(200, content=b'{"obtenerPersonaPorNroCedulaResponse":{"ret'),
    "not an object": httpx.Response(200, json=[]),
    "null": httpx.Response(200, json=None),
    "other root": httpx.Response(200, json={"obtenerPersonaPorCedulaResponse": {"return": RECORD}}),
    "root of another type": httpx.Response(200, json=answer("Persona no encontrada.")),
    "no content": httpx.Response(204),
    "latin-1 without saying so": httpx.Response(200, content='{"a": "Ñ"}'.encode("latin-1")),
    "utf-8 said to be ascii": httpx.Response(
        200, content=orjson.dumps(answer(RECORD)), headers={"content-type": "application/json; charset=us-ascii"}
    ),
    "unknown charset": httpx.Response(
        200, content=orjson.dumps(answer(RECORD)), headers={"content-type": "application/json; charset=klingon"}
    ),
    **{
        f"charset {charset}": httpx.Response(
            200, content=json.dumps(answer(RECORD)), headers={"content-type": f"application/json; charset={charset}"}
        )
        for charset in ("undefined", "utf-7", "unicode_escape", "punycode", "idna", "rot13", "hex")
    },
    "compressed": httpx.Response(200, content=b"x", headers={"content-encoding": "br"}),
    "no birth date": httpx.Response(200, json=answer({**RECORD, "fechNacim": None})),
    "31 February": httpx.Response(200, json=answer({**RECORD, "fechNacim": "1980-02-31T00:00:00-04:00"})),
    "number for a text": httpx.Response(200, json=answer({**RECORD, "cedula": 4123456})),
    "boolean for an error text": httpx.Response(200, json=answer({"error": True, "mensaje": "x"})),
    "somebody else": httpx.Response(200, json=answer({**RECORD, "cedula": "4123457"})),
    "repeated key": httpx.Response(200, content=b'{"a":1,"a":2}'),
    "deep": httpx.Response(200, content=b"[" * 5000),
    "redirect": httpx.Response(302, headers={"location": "https://elsewhere.example/"}),
    "wrong path": httpx.Response(404, html="<html>404</html>"),
    "bad request": httpx.Response(400, json={"error": "Persona no encontrada."}),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
async def test_what_is_not_the_contract_is_malformed_and_not_asked_again(tmp_path: Path, case: str) -> None:
    platform = Platform(MALFORMED[case])
    outcome = await fetch(connect(tmp_path, "identificaciones", BASE, transport=platform.transport()))
    assert isinstance(outcome, Malformed)
    assert len(platform.asked) == outcome.provenance.attempts == 1
    assert not outcome.effect_unknown
    assert not any(text in outcome.reason for text in ("4123456", "MARÍA", "1980"))


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
async def test_a_server_in_trouble_is_asked_again_and_then_unavailable(tmp_path: Path, status: int) -> None:
    trouble = httpx.Response(status, json=answer({"error": "Persona no encontrada."}))
    platform = Platform(trouble, trouble, httpx.Response(200, json=answer(RECORD)))
    found = await fetch(connect(tmp_path, "identificaciones", BASE, transport=platform.transport()))
    assert isinstance(found, Found)
    assert found.provenance.attempts == 3
    platform = Platform(trouble)
    outcome = await fetch(connect(tmp_path, "identificaciones", BASE, transport=platform.transport()))
    assert isinstance(outcome, Unavailable)
    assert (outcome.reason, outcome.provenance.attempts) == (f"http {status}", 3)


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("soon", None), ("nan", None), ("-1", None)])
async def test_a_producer_that_says_when_to_come_back_is_not_asked_before(
    tmp_path: Path, header: str, seconds: float | None
) -> None:
    platform = Platform(httpx.Response(429, headers={"retry-after": header}))
    outcome = await fetch(connect(tmp_path, "identificaciones", BASE, transport=platform.transport()))
    assert isinstance(outcome, Unavailable)
    assert outcome.retry_after_s == seconds
    assert len(platform.asked) == (3 if seconds is None else 1)


@pytest.mark.parametrize(
    "identifier",
    [
        Identifier("cedula", "4.123.456"),
        Identifier("cedula", "0"),
        Identifier("cedula", "../1"),
        Identifier("ruc", "80000001-1"),
    ],
)
async def test_an_identifier_the_dataset_is_not_asked_by_is_rejected_before_asking(
    tmp_path: Path, identifier: Identifier
) -> None:
    platform = Platform(httpx.Response(200, json=answer(RECORD)))
    adapter = connect(tmp_path, "identificaciones", BASE, transport=platform.transport())
    outcome = await fetch(adapter, identifier=identifier)
    assert isinstance(outcome, Rejected)
    assert (outcome.code, platform.asked, platform.sessions) == ("identifier", [], 0)


@pytest.mark.parametrize("value", ["..", "a/b", "a?b", "a b", "", "%2e", "ñ"])
async def test_an_identifier_cannot_climb_out_of_its_path(tmp_path: Path, value: str) -> None:
    platform = Platform(httpx.Response(200, json=answer(RECORD)))
    changes = {"identifier: cedula": "identifier: ruc"}
    adapter = connect(tmp_path, "identificaciones", BASE, transport=platform.transport(), changes=changes)
    assert isinstance(await fetch(adapter, identifier=Identifier("ruc", value)), Rejected)
    assert platform.asked == []


async def test_an_expired_session_is_renewed_once_for_all_who_saw_it_end(tmp_path: Path) -> None:
    platform = Platform(httpx.Response(200, json=answer(RECORD)))
    adapter = connect(tmp_path, "identificaciones", BASE, transport=platform.transport())
    assert isinstance(await fetch(adapter), Found)
    waiting = asyncio.Event()
    refused = 0

    async def handle(request: httpx.Request) -> httpx.Response:
        nonlocal refused
        if request.url.path == "/security":
            return platform.login()
        if request.headers["authorization"] == "Bearer token-1":
            refused += 1
            if refused == 10:
                waiting.set()
            await waiting.wait()
            return httpx.Response(401, json={"mensaje": "Token expirado"})
        return httpx.Response(200, json=answer(RECORD))

    with respx.mock(using="httpx") as router:
        router.route().mock(side_effect=handle)
        outcomes = await asyncio.gather(*(fetch(adapter) for _ in range(10)))
    assert [type(outcome) for outcome in outcomes] == [Found] * 10
    assert {outcome.provenance.attempts for outcome in outcomes} == {1}
    assert (refused, platform.sessions) == (10, 2)


async def test_a_session_refused_twice_is_unavailable_not_an_answer_about_the_person(tmp_path: Path) -> None:
    platform = Platform(httpx.Response(401, json=answer({"error": "Persona no encontrada."})))
    outcome = await fetch(connect(tmp_path, "identificaciones", BASE, transport=platform.transport()))
    assert isinstance(outcome, Unavailable)
    assert outcome.reason == "http 401: credentials refused"
    assert (len(platform.asked), platform.sessions) == (2, 2)


@pytest.mark.parametrize(
    ("login", "kind", "reason"),
    [
        (httpx.Response(200, json={"success": False}), Unavailable, "session: credentials refused"),
        (httpx.Response(200, json={"success": False, "token": "x"}), Unavailable, "session: credentials refused"),
        (httpx.Response(401), Unavailable, "http 401: credentials refused"),
        (httpx.Response(503), Unavailable, "http 503"),
        (httpx.Response(200, json={"success": "true", "token": "x"}), Malformed, "session: no success flag"),
        (httpx.Response(200, json={"success": True}), Malformed, "session: no token"),
        (httpx.Response(200, json={"success": True, "token": "a\r\nb"}), Malformed, "session: no token"),
        (httpx.Response(200, html="<html>"), Malformed, "session: the answer is not JSON"),
    ],
)
async def test_a_session_that_cannot_be_opened_is_no_answer_about_the_person(
    tmp_path: Path, login: httpx.Response, kind: type, reason: str
) -> None:
    platform = Platform(httpx.Response(200, json=answer(RECORD)))
    platform.login = lambda: login
    outcome = await fetch(connect(tmp_path, "identificaciones", BASE, transport=platform.transport()))
    assert (type(outcome), outcome.reason) == (kind, reason)
    assert platform.asked == []


async def test_a_declared_charset_is_believed(tmp_path: Path) -> None:
    record = {**RECORD, "apellido": "NÚÑEZ"}
    outcome = await ask(
        tmp_path,
        httpx.Response(
            200,
            content=json.dumps(answer(record), ensure_ascii=False).encode("latin-1"),
            headers={"content-type": 'application/json; charset="ISO-8859-1"'},
        ),
    )
    assert isinstance(outcome, Found)
    assert outcome.facts["surnames"] == "NÚÑEZ"


async def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    raw = b"\xef\xbb\xbf" + orjson.dumps(answer(RECORD))
    assert isinstance(await ask(tmp_path, httpx.Response(200, content=raw)), Found)


async def test_an_unknown_extra_field_is_let_be(tmp_path: Path) -> None:
    outcome = await ask(tmp_path, httpx.Response(200, json=answer({**RECORD, "huella": {"x": [1]}})))
    assert isinstance(outcome, Found)


async def test_a_referral_is_sent_as_the_recipient_reads_it(tmp_path: Path) -> None:
    platform = Platform(httpx.Response(201, json={"numero": "MSPBS-000007"}))
    outcome = await send(connect(tmp_path, "mspbs", BASE, transport=platform.transport()))
    assert isinstance(outcome, Taken)
    assert outcome.reference == "MSPBS-000007"
    [request] = platform.asked
    assert (request.method, str(request.url)) == ("POST", f"{BASE}/api/derivaciones")
    assert (request.headers["x-api-key"], request.headers["idempotency-key"]) == ("clave", str(REFERRAL))
    assert json.loads(request.content) == {
        "id_referencia": str(REFERRAL),
        "servicio": "vaccination",
        "origen": "UTGS",
        "paciente": {
            "documento": {"tipo": "cedula", "numero": CEDULA.value},
            "nombres": "Ñasaindy",
            "apellidos": "Agüero Yvyra'i",
            "fecha_nacimiento": "01/05/2015",
            "sexo": "F",
        },
        "ubicacion": {"departamento": "11", "distrito": "1116"},
        "motivo": {"codigo": "protection-gap", "texto": "Sin el servicio"},
        "prioridad": "routine",
        "emitida": "2026-11-22T10:00:00Z",
        "limite": "2026-12-22",
    }


async def test_a_receipt_goes_with_the_call_as_a_header(tmp_path: Path) -> None:
    platform = Platform(httpx.Response(201, json={"numero": "1"}), httpx.Response(201, json={"numero": "2"}))
    adapter = connect(tmp_path, "mspbs", BASE, transport=platform.transport())
    receipt = EntryReceipt(REFERRAL, bytes(32), "https://siis.example/proof")
    given = permit("referral.send", "MSPBS", "service:vaccination")
    await adapter.send(given, referral("vaccination"), receipt=receipt)
    await adapter.send(given, referral("vaccination"))
    said = f"entry_id={REFERRAL};leaf={'00' * 32};proof=https://siis.example/proof"
    assert [asked.headers.get("x-siis-receipt") for asked in platform.asked] == [said, None]


async def test_what_a_person_does_not_have_is_left_out_of_the_message(tmp_path: Path) -> None:
    platform = Platform(httpx.Response(201, json={"numero": "1"}))
    adapter = connect(tmp_path, "mspbs", BASE, transport=platform.transport())
    gone = dict.fromkeys(("birth_date", "sex", "department", "district", "due_on"))
    await send(adapter, identifiers=(), **gone)
    sent = json.loads(platform.asked[0].content)
    assert sent["paciente"] == {"nombres": "Ñasaindy", "apellidos": "Agüero Yvyra'i"}
    assert not {"ubicacion", "limite"} & set(sent)


async def test_a_message_the_contract_cannot_carry_is_rejected_unsent(tmp_path: Path) -> None:
    platform = Platform(httpx.Response(201, json={"numero": "1"}))
    outcome = await send(connect(tmp_path, "mspbs", BASE, transport=platform.transport()), given_names="\x00 ")
    assert isinstance(outcome, Rejected)
    assert (outcome.code, outcome.reason) == ("incomplete-message", "paciente.nombres: missing")
    assert platform.asked == []


@pytest.mark.parametrize(
    ("response", "kind", "said"),
    [
        (httpx.Response(200, json={"numero": "7", "duplicado": True}), AlreadyTaken, "7"),
        (httpx.Response(422, json={"codigo": "DATO_INVALIDO", "mensaje": "falta"}), Rejected, "DATO_INVALIDO"),
        (httpx.Response(422, json={"codigo": 12}), Rejected, "12"),
        (httpx.Response(200, json={"numero": "7", "duplicado": "true"}), Malformed, True),
        (httpx.Response(201, json={}), Malformed, True),
        (httpx.Response(201, json={"numero": ["7"]}), Malformed, True),
        (httpx.Response(422, html="<html>"), Malformed, False),
        (httpx.Response(404, json={}), Malformed, False),
        (httpx.Response(307, headers={"location": "/x"}), Malformed, False),
        (httpx.Response(401, json={}), Unavailable, False),
        (httpx.Response(403, html="<html>"), Unavailable, False),
        (httpx.Response(429), Unavailable, False),
        (httpx.Response(500, json={"codigo": "X"}), Unavailable, True),
        (httpx.Response(503, html="<html>"), Unavailable, True),
        (httpx.ConnectError("refused"), Unavailable, False),
        (httpx.ConnectTimeout("slow"), Unavailable, False),
        (httpx.ReadError("reset"), Unavailable, True),
        (httpx.ReadTimeout("slow"), Unavailable, True),
        (httpx.WriteError("reset"), Unavailable, True),
        (httpx.RemoteProtocolError("noise"), Malformed, True),
    ],
)
async def test_an_answer_to_a_referral_says_whether_it_may_have_had_its_effect(
    tmp_path: Path, response: httpx.Response | Exception, kind: type, said: object
) -> None:
    outcome = await send(connect(tmp_path, "mspbs", BASE, transport=Platform(response).transport()))
    assert isinstance(outcome, kind)
    if isinstance(outcome, AlreadyTaken):
        assert outcome.reference == said
    elif isinstance(outcome, Rejected):
        assert outcome.code == said
    else:
        assert isinstance(outcome, Unavailable | Malformed)
        assert outcome.effect_unknown is said


async def test_an_effect_once_unknown_stays_unknown(tmp_path: Path) -> None:
    platform = Platform(httpx.ReadError("reset"), httpx.ConnectError("refused"))
    outcome = await send(connect(tmp_path, "mspbs", BASE, transport=platform.transport()))
    assert isinstance(outcome, Unavailable)
    assert (outcome.reason, outcome.effect_unknown, outcome.provenance.attempts) == ("connection failed", True, 3)


async def test_a_referral_is_repeated_at_once_only_where_the_recipient_recognises_it(tmp_path: Path) -> None:
    answers = (httpx.ReadError("reset"), httpx.Response(200, json={"numero": "7", "duplicado": True}))
    platform = Platform(*answers)
    assert isinstance(await send(connect(tmp_path, "mspbs", BASE, transport=platform.transport())), AlreadyTaken)
    platform = Platform(*answers)
    changes = {"deduplicates: true": "deduplicates: false"}
    outcome = await send(connect(tmp_path, "mspbs", BASE, transport=platform.transport(), changes=changes))
    assert isinstance(outcome, Unavailable)
    assert (outcome.effect_unknown, len(platform.asked)) == (True, 1)
