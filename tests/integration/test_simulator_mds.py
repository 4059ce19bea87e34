"""The simulated MDS: takes referrals by SOAP once each, and tells its answers when asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests
import zeep
from test_simulator import PASSWORD, QUIET, WSDL, Simulator, until, with_fate

REFERRAL = {
    "servicio": "tekopora", "institucionOrigen": "UTGS", "cedula": "4123456", "nombres": "Ña Sofía",
    "apellidos": "Agüero Ñamandú", "fechaNacimiento": "1960-05-01", "sexo": "F", "departamento": "11",
    "distrito": "1116", "motivo": "protection-gap", "prioridad": "routine", "fechaEmision": "2026-11-22T10:00:00Z",
    "fechaLimite": "2026-12-22",
}  # fmt: skip


class Mds:
    """A client of the service, through its WSDL on disk as the adapter uses it."""

    def __init__(self, simulator: Simulator, session: requests.Session) -> None:
        self.simulator = simulator
        client = zeep.Client(str(WSDL / "DerivacionesWS.wsdl"), transport=zeep.Transport(session=session))
        binding = "{http://derivaciones.ws.mds.gov.py/}DerivacionesBinding"
        self.service = client.create_service(binding, f"{simulator.address}/DerivacionesWS")

    def register(self, referral_id: str, **changes: Any) -> Any:
        return self.service.registrarDerivacion(**{**REFERRAL, "idReferencia": referral_id, **changes})

    def answers(self, since: str = "", most: int = 100) -> Any:
        return self.service.consultarContrarreferencias(desde=since, maximo=most)

    def about(self, referral_id: str) -> list[Any]:
        found, cursor, more = [], "", True
        while more:
            page = self.answers(cursor)
            found += [item for item in page.contrarreferencia if item.idReferencia == referral_id]
            cursor, more = page.cursor, page.hayMas
        return found


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        session.auth = ("siis", PASSWORD)
        yield session


@pytest.fixture(scope="module")
def running_mds(session: requests.Session) -> Iterator[Mds]:
    simulator = Simulator("mds")
    yield Mds(simulator, session)
    assert simulator.stop() == (0, b"", b"")


@pytest.fixture
def mds(running_mds: Mds) -> Mds:
    running_mds.simulator.switch(**QUIET)
    return running_mds


def test_mds_takes_a_referral_once(mds: Mds) -> None:
    referral_id = str(uuid4())
    first, second = mds.register(referral_id), mds.register(referral_id)
    assert (first.codigo, second.codigo) == (0, 1)
    assert first.numeroExpediente == second.numeroExpediente
    assert first.numeroExpediente != mds.register(str(uuid4())).numeroExpediente
    assert mds.simulator.ledger()["received"][referral_id] == 1


@pytest.mark.parametrize("changes", [{"nombres": " "}, {"idReferencia": ""}, {"fechaNacimiento": "1999-02-31"}])
def test_mds_rejects_what_it_cannot_work_with(mds: Mds, changes: dict[str, str]) -> None:
    before = mds.simulator.ledger()["received"]
    answer = mds.register(str(uuid4()), **changes)
    assert (answer.codigo, answer.numeroExpediente) == (2, None)
    assert next(iter(changes)) in answer.mensaje
    assert mds.simulator.ledger()["received"] == before


def test_mds_tells_its_answers_in_order_when_asked(mds: Mds) -> None:
    referral_id = with_fate("mds", "ACEPTADA", "AGENDADA", "RESULTADO")
    mds.register(referral_id)
    accepted, scheduled, outcome = mds.about(referral_id)
    assert [item.evento for item in (accepted, scheduled, outcome)] == ["ACEPTADA", "AGENDADA", "RESULTADO"]
    assert scheduled.fechaCita.date() > scheduled.fecha
    assert outcome.resultado in {"PRESTADO", "PARCIAL", "NO_PRESTADO"}
    assert len({item.idMensaje for item in (accepted, scheduled, outcome)}) == 3


def test_mds_gives_reasons_with_a_rejection(mds: Mds) -> None:
    referral_id = with_fate("mds", "RECHAZADA")
    mds.register(referral_id)
    (item,) = mds.about(referral_id)
    assert item.motivo
    assert item.detalle


def test_mds_pages_so_that_a_cursor_misses_nothing(mds: Mds) -> None:
    cursor = mds.answers(most=500).cursor
    slow, quick = (with_fate("mds", "ACEPTADA", "RESULTADO") for _ in range(2))
    for referral_id, seconds in ((slow, 0.3), (quick, 0)):
        mds.simulator.switch(outcome_after_s=seconds)
        mds.register(referral_id)
    # The slow outcome was written down before the quick ones, and becomes known after a reader has passed these.
    told: list[tuple[str, str]] = []

    def four_came() -> bool:
        nonlocal cursor
        page = mds.answers(cursor, 1)
        assert len(page.contrarreferencia) <= 1
        assert page.contrarreferencia or (page.cursor, page.hayMas) == (cursor, False)
        told.extend((item.idReferencia, item.evento) for item in page.contrarreferencia)
        cursor = page.cursor
        return len(told) == 4

    until(four_came)
    assert sorted(told) == sorted((who, event) for who in (slow, quick) for event in ("ACEPTADA", "RESULTADO"))


def test_mds_refuses_a_cursor_it_never_gave(mds: Mds) -> None:
    with pytest.raises(zeep.exceptions.Fault):
        mds.answers("ayer")


def test_mds_may_tell_an_answer_twice(mds: Mds) -> None:
    referral_id = with_fate("mds", "ACEPTADA", "RESULTADO")
    mds.register(referral_id)
    mds.simulator.switch(duplicate=1)
    told = Counter(item.idMensaje for item in mds.about(referral_id))
    assert sorted(told.values()) == [2, 2]


def test_mds_cut_after_the_effect_has_the_referral_once(mds: Mds) -> None:
    referral_id = str(uuid4())
    mds.simulator.switch(after_effect_reset=1)
    mds.answers()  # a question has no effect, so it does not use the switch up
    with pytest.raises(requests.ConnectionError):
        mds.register(referral_id)
    assert mds.simulator.ledger()["received"][referral_id] == 1
    assert mds.register(referral_id).codigo == 1
    assert mds.simulator.ledger()["received"][referral_id] == 1


def test_mds_cut_before_the_effect_has_nothing(mds: Mds) -> None:
    referral_id = str(uuid4())
    mds.simulator.switch(reset=1)
    with pytest.raises(requests.RequestException):
        mds.register(referral_id)
    assert referral_id not in mds.simulator.ledger()["received"]


def test_mds_killed_and_restarted_knows_what_it_took_and_told(tmp_path: Path, session: requests.Session) -> None:
    state = str(tmp_path / "mds.sqlite")
    first = Mds(Simulator("mds", "--state", state), session)
    first.simulator.switch(**{**QUIET, "outcome_after_s": 0.2})
    referral_id = with_fate("mds", "ACEPTADA", "RESULTADO")
    number = first.register(referral_id).numeroExpediente
    told = first.answers()
    first.simulator.kill()
    second = Mds(Simulator("mds", "--state", state), session)
    assert second.simulator.ledger()["received"] == {referral_id: 1}
    again = second.register(referral_id)
    assert (again.codigo, again.numeroExpediente) == (1, number)
    assert second.about(referral_id)[0].idMensaje == told.contrarreferencia[0].idMensaje
    later = until(lambda: second.answers(told.cursor).contrarreferencia)
    assert [item.evento for item in later] == ["RESULTADO"]
    second.simulator.kill()
