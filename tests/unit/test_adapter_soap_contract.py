"""The SOAP kind's contract: which operations of a WSDL can be called, and how their requests are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from adapter_examples import MANIFESTS
from lxml import etree
from soap_examples import BINDING_12, NS, PERSON, XSI, answer_type, operation, read, wsdl

from adapters.errors import ContractBroken
from adapters.reading import Unsayable
from adapters.soap.catalogue import Documents, read_wsdl
from adapters.soap.contract import load_contract
from adapters.soap.message import SOAP_11, SOAP_12
from adapters.soap.schema import Unusable

WSDL = MANIFESTS / "wsdl"
RPC = f'<s:body use="literal" namespace="{NS}/rpc"/>'


def rpc_answer(parts: str, name: str = "askResponse", namespace: str = f"{NS}/rpc") -> etree._Element:
    return etree.fromstring(f'<r:{name} xmlns:r="{namespace}" xmlns="" xmlns:t="{NS}" {XSI}>{parts}</r:{name}>')


def test_rpc_literal_has_a_wrapper_in_the_bindings_namespace_and_parts_without_one(tmp_path: Path) -> None:
    asked = operation(tmp_path, wsdl(PERSON, style="rpc", body=RPC))
    call = etree.fromstring(asked.build({"nro": "41"}))[0][0]
    assert (call.tag, [(part.tag, part.text) for part in call]) == (f"{{{NS}/rpc}}ask", [("nro", "41")])
    # nuSOAP says the type of everything.
    status = '<estado i:type="xsd:int" xmlns:xsd="u:any">0</estado>'
    parts = f'{status}<persona i:type="t:persona"><n xmlns="{NS}">M</n></persona>'
    assert asked.read(rpc_answer(parts)) == {"estado": 0, "persona": {"n": "M"}}
    for broken in (
        rpc_answer(parts, name="answer"),
        rpc_answer(parts, namespace=NS),
        rpc_answer(parts.replace(">0<", ">cero<")),
        rpc_answer(parts[parts.index("<persona") :]),
        rpc_answer(parts.replace("<estado", f'<t:estado xmlns:t="{NS}"').replace("</estado", "</t:estado")),
    ):
        with pytest.raises(ContractBroken):
            asked.read(broken)


def test_an_rpc_wrapper_of_no_stated_namespace_is_known_by_its_name(tmp_path: Path) -> None:
    asked = operation(tmp_path, wsdl(PERSON, style="rpc"))
    parts = f'<estado>1</estado><persona><n xmlns="{NS}">M</n></persona>'
    assert asked.read(rpc_answer(parts, namespace="urn:whatever"))["estado"] == 1
    with pytest.raises(ContractBroken, match="askResponse"):
        asked.read(rpc_answer(parts, name="otherResponse"))


NOTHING = answer_type("<x:sequence/>")
ENDLESS = "<x:group name='g'><x:sequence><x:group ref='t:g'/></x:sequence></x:group>"


@pytest.mark.parametrize(
    ("text", "name", "what"),
    [
        (wsdl(PERSON, style="rpc", body=RPC.replace("literal", "encoded")), "ask", "SOAP-encoded"),
        (wsdl(NOTHING), "tell", "una sola vía"),
        (wsdl(NOTHING), "otra", "no tiene esta operación"),
        (wsdl(answer_type("<x:sequence><x:element name='a' type='t:falta'/></x:sequence>")), "ask", "falta"),
        (wsdl(answer_type('<x:complexContent><x:restriction base="e:Array" xmlns:e='
                          '"http://schemas.xmlsoap.org/soap/encoding/"/></x:complexContent>')), "ask", "SOAP-encoding"),
        (wsdl(answer_type("<x:group ref='t:g'/>", ENDLESS)), "ask", "sin fin"),
    ],
)  # fmt: skip
def test_an_operation_that_cannot_be_called_is_refused_by_name(tmp_path: Path, text: str, name: str, what: str) -> None:
    with pytest.raises(Unusable, match=what):
        operation(tmp_path, text, name)


def test_only_the_operation_asked_for_must_be_readable(tmp_path: Path) -> None:
    text = wsdl(NOTHING)
    encoded = text[text.index('<s:operation soapAction=""/>') :]
    text = text.replace(encoded, encoded.replace('use="literal"', 'use="encoded"', 1))
    assert operation(tmp_path, text).read(etree.fromstring(f'<askResponse xmlns="{NS}"/>')) == {}


def test_the_port_says_which_version_is_spoken(tmp_path: Path) -> None:
    one = wsdl(NOTHING)
    twelve = (
        one[one.index("<w:binding") : one.index("<w:service")]
        .replace('name="b"', 'name="b12"')
        .replace("<s:", "<z:")
        .replace("<w:binding", f'<w:binding xmlns:z="{BINDING_12}"')
        .replace("</s:", "</z:")
    )
    address = f'<z:address xmlns:z="{BINDING_12}" location="http://localhost/"/>'
    more = f'<w:port name="doce" binding="t:b12">{address}</w:port>'
    text = one.replace("<w:service", f"{twelve}<w:service").replace("</w:service>", f"{more}</w:service>")
    eleven, second = operation(tmp_path, text), operation(tmp_path, text, port="doce")
    assert (eleven.soap, second.soap) == (SOAP_11, SOAP_12)
    assert eleven.headers == (("Content-Type", "text/xml; charset=utf-8"), ("SOAPAction", '"urn:act"'))
    assert second.headers == (("Content-Type", 'application/soap+xml; charset=utf-8; action="urn:act"'),)
    assert etree.fromstring(second.build({"nro": "1"})).tag == f"{{{SOAP_12}}}Envelope"
    with pytest.raises(Unusable, match="uno, doce"):
        operation(tmp_path, text, port="tres")
    # With SOAP 1.2 alone, that is what is spoken.
    assert operation(tmp_path, wsdl(NOTHING, binding=BINDING_12)).soap == SOAP_12


VALUES: list[dict[str, Any]] = [
    {"nro": "41"},
    {"nro": 41},
    {"nro": ""},
    {"nro": "a & <b> \"c\" 'd' ñ 𝔘 ]]>\t\r\n x", "dia": "2026-02-03"},
    {"dia": "2026-02-03", "nro": "siis-0-siis"},
    {"nro": "1", "caso.tipo": "A", "caso.vigente": True, "caso.origen": 'x"<&\n'},
    {"nro": "1", "caso.tipo": "A", "caso.vigente": "0"},
    {"nro": "1", "caso.tipo": "A", "caso.codigos": "a b  c"},
]


@pytest.mark.parametrize("values", VALUES)
def test_a_request_is_what_zeep_would_write(tmp_path: Path, values: dict[str, Any]) -> None:
    asked = operation(tmp_path, wsdl(NOTHING))
    assert asked.writer.refusal(values) is None
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *parents, last = name.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value.split() if last == "codigos" else value
    document = read_wsdl(Documents(tmp_path / "x.wsdl"))
    [binding] = document.bindings.values()
    expected = etree.tostring(binding.all()["ask"].create(**nested).content, method="c14n")
    for _again in range(2):
        assert etree.tostring(etree.fromstring(asked.build(values)), method="c14n") == expected


@pytest.mark.parametrize(
    "values",
    [{}, {"dia": "2026-02-03"}, {"nro": "a\x00"}, {"nro": "\ud800"}, {"nro": "1", "caso.vigente": "1"}, {"otra": "1"}],
)
def test_what_a_request_cannot_say_is_unsayable(tmp_path: Path, values: dict[str, Any]) -> None:
    asked = operation(tmp_path, wsdl(NOTHING))
    for _again in range(2):
        with pytest.raises(Unsayable, match="the WSDL refuses it"):
            asked.build(values)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["nro", "caso.tipo"], None),
        (["dia"], ("", "falta el parámetro nro")),
        (["nro", "otra"], ("otra", "la operación no tiene este parámetro")),
        (["nro", "caso"], ("caso", "la operación no tiene este parámetro")),
        (["nro", "caso.vigente"], ("", "falta el parámetro caso.tipo")),
        (["nro", "caso.tipo.x"], ("caso.tipo.x", "la operación no tiene este parámetro")),
    ],
)
def test_parameters_are_held_against_the_operation(
    tmp_path: Path, names: list[str], expected: tuple[str, str] | None
) -> None:
    assert operation(tmp_path, wsdl(NOTHING)).writer.refusal(names) == expected


def test_a_bare_element_of_a_simple_type_is_asked_and_answered(tmp_path: Path) -> None:
    text = wsdl('<x:element name="askResponse" type="x:int"/><x:element name="simple" type="x:string"/>')
    asked = operation(tmp_path, text.replace('element="t:ask"/>', 'element="t:simple"/>'))
    assert asked.writer.refusal(["simple"]) is None
    assert asked.writer.refusal(["nro"]) == ("nro", "la operación no tiene este parámetro")
    call = etree.fromstring(asked.build({"simple": "<41>"}))[0][0]
    assert (call.tag, call.text) == (f"{{{NS}}}simple", "<41>")
    assert read(asked, "7") == 7


def test_the_shipped_descriptions_are_read() -> None:
    person = load_contract(WSDL / "PersonaWS.wsdl").operation("findPersonaByCedula")
    assert person.writer.refusal(["nroCedula"]) is None
    derivations = load_contract(WSDL / "DerivacionesWS.wsdl")
    assert derivations.operation("consultarContrarreferencias").writer.refusal([]) is None
    refusal = derivations.operation("registrarDerivacion").writer.refusal(["servicio"])
    assert refusal is not None
    assert refusal[1].startswith("falta el parámetro")


SCHEMA = f'<x:schema targetNamespace="{NS}" elementFormDefault="qualified">'


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("<w:definitions", '<!DOCTYPE x [<!ENTITY a "b">]><w:definitions', "DOCTYPE"),
        ("</w:definitions>", "", "no es un WSDL"),
        (
            SCHEMA,
            f'{SCHEMA}<x:import namespace="u:x" schemaLocation="http://a.example/x.xsd"/>',
            "falta el archivo x.xsd",
        ),
        (SCHEMA, f'{SCHEMA}<x:include schemaLocation="falta.xsd"/>', "falta el archivo falta.xsd"),
    ],
)
def test_a_description_that_cannot_be_used_is_refused(tmp_path: Path, old: str, new: str, what: str) -> None:
    text = wsdl(NOTHING)
    assert old in text
    with pytest.raises(Unusable, match=what):
        operation(tmp_path, text.replace(old, new))


@pytest.mark.parametrize("content", ["", "hola", "<a/>"])
def test_what_is_no_wsdl_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(Unusable):
        operation(tmp_path, content)
