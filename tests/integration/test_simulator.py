"""The simulated institutions as processes: ready line, end, switches, and the two identity services."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import requests
import zeep
from lxml import etree

from adapters.simulator.behaviour import plan
from adapters.simulator.population import SimPerson, generate

ROOT = Path(__file__).resolve().parents[2]
WSDL = ROOT / "adapters" / "manifests" / "wsdl"
PASSWORD = "simulated-password"
TLS = ssl.create_default_context()  # one for all clients: reading the certificates takes longer than most tests here
CALL = (
    b'<S:Envelope xmlns:S="http://schemas.xmlsoap.org/soap/envelope/"><S:Body>'
    b'<p:findPersonaByCedula xmlns:p="http://identificaciones.ws.sii.senatics.gov.py/"><nroCedula>1</nroCedula>'
    b"</p:findPersonaByCedula></S:Body></S:Envelope>"
)
QUIET = {
    "latency_ms": 0, "fail_503": 0, "reset": 0, "garbage": 0, "duplicate": 0, "after_effect_reset": 0,
    "token_life_s": 3600, "accept_after_s": 0.0, "outcome_after_s": 0.0,
}  # fmt: skip


class Simulator:
    """One simulated institution in a process of its own."""

    def __init__(self, name: str, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "adapters.simulator", name, "--persons", "300", *arguments],
            cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        atexit.register(self.process.kill)  # a failing test leaves nothing running
        assert self.process.stdout is not None
        self.ready: dict[str, str] = json.loads(self.process.stdout.readline())
        self.address = self.ready["address"]
        self.http = httpx.Client(base_url=self.address, trust_env=False, verify=TLS, timeout=10)
        self.control = httpx.Client(base_url=self.ready["control"], trust_env=False, verify=TLS, timeout=10)

    def switch(self, **values: float) -> None:
        self.control.post("/_control/switches", json=values).raise_for_status()

    def ledger(self) -> dict[str, Any]:
        ledger: dict[str, Any] = self.control.get("/_control/ledger").json()
        return ledger

    def kill(self) -> None:
        self.process.kill()
        self._collect()

    def stop(self) -> tuple[int, bytes, bytes]:
        """End it politely; return the exit code and what it still wrote."""
        self.process.send_signal(signal.SIGTERM)
        return self._collect()

    def _collect(self) -> tuple[int, bytes, bytes]:
        self.http.close()
        self.control.close()
        out, err = self.process.communicate(timeout=10)
        return self.process.returncode, out, err


def until(found: Callable[[], Any], seconds: float = 10) -> Any:
    """Ask until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, "nothing came in time"
        time.sleep(0.02)
    return answer


def with_fate(institution: str, *events: str, seed: int = 1) -> str:
    """Find a referral id to which an institution will give these answers."""
    return next(
        candidate
        for candidate in (str(uuid4()) for _ in range(100_000))
        if [step.event for step in plan(institution, seed, candidate)] == list(events)
    )


@pytest.fixture(scope="module")
def rest() -> Iterator[Simulator]:
    simulator = Simulator("identificaciones")
    yield simulator
    assert simulator.stop() == (0, b"", b"")


@pytest.fixture(scope="module")
def soap() -> Iterator[Simulator]:
    simulator = Simulator("identificaciones-soap")
    yield simulator
    assert simulator.stop() == (0, b"", b"")


@pytest.fixture(autouse=True)
def _quiet(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave no switch on behind a test."""
    yield
    for name in {"rest", "soap"} & set(request.fixturenames):
        request.getfixturevalue(name).switch(**QUIET)


@pytest.fixture(scope="module")
def person() -> SimPerson:
    """Somebody with every field."""
    everybody = (member for household in generate(300, 1) for member in household.members)
    return next(member for member in everybody if member.cedula and member.profession and member.nationality == "PRY")


def token(rest: Simulator) -> str:
    answer = rest.http.post("/security", json={"username": "siis", "password": PASSWORD})
    assert answer.status_code == 200
    assert answer.json()["success"] is True
    return str(answer.json()["token"])


def ask(rest: Simulator, cedula: str, bearer: str) -> httpx.Response:
    path = f"/frontend-identificaciones/api/persona/obtenerPersonaPorCedula/{cedula}"
    return rest.http.get(path, headers={"authorization": f"Bearer {bearer}"})


# Processes ------------------------------------------------------------------------------------------


def test_says_on_one_line_where_it_listens(rest: Simulator) -> None:
    # That nothing follows, and that it ends with 0 on SIGTERM, is looked at where each fixture stops its process.
    assert set(rest.ready) == {"name", "address", "control"}
    assert rest.ready["name"] == "identificaciones"
    assert rest.address.startswith("http://127.0.0.1:")
    assert rest.ready["control"].startswith("http://127.0.0.1:")


def test_takes_its_port_and_password_from_outside() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    simulator = Simulator("identificaciones", "--port", str(port), SIIS_SIM_PASSWORD="otra")
    assert simulator.address == f"http://127.0.0.1:{port}"
    logins = [
        simulator.http.post("/security", json={"username": "siis", "password": word}).json()["success"]
        for word in (PASSWORD, "otra")
    ]
    assert logins == [False, True]
    simulator.kill()


# Identificaciones, REST -----------------------------------------------------------------------------


def test_bad_credentials_are_told_inside_a_200(rest: Simulator) -> None:
    answer = rest.http.post("/security", json={"username": "siis", "password": "x"})
    assert (answer.status_code, answer.json()) == (200, {"success": False})


def test_a_person_comes_under_the_odd_root_with_a_time_on_the_birth_date(rest: Simulator, person: SimPerson) -> None:
    answer = ask(rest, str(person.cedula), token(rest))
    assert answer.status_code == 200
    found = answer.json()["obtenerPersonaPorNroCedulaResponse"]["return"]
    born = found.pop("fechNacim")
    assert born in {f"{person.birth_date}T00:00:00-0{hours}:00" for hours in (3, 4)}
    assert found == {
        "cedula": person.cedula,
        "nombres": person.given_names,
        "apellido": person.surnames,
        "sexo": person.sex,
        "estadoCivil": person.marital_status,
        "nacionalidadBean": "PARAGUAYA",
        "profesionBean": person.profession,
    }


def test_a_zero_padded_cedula_finds_the_same_person(rest: Simulator, person: SimPerson) -> None:
    assert person.cedula
    bearer = token(rest)
    assert ask(rest, person.cedula.zfill(9), bearer).json() == ask(rest, person.cedula, bearer).json()


@pytest.mark.parametrize("cedula", ["99999999", "1.234.567", "abc", "%20"])
def test_nobody_found_is_a_text_inside_a_200(rest: Simulator, cedula: str) -> None:
    answer = ask(rest, cedula, token(rest))
    assert answer.status_code == 200
    assert answer.json() == {"obtenerPersonaPorNroCedulaResponse": {"return": {"error": "Persona no encontrada."}}}


def test_an_unknown_or_expired_token_is_a_401(rest: Simulator, person: SimPerson) -> None:
    bearer = token(rest)
    assert ask(rest, str(person.cedula), "unknown").status_code == 401
    assert ask(rest, str(person.cedula), bearer).status_code == 200
    rest.switch(token_life_s=0)
    assert ask(rest, str(person.cedula), bearer).status_code == 401


# Identificaciones, SOAP -----------------------------------------------------------------------------


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.auth = ("siis", PASSWORD)
        yield session


@pytest.fixture
def service(soap: Simulator, session: requests.Session) -> Any:
    return zeep.Client(f"{soap.address}/PersonaWS?wsdl", transport=zeep.Transport(session=session)).service


def test_the_wsdl_names_this_server_and_answers_keep_to_it(service: Any, soap: Simulator, person: SimPerson) -> None:
    assert service._binding_options["address"] == f"{soap.address}/PersonaWS"
    found = service.findPersonaByCedula(nroCedula=person.cedula)
    values = zeep.helpers.serialize_object(found, dict)
    assert len(values) == 15
    assert [name for name, value in values.items() if value is None] == ["error"]
    assert (found.nombres, found.apellido, found.cedula) == (person.given_names, person.surnames, person.cedula)
    assert found.fechNacim.date() == person.birth_date


def test_soap_tells_nobody_found_as_a_text(service: Any) -> None:
    found = service.findPersonaByCedula(nroCedula="99999999")
    assert (found.error, found.cedula) == ("Persona no encontrada.", None)


@pytest.mark.parametrize(
    ("cedula", "fault"), [("1.234.567", "RegistroIdentificacionesException"), (None, "ServiceException")]
)
def test_soap_has_two_faults(service: Any, cedula: str | None, fault: str) -> None:
    with pytest.raises(zeep.exceptions.Fault) as caught:
        service.findPersonaByCedula(nroCedula=cedula)
    detail = caught.value.detail[0]
    assert etree.QName(detail).localname == fault
    assert [(child.tag, child.text) for child in detail] == ([("codigoError", "CEDULA_NO_NUMERICA")] if cedula else [])


def test_soap_asks_for_basic_credentials(soap: Simulator) -> None:
    answers = [soap.http.get("/PersonaWS?wsdl"), soap.http.post("/PersonaWS", auth=("siis", "x"))]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].headers["www-authenticate"].startswith("Basic ")


@pytest.mark.parametrize("body", [b"", b"<a/>", CALL.replace(b"<S:Env", b"<!DOCTYPE x><S:Env", 1), b"not xml"])
def test_soap_answers_a_fault_to_what_is_no_call(soap: Simulator, body: bytes) -> None:
    answer = soap.http.post("/PersonaWS", content=body, auth=("siis", PASSWORD))
    assert answer.status_code == 500
    assert b"<faultcode>S:Client</faultcode>" in answer.content


def test_soap_answers_the_call_those_were_made_from(soap: Simulator) -> None:
    answer = soap.http.post("/PersonaWS", content=CALL, auth=("siis", PASSWORD))
    assert answer.status_code == 200


def test_the_served_wsdl_is_the_one_kept_for_the_adapter(soap: Simulator) -> None:
    served = soap.http.get("/PersonaWS?wsdl", auth=("siis", PASSWORD)).text
    kept = (WSDL / "PersonaWS.wsdl").read_text(encoding="utf-8")
    assert served == kept.replace("http://localhost/", f"{soap.address}/")


# Switches -------------------------------------------------------------------------------------------


def test_fails_as_often_as_told_then_works_again(rest: Simulator) -> None:
    rest.switch(fail_503=2)
    login = {"username": "siis", "password": PASSWORD}
    assert [rest.http.post("/security", json=login).status_code for _ in range(3)] == [503, 503, 200]


def test_minus_one_fails_until_changed(rest: Simulator) -> None:
    rest.switch(fail_503=-1)
    assert {rest.http.get("/").status_code for _ in range(5)} == {503}
    rest.switch(fail_503=0)
    assert rest.http.get("/").status_code == 404


def test_resets_the_connection_in_the_middle_of_an_answer(rest: Simulator) -> None:
    rest.switch(reset=1)
    host, port = rest.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            any(not plain.recv(4096) for _ in range(10))
    assert rest.http.get("/").status_code == 404


def test_resets_after_the_effect(rest: Simulator) -> None:
    bearer = token(rest)
    rest.switch(after_effect_reset=1)
    with pytest.raises(httpx.TransportError):
        ask(rest, "1", bearer)
    assert ask(rest, "1", bearer).status_code == 200


def test_answers_three_kinds_of_garbage_as_if_all_were_well(soap: Simulator) -> None:
    soap.switch(garbage=3)
    answers = [soap.http.post("/PersonaWS", auth=("siis", PASSWORD)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert answers[0].headers["content-type"].startswith("text/html")
    assert {answer.headers["content-type"] for answer in answers[1:]} == {"text/xml; charset=utf-8"}
    for answer in answers[1:]:
        with pytest.raises(etree.XMLSyntaxError):
            etree.fromstring(answer.content)


def test_is_as_slow_as_told(rest: Simulator) -> None:
    rest.switch(latency_ms=60_000)
    with pytest.raises(httpx.ReadTimeout):
        rest.http.get("/", timeout=0.1)
    rest.switch(latency_ms=0)
    assert rest.http.get("/").status_code == 404


@pytest.mark.parametrize(
    "wrong", [{"nothing": 1}, {"reset": -2}, {"reset": 1.5}, {"latency_ms": True}, {"outcome_after_s": -0.1}, ["reset"]]
)
def test_a_wrong_switch_changes_none(rest: Simulator, wrong: Any) -> None:
    body = {"fail_503": 1, **wrong} if isinstance(wrong, dict) else wrong
    assert rest.control.post("/_control/switches", json=body).status_code == 400
    assert rest.control.get("/_control/switches").json()["fail_503"] == 0


def test_the_control_api_is_on_its_own_port_only(rest: Simulator) -> None:
    assert rest.http.get("/_control/ledger").status_code == 404
    assert rest.control.post("/security", json={}).status_code == 404


def test_counts_the_requests_it_was_sent(rest: Simulator) -> None:
    before = rest.ledger()["requests"]
    rest.http.get("/")
    assert rest.ledger()["requests"] == before + 1
