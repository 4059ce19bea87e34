"""The simulated institutions that answer questions: each in its own form, all with the same facts about people."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import requests
import zeep
from lxml import etree
from test_simulator import PASSWORD, WSDL, Simulator

from adapters.simulator.dossier import archive
from adapters.simulator.pension_cases import CASES
from adapters.simulator.records import Dossier

REGISTERS = (
    "registro-civil", "ips", "mds-beneficios", "senadis", "indi", "migraciones", "mec", "mspbs-salud", "minna-abrazo",
    "mtess", "sfp-persona",
)  # fmt: skip
NAMED = {case.name: case.person for case in CASES}
EVERYBODY = archive(300, 1)
STRANGER = "29900099"
ACT = "{http://registrocivil.gov.py/actas/1}"
BASIC = ("siis", PASSWORD)
Find = Callable[[str], Simulator]


@pytest.fixture(scope="module")
def institution() -> Iterator[Find]:
    running: dict[str, Simulator] = {}

    def find(name: str) -> Simulator:
        return running.setdefault(name, running.get(name) or Simulator(name))

    yield find
    assert {name: simulator.stop() for name, simulator in running.items()} == dict.fromkeys(running, (0, b"", b""))


@pytest.fixture
def soap_client() -> Iterator[Callable[[Simulator, str], Any]]:
    with requests.Session() as session:
        session.trust_env = False
        session.auth = BASIC

        def connect(simulator: Simulator, path: str) -> Any:
            return zeep.Client(f"{simulator.address}{path}?wsdl", transport=zeep.Transport(session=session)).service

        yield connect


def cedula(name: str) -> str:
    return NAMED[name].cedula or ""


def somebody(wanted: Callable[[Dossier], Any]) -> tuple[str, Dossier]:
    """Somebody drawn, not named, whose dossier has what is wanted."""
    named = {person.cedula for person in NAMED.values()}
    return next((number, item) for number, item in EVERYBODY.items() if number not in named and wanted(item))


# Registro Civil -----------------------------------------------------------------------------------


def granted(simulator: Simulator, **form: str) -> httpx.Response:
    return simulator.http.post("/oauth2/token", data={"grant_type": "client_credentials", **form}, auth=BASIC)


def record(simulator: Simulator, kind: str, number: str) -> etree._Element:
    token = granted(simulator).json()["access_token"]
    answer = simulator.http.get(f"/api/actas/{kind}/{number}", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/xml; charset=utf-8"
    return etree.fromstring(answer.content)


def test_the_civil_registry_grants_tokens_to_its_client_only(institution: Find) -> None:
    rec = institution("registro-civil")
    assert set(granted(rec).json()) == {"access_token", "token_type", "expires_in"}
    refused = rec.http.post("/oauth2/token", data={"grant_type": "client_credentials"}, auth=("siis", "x"))
    assert (refused.status_code, refused.json()) == (401, {"error": "invalid_client"})
    assert refused.headers["www-authenticate"].startswith("Basic ")
    assert granted(rec, grant_type="password").json() == {"error": "unsupported_grant_type"}
    assert rec.http.get("/api/actas/nacimiento/1").status_code == 401


def test_a_client_secret_is_form_encoded_inside_the_basic_credentials() -> None:
    rec = Simulator("registro-civil", SIIS_SIM_PASSWORD="clave ñ+")
    form = {"grant_type": "client_credentials"}
    statuses = [
        rec.http.post("/oauth2/token", data=form, headers={"authorization": f"Basic {encoded}"}).status_code
        for encoded in (
            base64.b64encode(login.encode()).decode() for login in ("siis:clave ñ+", "siis:clave+%C3%B1%2B")
        )
    ]
    rec.kill()
    assert statuses == [401, 200]


def test_a_token_of_the_civil_registry_ends(institution: Find) -> None:
    rec = institution("registro-civil")
    token = granted(rec).json()["access_token"]
    rec.switch(token_life_s=0)
    answer = rec.http.get("/api/actas/nacimiento/1", headers={"authorization": f"Bearer {token}"})
    rec.switch(token_life_s=3600)
    assert answer.status_code == 401


def test_a_birth_record_is_the_one_behind_the_identity_card(institution: Find, soap_client: Any) -> None:
    number, _ = somebody(lambda item: item.person.nationality == "PRY")
    birth = record(institution("registro-civil"), "nacimiento", number)
    card = soap_client(institution("identificaciones-soap"), "/PersonaWS").findPersonaByCedula(nroCedula=number)
    assert birth.findtext(f"{ACT}acta/{ACT}numero") == card.icActa
    assert birth.findtext(f"{ACT}acta/{ACT}inscripto/{ACT}fechaNacimiento") == card.fechNacim.date().isoformat()
    person = birth.find(f"{ACT}acta/{ACT}inscripto")
    assert person is not None
    assert person.get("cedula") == number


def test_the_birth_record_may_have_another_day_than_the_card(institution: Find) -> None:
    birth = record(institution("registro-civil"), "nacimiento", cedula("birth-dates-differ"))
    assert birth.findtext(f"{ACT}acta/{ACT}inscripto/{ACT}fechaNacimiento") == "1966-05-10"
    assert NAMED["birth-dates-differ"].birth_date.isoformat() == "1961-05-10"


@pytest.mark.parametrize(
    ("kind", "number", "code"),
    [
        ("defuncion", cedula("dead-on-roll"), "0"),
        ("defuncion", cedula("alive-on-roll"), "4"),
        ("nacimiento", cedula("foreigner-30-years"), "4"),
        ("nacimiento", cedula("naturalised-14-years"), "4"),
        ("nacimiento", STRANGER, "4"),
        ("nacimiento", "1.234", "9"),
    ],
)
def test_the_civil_registry_says_by_a_code_how_it_went(institution: Find, kind: str, number: str, code: str) -> None:
    answer = record(institution("registro-civil"), kind, number)
    assert answer.findtext(f"{ACT}codigo") == code
    assert (answer.find(f"{ACT}acta") is not None) == (code == "0")


# SOAP ---------------------------------------------------------------------------------------------


def test_ips_answers_in_soap_12_what_its_page_shows(institution: Find, soap_client: Any) -> None:
    service = soap_client(institution("ips"), "/AseguradosWS")
    insured = service.consultarAsegurado(nroCic=cedula("insured-contributing")).asegurado
    assert (insured.tipoAseg, insured.enrolado, insured.vencimientoFeDeVida) == ("TITULAR", "SI", "No tiene")
    [employer] = insured.empleador
    assert (employer.ultimoPeriodoAbonado, employer.estado, employer.mesesDeAporte) == ("OCTUBRE/2026", "ACTIVO", 285)
    once = service.consultarAsegurado(nroCic=cedula("insured-once")).asegurado
    assert (once.enrolado, once.empleador[0].ultimoPeriodoAbonado) == ("NO", "JUNIO/2017")
    retired = service.consultarAsegurado(nroCic=cedula("other-pension")).asegurado
    assert (retired.tipoAseg, retired.empleador, retired.vencimientoFeDeVida) == ("JUBILADO", [], "31/01/2027")
    assert [service.consultarAsegurado(nroCic=number).codigo for number in (STRANGER, "1.234")] == [1, 2]


@pytest.mark.parametrize("body", [b"", b"<a/>", b'<S:Envelope xmlns:S="http://schemas.xmlsoap.org/soap/envelope/"/>'])
def test_ips_answers_a_fault_of_soap_12_to_what_is_no_call(institution: Find, body: bytes) -> None:
    answer = institution("ips").http.post("/AseguradosWS", content=body, auth=BASIC)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/soap+xml; charset=utf-8"
    assert b"http://www.w3.org/2003/05/soap-envelope" in answer.content
    assert b"Value>S:Sender<" in answer.content


def test_mds_knows_who_is_on_which_roll(institution: Find, soap_client: Any) -> None:
    service = soap_client(institution("mds-beneficios"), "/BeneficiosWS")
    dead = service.consultarPension(cedula=cedula("dead-on-roll"))
    assert (dead.figura, dead.beneficiario.estado, dead.beneficiario.ultimoPago) == (True, "ACTIVO", "10/2026")
    number, _ = somebody(lambda item: item.tekopora)
    assert service.consultarTekopora(cedula=number).beneficiario.hogar.startswith("H")
    assert service.consultarTekopora(cedula=cedula("dead-on-roll")).figura is False
    with pytest.raises(zeep.exceptions.Fault) as caught:
        service.consultarPension(cedula="1.234")
    assert etree.QName(caught.value.detail[0]).localname == "CedulaNoValida"


@pytest.mark.parametrize(
    ("name", "service"),
    [("ips", "AseguradosWS"), ("mds-beneficios", "BeneficiosWS"), ("sfp-persona", "DatosPersonaWS")],
)
def test_the_served_wsdl_is_the_one_kept_for_the_adapter(institution: Find, name: str, service: str) -> None:
    served = institution(name).http.get(f"/{service}?wsdl", auth=BASIC).text
    kept = (WSDL / f"{service}.wsdl").read_text(encoding="utf-8")
    assert served == kept.replace("http://localhost/", f"{institution(name).address}/")


# SENADIS ------------------------------------------------------------------------------------------

HOLDER, FORGER = NAMED["60-severe-certificate"], NAMED["60-certificate-of-another"]


def verify(simulator: Simulator, number: str, cedula: str | None, given: str, surnames: str) -> dict[str, Any]:
    asked = {"numero": number, "cedula": cedula, "nombres": given, "apellidos": surnames}
    headers = {"authorization": f"Bearer {PASSWORD}"}
    answer = simulator.http.post("/api/certificados/verificar", json=asked, headers=headers)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_a_certificate_is_its_holders(institution: Find) -> None:
    found = verify(institution("senadis"), "2024-000117", HOLDER.cedula, "porfirio", "CABRERA  NOGUERA")
    assert (found["resultado"], found["coincide"]) == ("VERIFICADO", True)
    assert (found["certificado"]["grado"], found["certificado"]["fechaVencimiento"]) == ("SEVERO", "2029-05-06")


@pytest.mark.parametrize(
    ("number", "cedula", "given", "surnames", "result"),
    [
        ("2024-000117", FORGER.cedula, FORGER.given_names, FORGER.surnames, "NO_COINCIDE"),
        ("2024-000117", HOLDER.cedula, FORGER.given_names, FORGER.surnames, "NO_COINCIDE"),
        ("2024-000117", FORGER.cedula, HOLDER.given_names, HOLDER.surnames, "NO_COINCIDE"),
        ("2024-999999", HOLDER.cedula, HOLDER.given_names, HOLDER.surnames, "SIN_CERTIFICADO"),
    ],
)
def test_a_guess_learns_nothing_of_a_certificate(
    institution: Find, number: str, cedula: str, given: str, surnames: str, result: str
) -> None:
    found = verify(institution("senadis"), number, cedula, given, surnames)
    assert found["resultado"] == result
    assert "certificado" not in found
    assert found["solicitud"] == {"numero": number, "cedula": cedula}


def test_senadis_wants_all_four_and_its_token(institution: Find) -> None:
    senadis, path = institution("senadis"), "/api/certificados/verificar"
    headers = {"authorization": f"Bearer {PASSWORD}"}
    assert senadis.http.post(path, json={"numero": "1", "cedula": "1"}, headers=headers).status_code == 422
    assert senadis.http.post(path, json={}).status_code == 401


# JSON in many forms -------------------------------------------------------------------------------


def test_indi_says_whether_the_community_is_registered(institution: Find) -> None:
    def members(number: str, key: str = PASSWORD) -> httpx.Response:
        return institution("indi").http.get("/api/miembros", params={"documento": number, "clave": key})

    [member] = members(cedula("55-indigenous-registered")).json()["miembros"]
    assert (member["comunidad"]["inscripta"], member["comunidad"]["registro"]) == ("SI", "INDI-0002")
    [member] = members(cedula("55-indigenous-not-registered")).json()["miembros"]
    assert (member["comunidad"]["inscripta"], member["comunidad"]["registro"]) == ("NO", None)
    assert members(STRANGER).json() == {"cantidad": 0, "miembros": []}
    assert members(STRANGER, "x").status_code == 403


def test_migraciones_answers_the_fields_that_are_published(institution: Find) -> None:
    dgm = institution("migraciones")
    token = dgm.http.post("/security", json={"username": "siis", "password": PASSWORD}).json()["token"]

    def residents(number: str) -> dict[str, Any]:
        path = f"/migraciones/api/movimientos/obtenerRadicadosPorNroDocumento/{number}"
        answer = dgm.http.get(path, headers={"authorization": f"Bearer {token}"}).json()
        found: dict[str, Any] = answer["ObtenerRadicadosPorNroDocumentoResponse"]["respuestaRadicados"]
        return found

    found = residents(cedula("foreigner-30-years"))
    assert (found["codigo"], len(found["radicados"])) == (0, 1)
    assert list(found["radicados"][0]) == [
        "idc", "referencia", "libro", "nro_registro", "secuencia", "nro_resol1", "fecha_resol1", "fecha_inscripcion",
        "nro_expediente", "idLibro", "fecha", "fecha_resol", "nombres", "apellidos", "alsoname", "fecha_nac",
        "lugar_nac",
    ]  # fmt: skip
    assert found["radicados"][0]["fecha_inscripcion"] == "05/03/1990"
    assert residents(cedula("65-clear")) == {"codigo": 1, "mensaje": "No se encontraron radicados", "radicados": []}


def test_mec_says_by_a_404_that_a_pupil_is_not_enrolled(institution: Find) -> None:
    def enrolled(number: str) -> httpx.Response:
        return institution("mec").http.get(f"/api/rue/alumnos/{number}/matriculas", auth=BASIC)

    number, item = somebody(lambda item: item.enrolment)
    found = enrolled(number).json()
    assert found["alumno"]["nro_documento"] == number
    assert item.enrolment is not None
    assert found["matriculas"][0]["grado"] == item.enrolment.grade
    nobody = enrolled(STRANGER)
    assert (nobody.status_code, nobody.json()["codigo"]) == (404, "SIN_MATRICULA")


def test_the_health_history_comes_in_pages(institution: Find) -> None:
    def page(path: str, **query: str) -> dict[str, Any]:
        answer = institution("mspbs-salud").http.get(path, params=query, headers={"x-api-key": PASSWORD})
        found: dict[str, Any] = answer.json()
        return found

    number, item = somebody(lambda item: len(item.checks) > 10)
    pages = [page(f"/api/pacientes/{number}/controles", pagina=str(turn))["controles"] for turn in (1, 2, 3, 4)]
    assert [check["fecha"] for some in pages for check in some] == [check.on.isoformat() for check in item.checks]
    assert pages[3] == []
    number, item = somebody(lambda item: len(item.doses) > 5)
    first = page(f"/api/pacientes/{number}/vacunas")
    second = page(f"/api/pacientes/{number}/vacunas", desde=first["siguiente"])
    assert (len(first["dosis"]) + len(second["dosis"]), second["siguiente"]) == (len(item.doses), None)
    assert page(f"/api/pacientes/{STRANGER}/vacunas")["dosis"] == []


def test_abrazo_is_asked_by_a_form(institution: Find) -> None:
    def participant(number: str) -> dict[str, Any]:
        answer = institution("minna-abrazo").http.post(
            "/abrazo/participantes", data={"nro_documento": number}, auth=BASIC
        )
        found: dict[str, Any] = answer.json()
        return found

    number, item = somebody(lambda item: item.abrazo)
    assert item.abrazo is not None
    assert participant(number)["participante"]["cuotas"] == item.abrazo.instalments
    assert [participant(asked)["codigo"] for asked in (number, STRANGER, "")] == ["00", "01", "10"]


def test_mtess_knows_the_employer_ips_knows(institution: Find, soap_client: Any) -> None:
    def jobs(number: str) -> dict[str, Any]:
        answer = institution("mtess").http.get(f"/api-al/empleos/{number}", headers={"x-api-key": PASSWORD})
        found: dict[str, Any] = answer.json()
        return found

    number = cedula("insured-contributing")
    found = jobs(number)
    insured = soap_client(institution("ips"), "/AseguradosWS").consultarAsegurado(nroCic=number).asegurado
    assert found["cedula"] == int(number)
    assert found["empleos"][0]["nroPatronal"] == insured.empleador[0].nroPatronal
    assert (jobs(STRANGER)["error"], jobs(STRANGER)["empleos"]) == (False, [])
    assert jobs("1.234")["error"] is True


@pytest.mark.parametrize("name", REGISTERS)
def test_without_credentials_nothing_is_told(institution: Find, name: str) -> None:
    paths = {
        "registro-civil": "/api/actas/defuncion/29900016",
        "ips": "/AseguradosWS?wsdl",
        "mds-beneficios": "/BeneficiosWS?wsdl",
        "indi": "/api/miembros?documento=29900006",
        "migraciones": "/migraciones/api/movimientos/obtenerRadicadosPorNroDocumento/29900008",
        "mec": "/api/rue/alumnos/29900001/matriculas",
        "mspbs-salud": "/api/pacientes/29900001/controles",
        "mtess": "/api-al/empleos/29900014",
        "sfp-persona": "/DatosPersonaWS?wsdl",
    }
    http = institution(name).http
    posts = {"senadis": "/api/certificados/verificar", "minna-abrazo": "/abrazo/participantes"}
    answer = http.post(posts[name]) if name in posts else http.get(paths[name])
    assert answer.status_code in (401, 403)
    assert b"29900" not in answer.content


# The facade --------------------------------------------------------------------------------------


def test_the_facade_of_sfp_says_where_the_data_come_from(institution: Find, soap_client: Any) -> None:
    service = soap_client(institution("sfp-persona"), "/DatosPersonaWS")
    servant, citizen = (service.obtenerDatosPersona(nroCedula=cedula(name)) for name in ("on-payroll", "65-clear"))
    assert (servant.estado, servant.origenDatos) == (0, "BDSFP")
    assert (citizen.estado, citizen.origenDatos) == (0, "BDIdentificaciones")
    assert citizen.persona.fechaNacimiento == "1955-03-14 00:00:00"
    assert (citizen.persona.nombre, citizen.persona.apellido) == ("Ramona Élida", "Zárate Ojeda")
    assert [service.obtenerDatosPersona(nroCedula=number).estado for number in (STRANGER, "1.234")] == [1, 98]


def test_the_copy_of_sfp_pads_numbers_to_seven_digits(soap_client: Any) -> None:
    sfp = Simulator("sfp-persona", "--persons", "6000")
    service = soap_client(sfp, "/DatosPersonaWS")
    number = next(number for number, item in archive(6000, 1).items() if item.post and len(number) < 7)
    found = service.obtenerDatosPersona(nroCedula=number)
    sfp.kill()
    assert (found.origenDatos, found.persona.nroDocumento) == ("BDSFP", number.zfill(7))
