"""The simulated MSPBS: takes referrals by REST once each, and calls back until it is heard."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey
from test_simulator import PASSWORD, QUIET, Simulator, until, with_fate

from schemas.codes import code_list

PATIENT = {
    "documento": {"tipo": "cedula", "numero": "4123456"}, "nombres": "Ña Sofía", "apellidos": "Agüero",
    "fecha_nacimiento": "01/05/1960", "sexo": "F",
}  # fmt: skip


class Gateway:
    """Stands for the gateway's two endpoints; checks each assertion, answers as its plan says, keeps what came."""

    def __init__(self, key: ECKey) -> None:
        self.key, self.port = key, 0
        self.taken: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.statuses: list[int] = []
        self.tokens = 0
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status, answer = gateway.answer(self.path, body, dict(self.headers.items()))
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                """Keep the test's output clean."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}).start()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if path == "/oauth2/token":
            return self.grant({name: values[0] for name, values in parse_qs(body.decode()).items()})
        if headers["authorization"] != f"Bearer token-{self.tokens}":
            return 401, {}
        status = self.statuses.pop(0) if self.statuses else 201
        if status != 401:
            self.taken.append((path, json.loads(body), headers))
        return status, {}

    def grant(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        claims = jwt.decode(form["client_assertion"], self.key, ["ES256"])
        now = time.time()
        good = (
            claims.header["kid"] == "k1"
            and claims.claims["iss"] == claims.claims["sub"] == "mspbs-hospital"
            and claims.claims["aud"] == f"http://127.0.0.1:{self.port}/oauth2/token"
            and claims.claims["jti"]
            and now < claims.claims["exp"] <= now + 61
            and form["grant_type"] == "client_credentials"
            and form["client_assertion_type"].endswith(":jwt-bearer")
            and form["scope"] == "referrals.reply"
        )
        if not good:
            return 400, {"error": "invalid_client"}
        self.tokens += 1
        return 200, {"access_token": f"token-{self.tokens}", "token_type": "Bearer", "expires_in": 300}


class Mspbs:
    """A client of the service that has told it where to call back."""

    def __init__(self, *arguments: str) -> None:
        self.simulator = Simulator("mspbs", *arguments)

    def call_back_to(self, gateway: Gateway, key_file: Path, changes: dict[str, str] | None = None) -> httpx.Response:
        target = {"gateway": f"http://127.0.0.1:{gateway.port}", "client_id": "mspbs-hospital"}
        body = {**target, "key_file": str(key_file), "kid": "k1", **(changes or {})}
        return self.simulator.control.post("/_control/callback", json=body)

    def send(self, referral_id: str, headers: dict[str, str] | None = None, **changes: Any) -> httpx.Response:
        body = {
            "id_referencia": referral_id, "servicio": "health-control", "origen": "UTGS", "paciente": PATIENT,
            "ubicacion": {"departamento": "11", "distrito": "1116"}, "prioridad": "routine",
            "motivo": {"codigo": "protection-gap", "texto": ""}, "emitida": "2026-11-22T10:00:00Z", **changes,
        }  # fmt: skip
        keys = {"x-api-key": PASSWORD, "idempotency-key": referral_id} if headers is None else headers
        return self.simulator.http.post("/api/derivaciones", json=body, headers=keys)


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "mspbs.pem"
    file.write_bytes(ECKey.generate_key("P-256").as_pem(private=True))
    return file


@pytest.fixture
def gateway(key_file: Path) -> Iterator[Gateway]:
    gateway = Gateway(ECKey.import_key(key_file.read_bytes()))
    gateway.start()
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def running_mspbs() -> Iterator[Mspbs]:
    mspbs = Mspbs()
    yield mspbs
    assert mspbs.simulator.stop() == (0, b"", b"")


@pytest.fixture
def mspbs(running_mspbs: Mspbs) -> Mspbs:
    running_mspbs.simulator.switch(**QUIET)
    return running_mspbs


def refuse_one_call(port: int) -> None:
    """Be a gateway that dies in the middle of the first call it gets."""
    with socket.create_server(("127.0.0.1", port)) as dying:
        dying.settimeout(10)
        dying.accept()[0].close()


def told_about(gateway: Gateway, referral_id: str) -> list[dict[str, Any]]:
    path = f"/api/v1/referrals/{referral_id}/counter-referrals"
    return [body for told, body, _ in gateway.taken if told == path]


def test_mspbs_takes_a_referral_once(mspbs: Mspbs) -> None:
    referral_id = str(uuid4())
    first, second = mspbs.send(referral_id), mspbs.send(referral_id)
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json() == {**first.json(), "duplicado": True}
    assert mspbs.simulator.ledger()["received"][referral_id] == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"paciente": {**PATIENT, "fecha_nacimiento": "1960-05-01"}},
        {"paciente": {**PATIENT, "fecha_nacimiento": "31/02/1960"}},
        {"paciente": {**PATIENT, "nombres": ""}},
        {"motivo": None},
        {"emitida": 5},
    ],
)
def test_mspbs_refuses_what_it_cannot_work_with(mspbs: Mspbs, changes: dict[str, Any]) -> None:
    answer = mspbs.send(str(uuid4()), **changes)
    assert answer.status_code == 422
    assert set(answer.json()) == {"codigo", "mensaje"}


def test_mspbs_asks_for_its_two_headers(mspbs: Mspbs) -> None:
    assert mspbs.send("r", {"x-api-key": "x", "idempotency-key": "r"}).status_code == 401
    assert mspbs.send("r", {"x-api-key": PASSWORD}).status_code == 422


def test_mspbs_calls_back_in_order_with_a_signed_assertion(mspbs: Mspbs, gateway: Gateway, key_file: Path) -> None:
    assert mspbs.call_back_to(gateway, key_file).status_code == 200
    referral_id = with_fate("mspbs", "ACEPTADA", "AGENDADA", "RESULTADO")
    mspbs.send(referral_id)
    until(lambda: len(told_about(gateway, referral_id)) == 3)
    accepted, scheduled, outcome = told_about(gateway, referral_id)
    assert [body["event"] for body in (accepted, scheduled, outcome)] == ["accept", "schedule", "outcome"]
    assert set(accepted) == {"event", "message_id", "occurred_on"}
    assert set(scheduled["appointment"]) == {"at", "place"}
    assert outcome["outcome"] in {"provided", "partly_provided", "not_provided"}
    assert all(headers["idempotency-key"] == body["message_id"] for _, body, headers in gateway.taken)


def test_mspbs_repeats_until_the_gateway_takes_it(mspbs: Mspbs, gateway: Gateway, key_file: Path) -> None:
    gateway.statuses = [503, 401, 429, 201]
    mspbs.call_back_to(gateway, key_file)
    referral_id = with_fate("mspbs", "ACEPTADA", "RESULTADO")
    mspbs.send(referral_id)
    until(lambda: [body["event"] for body in told_about(gateway, referral_id)][-1:] == ["outcome"])
    told = told_about(gateway, referral_id)
    assert [body["event"] for body in told] == ["accept", "accept", "accept", "outcome"]
    assert all(body == told[0] for body in told[:3])
    assert gateway.tokens == 2


def test_mspbs_takes_a_conflict_as_done_and_a_refusal_as_final(mspbs: Mspbs, gateway: Gateway, key_file: Path) -> None:
    gateway.statuses = [409, 422]
    before = mspbs.simulator.ledger()["answers"]
    mspbs.call_back_to(gateway, key_file)
    referral_id = with_fate("mspbs", "ACEPTADA", "RESULTADO")
    mspbs.send(referral_id)
    after = until(lambda: (now := mspbs.simulator.ledger()["answers"])["refused"] > before["refused"] and now)
    assert after == {**before, "given": before["given"] + 1, "refused": before["refused"] + 1}
    assert len(told_about(gateway, referral_id)) == 2


def test_mspbs_may_call_back_twice(mspbs: Mspbs, gateway: Gateway, key_file: Path) -> None:
    mspbs.simulator.switch(duplicate=1)
    mspbs.call_back_to(gateway, key_file)
    referral_id = with_fate("mspbs", "RECHAZADA")
    mspbs.send(referral_id)
    until(lambda: len(told_about(gateway, referral_id)) == 2)
    first, second = told_about(gateway, referral_id)
    assert first == second
    assert first["reason"]["code"] in code_list("reasons")


def test_mspbs_loses_no_answer_when_gateway_and_itself_are_killed(
    tmp_path: Path, gateway: Gateway, key_file: Path
) -> None:
    state = str(tmp_path / "mspbs.sqlite")
    first = Mspbs("--state", state)
    first.call_back_to(gateway, key_file)
    gateway.stop()
    first.simulator.switch(**QUIET)
    ids = [with_fate("mspbs", "ACEPTADA", "RESULTADO") for _ in range(5)]
    for referral_id in ids:
        first.send(referral_id)
    refuse_one_call(gateway.port)
    first.simulator.kill()
    second = Mspbs("--state", state)
    refuse_one_call(gateway.port)
    gateway.start()
    until(lambda: len(gateway.taken) == 10)
    assert {len(told_about(gateway, referral_id)) for referral_id in ids} == {2}
    assert second.simulator.ledger()["received"] == dict.fromkeys(ids, 1)
    second.simulator.kill()


def test_mspbs_calls_nobody_outside_this_machine(mspbs: Mspbs, gateway: Gateway, key_file: Path) -> None:
    assert mspbs.call_back_to(gateway, key_file, {"gateway": "http://192.0.2.1"}).status_code == 400
    assert mspbs.call_back_to(gateway, key_file, {"key_file": "/nowhere"}).status_code == 400
    assert mspbs.call_back_to(gateway, key_file, {"more": "x"}).status_code == 400
