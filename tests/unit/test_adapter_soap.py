"""The SOAP kind: requests by the WSDL, answers held to it element by element, faults told apart, hostile XML."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from adapter_examples import CEDULA, REFERRAL, connect, fetch, poll, send
from lxml import etree

from adapters.models import AlreadyTaken, Found, Malformed, NotFound, Page, Rejected, RejectedRow, Taken, Unavailable
from adapters.soap.message import SOAP_11, Fault, content_of, open_envelope

BASE = "http://127.0.0.1:9"
S = "http://schemas.xmlsoap.org/soap/envelope/"
S12 = "http://www.w3.org/2003/05/soap-envelope"
PERSONS = "http://identificaciones.ws.sii.senatics.gov.py/"
MDS = "http://derivaciones.ws.mds.gov.py/"
RECORD = (
    "<apellido>NÚÑEZ</apellido><cedula>4123456</cedula><fechNacim>1980-02-29T00:00:00-04:00</fechNacim>"
    "<icActa>12</icActa><icFeccar>01/03/1980</icFeccar><nombres>MARÍA</nombres><sexo>F</sexo>"
)


def envelope(content: str, soap: str = S) -> str:
    return f'<S:Envelope xmlns:S="{soap}"><S:Header/><S:Body>{content}</S:Body></S:Envelope>'


def person(record: str = RECORD, namespace: str = PERSONS) -> str:
    name = "n:findPersonaByCedulaResponse"
    return envelope(f'<{name} xmlns:n="{namespace}"><return>{record}</return></{name}>')


def fault(code: str, text: str, detail: str = "") -> str:
    found = f"<detail>{detail}</detail>" if detail else ""
    return envelope(f"<S:Fault><faultcode>{code}</faultcode><faultstring>{text}</faultstring>{found}</S:Fault>")


def xml(content: str | bytes, status: int = 200, media: str = "text/xml; charset=utf-8") -> httpx.Response:
    raw = content.encode() if isinstance(content, str) else content
    return httpx.Response(status, content=raw, headers={"content-type": media})


def transport(answer: httpx.Response, seen: list[httpx.Request] | None = None) -> httpx.MockTransport:
    def handle(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        return answer

    return httpx.MockTransport(handle)


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., Any]:
    async def asked(answer: httpx.Response, dataset: str = "birth-entry") -> Any:
        adapter = connect(tmp_path, "identificaciones-soap", BASE, transport=transport(answer))
        return await fetch(adapter, dataset)

    return asked


async def test_a_request_is_the_operation_of_the_wsdl_with_basic_credentials(tmp_path: Path) -> None:
    seen: list[httpx.Request] = []
    adapter = connect(tmp_path, "identificaciones-soap", BASE, transport=transport(xml(person()), seen))
    assert isinstance(await fetch(adapter), Found)
    [request] = seen
    assert str(request.url) == f"{BASE}/PersonaWS"
    assert request.headers["authorization"] == "Basic c2lpczpjbGF2ZS3DsQ=="
    assert (request.headers["soapaction"], request.headers["content-type"]) == ('""', "text/xml; charset=utf-8")
    body = etree.fromstring(request.content)
    assert body.findtext(f"{{{S}}}Body/{{{PERSONS}}}findPersonaByCedula/nroCedula") == CEDULA.value


async def test_the_birth_entry_and_the_identity_are_read_from_the_same_operation(ask: Callable[..., Any]) -> None:
    entry = await ask(xml(person()))
    assert isinstance(entry, Found)
    assert entry.facts == {
        "cedula": "4123456",
        "given_names": "MARÍA",
        "surnames": "NÚÑEZ",
        "birth_date": "1980-02-29",
        "entry_act": "12",
        "entry_date": "1980-03-01",
    }
    identity = await ask(xml(person()), "identity")
    assert isinstance(identity, Found)
    assert (identity.facts["sex"], identity.raw_codes) == ("F", {"sex": "F"})


async def test_a_text_in_error_is_not_found_or_a_refusal(ask: Callable[..., Any]) -> None:
    assert isinstance(await ask(xml(person("<error>Persona no encontrada.</error>"))), NotFound)
    refused = await ask(xml(person("<error>Consulta no autorizada</error>")))
    assert isinstance(refused, Rejected)
    assert (refused.code, refused.reason) == ("error", "Consulta no autorizada")


DECLARED = "n:RegistroIdentificacionesException"
DETAIL = f'<{DECLARED} xmlns:n="{PERSONS}"><codigoError>C-7</codigoError></{DECLARED}>'
FAULTS = {
    "declared, rejected": (fault("S:Server", "x", DETAIL), 500, Rejected, "C-7"),
    "declared, inside a 200": (fault("S:Server", "x", DETAIL), 200, Rejected, "C-7"),
    "declared, under 400": (fault("S:Client", "x", DETAIL), 400, Rejected, "C-7"),
    "declared, empty": (fault("S:Server", "x", f'<ServiceException xmlns="{PERSONS}"/>'), 500, Unavailable, None),
    "server, undeclared": (fault("S:Server", "java.lang.NullPointerException"), 500, Unavailable, None),
    "client, undeclared": (fault("S:Client", "Cannot find dispatch method"), 500, Malformed, None),
    "without anything": (envelope("<S:Fault/>"), 500, Malformed, None),
    "SOAP 1.2": (
        envelope(
            "<S:Fault><S:Code><S:Value>S:Receiver</S:Value></S:Code><S:Reason><S:Text>x</S:Text></S:Reason></S:Fault>",
            S12,
        ),
        500,
        Unavailable,
        None,
    ),
    "SOAP 1.2, declared": (
        envelope(f"<S:Fault><S:Code><S:Value>S:Sender</S:Value></S:Code><S:Detail>{DETAIL}</S:Detail></S:Fault>", S12),
        400,
        Rejected,
        "C-7",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
async def test_a_fault_is_told_apart_by_its_detail_and_code(ask: Callable[..., Any], case: str) -> None:
    content, status, kind, code = FAULTS[case]
    outcome = await ask(xml(content, status))
    assert isinstance(outcome, kind)
    assert getattr(outcome, "code", None) == code


TWO = "<codigo> 7 </codigo><datos><tipo>A</tipo><tipo>B</tipo></datos>"
FAULT_12 = (
    "<S:Fault><S:Code><S:Value>S:Receiver</S:Value><S:Subcode><S:Value>m:Base</S:Value><S:Subcode><S:Value>m:Caida"
    '</S:Value></S:Subcode></S:Subcode></S:Code><S:Reason><S:Text xml:lang="en">Down</S:Text>'
    '<S:Text xml:lang="es-PY">Caída</S:Text></S:Reason>'
    '<S:Detail><m:limite xmlns:m="u:m">5</m:limite></S:Detail></S:Fault>'
)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            fault("S:Server", "x", DETAIL),
            Fault("Server", "x", "RegistroIdentificacionesException", {"codigoError": "C-7"}),
        ),
        (fault("S:Server", "x", TWO), Fault("Server", "x", "codigo", {"codigo": "7", "datos": {"tipo": ["A", "B"]}})),
        (fault("S:Client", "x"), Fault("Client", "x")),
        (envelope(FAULT_12, S12), Fault("Receiver", "Caída", "limite", "5", "Caida")),
        # As some write it: the members of SOAP 1.2 in an envelope of 1.1, without a namespace.
        (
            envelope(FAULT_12.replace("S:", "").replace("Fault>", "S:Fault>")),
            Fault("Receiver", "Caída", "limite", "5", "Caida"),
        ),
    ],
)
def test_a_fault_keeps_code_reason_and_detail(content: str, expected: Fault) -> None:
    assert content_of(open_envelope(content.encode(), "text/xml"), SOAP_11) == expected


async def test_a_rule_knows_a_fault_by_its_detail_or_its_code_and_reads_what_is_deep_in_it(tmp_path: Path) -> None:
    deep = f'<e:Error xmlns:e="{PERSONS}"><e:causa><e:codigo>9</e:codigo></e:causa></e:Error>'
    rules = {"{is: unavailable, fault: ServiceException}": "{is: rejected, fault: Error, code: detail.causa.codigo}"}
    adapter = connect(
        tmp_path, "identificaciones-soap", BASE, transport=transport(xml(fault("S:Server", "x", deep))), changes=rules
    )
    outcome = await fetch(adapter)
    assert isinstance(outcome, Rejected)
    assert outcome.code == "9"
    rules = {"{is: unavailable, fault: ServiceException}": "{is: not-found, fault: SinDatos}"}
    adapter = connect(
        tmp_path, "identificaciones-soap", BASE, transport=transport(xml(fault("n:SinDatos", "x"), 500)), changes=rules
    )
    assert isinstance(await fetch(adapter), NotFound)


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
FILE_ENTITY = '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>'
MALFORMED = {
    "html": xml("<html><body>Mantenimiento</body></html>", media="text/html"),
    "html that is no xml": xml("<html><br><p>Mantenimiento", media="text/html"),
    "plain text": xml("Servicio no disponible", media="text/plain"),
    "empty": xml(""),
    "202 without body": xml("", status=202),
    "truncated": xml(person()[:-40]),
    "doctype": xml("<!DOCTYPE x>" + person()),
    "doctype of elsewhere": xml('<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd">' + person()),
    "entities": xml(BOMB + person(RECORD.replace("MARÍA", "&b;"))),
    "file entity": xml(FILE_ENTITY + person(RECORD.replace("MARÍA", "&f;"))),
    "doctype in utf-16": xml(("<!DOCTYPE x>" + person()).encode("utf-16")),
    "deep": xml("<a>" * 5000),
    "empty body": xml(envelope("")),
    "no body": xml(f'<S:Envelope xmlns:S="{S}"/>'),
    "two elements in the body": xml(envelope("<a/><b/>")),
    "another envelope": xml(person().replace(S, "http://schemas.example/envelope/")),
    "SOAP 1.2": xml(person().replace(S, S12)),
    "another namespace": xml(person(namespace="http://identificaciones.example/")),
    "another element": xml(envelope(f'<n:otherResponse xmlns:n="{PERSONS}"/>')),
    "an element more": xml(person(RECORD + "<huella>x</huella>")),
    "another order": xml(person("<nombres>MARÍA</nombres><apellido>NÚÑEZ</apellido><cedula>4123456</cedula>")),
    "repeated": xml(person(RECORD.replace("<nombres>", "<nombres>A</nombres><nombres>"))),
    "elements in a text": xml(person(RECORD.replace("MARÍA", "<b>MARÍA</b>"))),
    "required missing": xml(person(RECORD.replace("<nombres>MARÍA</nombres>", ""))),
    "no return": xml(envelope(f'<n:findPersonaByCedulaResponse xmlns:n="{PERSONS}"/>')),
    "nil return": xml(
        envelope(
            f'<n:findPersonaByCedulaResponse xmlns:n="{PERSONS}" xmlns:i="http://www.w3.org/2001/XMLSchema-instance">'
            '<return i:nil="true"/></n:findPersonaByCedulaResponse>'
        )
    ),
    "31 February": xml(person(RECORD.replace("1980-02-29", "1980-02-31"))),
    "31/02 in the entry": xml(person(RECORD.replace("01/03/1980", "31/02/1980"))),
    "somebody else": xml(person(RECORD.replace("4123456", "4123457"))),
    "undeclared latin-1": xml(person().encode("latin-1"), media="text/xml"),
    "declared utf-8, is latin-1": xml(person().encode("latin-1")),
    "unknown charset": xml(person(), media="text/xml; charset=klingon"),
    "two charsets": xml('<?xml version="1.0" encoding="UTF-8"?>' + person(), media="text/xml; charset=iso-8859-1"),
    "control character": xml(person(RECORD.replace("MARÍA", "MAR\x15IA"))),
    "blank line before the declaration": xml('\n<?xml version="1.0"?>' + person()),
    "huge text": xml(person(RECORD.replace("MARÍA", "A" * 70000))),
    "redirect": httpx.Response(302, headers={"location": "https://elsewhere.example/"}),
    "wrong path": httpx.Response(404, html="<html>404</html>"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
async def test_what_is_not_the_contract_is_malformed(ask: Callable[..., Any], case: str) -> None:
    outcome = await ask(MALFORMED[case])
    assert isinstance(outcome, Malformed), outcome
    assert outcome.provenance.attempts == 1
    assert not any(text in outcome.reason for text in ("4123456", "MAR", "1980", "root:"))


@pytest.mark.parametrize(
    ("content", "media"),
    [
        ('<?xml version="1.0" encoding="ISO-8859-1"?>' + person(), "text/xml"),
        ('<?xml version="1.0" encoding="ISO-8859-1"?>' + person(), "text/xml; charset=iso-8859-1"),
        (person(), 'text/xml; charset="latin1"'),
        ('<?xml version="1.0" encoding="windows-1252" standalone="yes"?>' + person(), "text/xml"),
        ("<?xml version='1.0' encoding='utf-8'?>" + person(), "application/soap+xml;charset=UTF-8"),
        ("\ufeff" + person(), "text/xml; charset=iso-8859-1"),
        (person(), ""),
    ],
)
async def test_the_charset_is_the_one_declared(ask: Callable[..., Any], content: str, media: str) -> None:
    latin = "1252" in content or "8859" in content or "latin1" in media
    outcome = await ask(xml(content.encode("latin-1" if latin else "utf-8"), media=media))
    assert isinstance(outcome, Found), outcome
    assert (outcome.facts["surnames"], outcome.facts["given_names"]) == ("NÚÑEZ", "MARÍA")


async def test_utf_16_with_its_mark_is_read(ask: Callable[..., Any]) -> None:
    assert isinstance(await ask(xml(person().encode("utf-16"), media="text/xml")), Found)


async def test_charsets_that_disagree_matter_only_where_they_differ(ask: Callable[..., Any]) -> None:
    plain = RECORD.replace("NÚÑEZ", "NUNEZ").replace("MARÍA", "MARIA")
    content = '<?xml version="1.0" encoding="UTF-8"?>' + person(plain)
    assert isinstance(await ask(xml(content, media="text/xml; charset=iso-8859-1")), Found)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_web_page_under_an_error_is_a_server_in_trouble(ask: Callable[..., Any], status: int) -> None:
    outcome = await ask(xml("<html><body>503</body></html>", status, "text/html"))
    assert isinstance(outcome, Unavailable)
    assert (outcome.reason, outcome.provenance.attempts) == (f"http {status}", 3)


async def test_our_own_credentials_refused_are_no_answer(ask: Callable[..., Any]) -> None:
    outcome = await ask(xml("<html/>", 401, "text/html"))
    assert isinstance(outcome, Unavailable)
    assert outcome.reason == "http 401: credentials refused"


async def test_comments_and_instructions_do_not_cut_a_value(ask: Callable[..., Any]) -> None:
    outcome = await ask(xml(person(RECORD.replace("NÚÑEZ", "NÚ<!-- x -->ÑEZ").replace("MARÍA", "MAR<?x y?>ÍA"))))
    assert isinstance(outcome, Found)
    assert (outcome.facts["surnames"], outcome.facts["given_names"]) == ("NÚÑEZ", "MARÍA")


def receipt(code: str, number: str = "MDS-1") -> httpx.Response:
    return xml(
        envelope(
            f'<registrarDerivacionResponse xmlns="{MDS}"><codigo>{code}</codigo><mensaje>falta motivo</mensaje>'
            f"<numeroExpediente>{number}</numeroExpediente></registrarDerivacionResponse>"
        )
    )


async def test_a_referral_is_registered_by_the_wsdl(tmp_path: Path) -> None:
    seen: list[httpx.Request] = []
    outcome = await send(connect(tmp_path, "mds", BASE, transport=transport(receipt("0"), seen)))
    assert isinstance(outcome, Taken)
    assert outcome.reference == "MDS-1"
    [request] = seen
    assert request.headers["soapaction"] == f'"{MDS}registrarDerivacion"'
    call = etree.fromstring(request.content)[0][0]
    assert etree.QName(call) == etree.QName(MDS, "registrarDerivacion")
    assert {etree.QName(child).localname: child.text for child in call} == {
        "idReferencia": str(REFERRAL),
        "servicio": "tekopora",
        "institucionOrigen": "UTGS",
        "cedula": CEDULA.value,
        "otroDocumento": "X1",
        "nombres": "Ñasaindy",
        "apellidos": "Agüero Yvyra'i",
        "fechaNacimiento": "2015-05-01",
        "sexo": "F",
        "departamento": "11",
        "distrito": "1116",
        "motivo": "protection-gap",
        "detalleMotivo": "Sin el servicio",
        "prioridad": "routine",
        "fechaEmision": "2026-11-22T10:00:00Z",
        "fechaLimite": "2026-12-22",
    }


async def test_text_stays_text_whatever_it_looks_like(tmp_path: Path) -> None:
    seen: list[httpx.Request] = []
    adapter = connect(tmp_path, "mds", BASE, transport=transport(receipt("0"), seen))
    await send(adapter, reason_text="</detalleMotivo><x>&amp; \x00 ]]>")
    call = etree.fromstring(seen[0].content)[0][0]
    assert call.findtext(f"{{{MDS}}}detalleMotivo") == "</detalleMotivo><x>&amp;  ]]>"


@pytest.mark.parametrize(
    ("answer", "kind", "unknown"),
    [
        (receipt("1"), AlreadyTaken, None),
        (receipt("2"), Rejected, None),
        (receipt("3"), Malformed, True),
        (receipt(""), Malformed, True),
        (receipt("uno"), Malformed, True),
        (receipt("99999999999999999999999"), Malformed, True),
        (xml("<html/>"), Malformed, True),
        (xml(fault("S:Client", "x"), 500), Malformed, False),
        (xml(fault("S:Server", "x"), 500), Unavailable, True),
        (xml("", 503), Unavailable, True),
        (xml("", 401), Unavailable, False),
        (xml("", 404), Malformed, False),
    ],
)
async def test_an_answer_to_a_referral_says_whether_it_may_have_had_its_effect(
    tmp_path: Path, answer: httpx.Response, kind: type, unknown: bool | None
) -> None:
    outcome = await send(connect(tmp_path, "mds", BASE, transport=transport(answer)))
    assert isinstance(outcome, kind)
    assert getattr(outcome, "effect_unknown", None) is unknown
    if isinstance(outcome, Rejected):
        assert (outcome.code, outcome.reason) == ("2", "falta motivo")


async def test_a_referral_without_names_is_rejected_unsent(tmp_path: Path) -> None:
    seen: list[httpx.Request] = []
    outcome = await send(connect(tmp_path, "mds", BASE, transport=transport(receipt("0"), seen)), surnames=" ")
    assert isinstance(outcome, Rejected)
    assert (outcome.code, outcome.reason, seen) == ("incomplete-message", "apellidos: missing", [])


ITEM = (
    f"<idMensaje>M-1</idMensaje><idReferencia>{str(REFERRAL).upper()}</idReferencia><evento>RECHAZADA</evento>"
    "<fecha>2026-11-23</fecha><motivo>SIN_CUPO</motivo><detalle>Sin  cupo\nen el año</detalle>"
)


def page(*items: str, cursor: str = "00000002", more: str = "1") -> str:
    found = "".join(f"<contrarreferencia>{item}</contrarreferencia>" for item in items)
    return envelope(
        f'<consultarContrarreferenciasResponse xmlns="{MDS}">{found}<cursor>{cursor}</cursor><hayMas>{more}</hayMas>'
        "</consultarContrarreferenciasResponse>"
    )


async def test_replies_come_in_our_codes_with_the_raw_ones_kept(tmp_path: Path) -> None:
    seen: list[httpx.Request] = []
    outcome = await poll(connect(tmp_path, "mds", BASE, transport=transport(xml(page(ITEM)), seen)), "00000001")
    assert isinstance(outcome, Page)
    assert (outcome.cursor, outcome.more, outcome.rejects) == ("00000002", True, ())
    [reply] = outcome.items
    assert (reply.referral_id, reply.message_id, reply.event) == (REFERRAL, "M-1", "decline")
    assert (reply.occurred_on.isoformat(), reply.reason_code) == ("2026-11-23", "no-capacity")
    assert reply.reason_text == "Sin cupo en el año"
    assert reply.outcome is reply.place is reply.appointment_at is None
    assert reply.raw_codes == {"event": "RECHAZADA", "reason_code": "SIN_CUPO"}
    call = etree.fromstring(seen[0].content)[0][0]
    assert {etree.QName(child).localname: child.text for child in call} == {"desde": "00000001", "maximo": "100"}


async def test_an_empty_page_is_a_page(tmp_path: Path) -> None:
    outcome = await poll(connect(tmp_path, "mds", BASE, transport=transport(xml(page(more="false")))))
    assert isinstance(outcome, Page)
    assert (outcome.items, outcome.rejects, outcome.more) == ((), (), False)


@pytest.mark.parametrize(
    ("old", "new", "column", "what"),
    [
        ("2026-11-23", "2026-02-31", "occurred_on", "no such day in the calendar"),
        ("RECHAZADA", "ARCHIVADA", "event", "unknown code"),
        ("SIN_CUPO", "PORQUE_SI", "reason_code", "unknown code"),
        (str(REFERRAL).upper(), "17", "referral_id", "not a UUID"),
        ("<idMensaje>M-1<", "<idMensaje> <", "message_id", "missing"),
    ],
)
async def test_an_item_that_cannot_be_read_is_named_and_stops_nothing(
    tmp_path: Path, old: str, new: str, column: str, what: str
) -> None:
    answer = xml(page(ITEM, ITEM.replace(old, new), ITEM))
    outcome = await poll(connect(tmp_path, "mds", BASE, transport=transport(answer)))
    assert isinstance(outcome, Page)
    assert len(outcome.items) == 2
    assert outcome.rejects == (RejectedRow(2, column, what),)


@pytest.mark.parametrize(
    "content",
    [
        page(ITEM, more="quizás"),
        page(ITEM).replace("<cursor>00000002</cursor>", ""),
        page(ITEM.replace("<evento>RECHAZADA</evento>", "")),
        page(ITEM + "<detalle>x</detalle>"),
        page(ITEM).replace(MDS, PERSONS),
        fault("S:Client", "Cursor no válido"),
    ],
)
async def test_a_page_that_breaks_the_wsdl_is_malformed(tmp_path: Path, content: str) -> None:
    outcome = await poll(connect(tmp_path, "mds", BASE, transport=transport(xml(content))))
    assert isinstance(outcome, Malformed)
    assert not outcome.effect_unknown


async def test_a_large_page_is_read_whole(tmp_path: Path) -> None:
    items = [ITEM.replace("M-1", f"M-{number}") for number in range(500)]
    outcome = await poll(connect(tmp_path, "mds", BASE, transport=transport(xml(page(*items)))))
    assert isinstance(outcome, Page)
    assert [reply.message_id for reply in outcome.items] == [f"M-{number}" for number in range(500)]
