"""The SOAP kind towards services of other forms than the shipped ones: SOAP 1.2, rpc, credentials, registers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from adapter_written import asking, fetch, load, manifest, rows_of, take, taking
from lxml import etree
from soap_examples import BINDING_12, NS, wsdl

from adapters.errors import ManifestError
from adapters.models import Adapter, Found, Malformed, NotFound, Register, RejectedRow, Row
from adapters.soap.message import SOAP_11, SOAP_12

BASE = "http://127.0.0.1:9"
FIELDS = {"cedula": {"from": "nro", "required": True}, "given_names": {"from": "nombre", "required": True}}
PERSON = '<x:element name="nro" type="x:string"/><x:element name="nombre" type="x:string" minOccurs="0"/>'
ONE = f'<x:element name="askResponse"><x:complexType><x:sequence>{PERSON}</x:sequence></x:complexType></x:element>'
ROW = f"<x:complexType><x:sequence>{PERSON}</x:sequence></x:complexType>"
ALL = (
    '<x:element name="askResponse"><x:complexType><x:sequence>'
    f'<x:element name="fila" minOccurs="0" maxOccurs="unbounded">{ROW}</x:element>'
    "</x:sequence></x:complexType></x:element>"
)
RPC = f'<s:body use="literal" namespace="{NS}/rpc"/>'
RPC_TYPE = f'<x:complexType name="persona"><x:sequence>{PERSON}</x:sequence></x:complexType>'


def envelope(content: str, soap: str) -> bytes:
    return f'<S:Envelope xmlns:S="{soap}"><S:Body>{content}</S:Body></S:Envelope>'.encode()


def service(
    folder: Path, text: str, answer: bytes, *, media: str = "text/xml", **parts: Any
) -> tuple[Adapter, list[httpx.Request]]:
    (folder / "manifests" / "wsdl").mkdir(parents=True, exist_ok=True)
    (folder / "manifests" / "wsdl" / "x.wsdl").write_text(text, encoding="utf-8")
    asked: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, content=answer, headers={"content-type": media})

    content = manifest("soap", wsdl="x.wsdl", path="/servicio", **parts)
    transport = httpx.MockTransport(handle)
    return load(folder, content, BASE, secrets={"clave": "k/1"}, transport=transport), asked


def identity(operation: str = "ask", **parts: Any) -> dict[str, Any]:
    return asking({"operation": operation}, **{"body": {"nro": "value"}, "fields": FIELDS, **parts})


def record(namespace: str = NS) -> str:
    return f'<askResponse xmlns="{namespace}"><nro>4123456</nro><nombre>MARÍA</nombre></askResponse>'


async def test_a_soap_12_service_is_spoken_to_in_soap_12(tmp_path: Path) -> None:
    text = wsdl(ONE, binding=BINDING_12)
    adapter, asked = service(tmp_path, text, envelope(record(), SOAP_12), datasets=identity())
    outcome = await fetch(adapter)
    assert isinstance(outcome, Found)
    assert outcome.facts == {"cedula": "4123456", "given_names": "MARÍA"}
    [request] = asked
    assert request.headers["content-type"] == 'application/soap+xml; charset=utf-8; action="urn:act"'
    assert "soapaction" not in request.headers
    assert etree.fromstring(request.content).tag == f"{{{SOAP_12}}}Envelope"
    adapter, _asked = service(tmp_path, text, envelope(record(), SOAP_11), datasets=identity())
    assert isinstance(await fetch(adapter), Malformed)


async def test_an_rpc_service_is_read_by_its_parts(tmp_path: Path) -> None:
    parts = f'<estado>0</estado><persona><nro xmlns="{NS}">4123456</nro><nombre xmlns="{NS}">MARÍA</nombre></persona>'
    answer = envelope(f'<r:askResponse xmlns:r="{NS}/rpc">{parts}</r:askResponse>', SOAP_11)
    rules = [{"is": "not-found", "when": "estado == `1`"}]
    fields = {name: {"from": f"persona.{spec['from']}", "required": True} for name, spec in FIELDS.items()}
    datasets = identity(outcomes=rules, fields=fields)
    adapter, _asked = service(tmp_path, wsdl(RPC_TYPE, style="rpc", body=RPC), answer, datasets=datasets)
    assert isinstance(await fetch(adapter), Found)
    adapter, _asked = service(
        tmp_path, wsdl(RPC_TYPE, style="rpc", body=RPC), answer.replace(b"<estado>0", b"<estado>1"), datasets=datasets
    )
    assert isinstance(await fetch(adapter), NotFound)


@pytest.mark.parametrize(
    ("auth", "header", "target"),
    [
        ({"type": "bearer", "secret": "clave"}, ("authorization", "Bearer k/1"), "/servicio"),
        ({"type": "api-key", "header": "X-Clave", "secret": "clave"}, ("x-clave", "k/1"), "/servicio"),
        ({"type": "api-key", "query": "k", "secret": "clave"}, ("x-clave", None), "/servicio?k=k%2F1"),
    ],
)
async def test_credentials_are_those_of_the_manifest(
    tmp_path: Path, auth: dict[str, str], header: tuple[str, str | None], target: str
) -> None:
    adapter, asked = service(tmp_path, wsdl(ONE), envelope(record(), SOAP_11), datasets=identity(), auth=auth)
    assert isinstance(await fetch(adapter), Found)
    assert (asked[0].headers.get(header[0]), asked[0].url.raw_path.decode()) == (header[1], target)


def register(items: str = "fila", **parts: Any) -> dict[str, Any]:
    request = {"operation": "ask"}
    return taking(request, **{"body": {"nro": {"const": "*"}}, "items": items, "fields": FIELDS, **parts})


def rows(*names: str) -> bytes:
    found = "".join(f"<fila><nro>{number}</nro>{name}</fila>" for number, name in enumerate(names, start=4123456))
    return envelope(f'<askResponse xmlns="{NS}">{found}</askResponse>', SOAP_11)


async def test_a_register_is_the_items_of_one_answer_and_taken_once(tmp_path: Path) -> None:
    answer = rows("<nombre>A</nombre>", "", *["<nombre>C</nombre>"] * 1000)
    adapter, _asked = service(tmp_path, wsdl(ALL), answer, bulk=register(), limits={"budget_s": 5, "max_body": 1048576})
    found: Register = await take(adapter)
    kept = await rows_of(found)
    assert kept[0] == Row(1, {"cedula": "4123456", "given_names": "A"})
    assert kept[1] == RejectedRow(2, "nombre", "missing")
    assert len(kept) == 1002
    await found.close()
    assert isinstance(await take(adapter, (found.sha256,)), NotFound)


@pytest.mark.parametrize(
    ("answer", "items", "kind"),
    [
        (rows(), "fila", NotFound),
        (rows("<nombre/>"), "fila[0].nro", Malformed),
        (rows("<otro/>"), "fila", Malformed),
        (envelope("<S:Fault/>", SOAP_11), "fila", Malformed),
    ],
)
async def test_an_answer_that_is_no_register_takes_nothing(
    tmp_path: Path, answer: bytes, items: str, kind: type
) -> None:
    adapter, _asked = service(tmp_path, wsdl(ALL), answer, bulk=register(items))
    assert isinstance(await take(adapter), kind)


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({"datasets": identity("tell")}, "datasets.identity.request.operation"),
        ({"datasets": identity(body={"numero": "value"})}, "datasets.identity.body.numero"),
        ({"datasets": identity(body={"dia": "value"})}, "datasets.identity.body"),
        ({"bulk": register(body={"nro": {"from": "value", "required": True}})}, "bulk.identity.body"),
        ({"bulk": register(body={"nro": "value"})}, "bulk.identity.body"),
        ({"datasets": identity(), "port": "otro"}, "datasets.identity.request.operation"),
    ],
)
def test_a_manifest_that_the_description_cannot_keep_is_refused_by_field(
    tmp_path: Path, parts: dict[str, Any], field: str
) -> None:
    with pytest.raises(ManifestError) as refused:
        service(tmp_path, wsdl(ALL), b"", **parts)
    assert refused.value.field == field
