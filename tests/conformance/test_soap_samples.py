"""Real SOAP messages of other people's systems: each is read, or refused with a reason; nothing else ever happens."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from adapters.errors import ContractBroken
from adapters.soap.attachments import open_answer
from adapters.soap.contract import Operation, load_contract
from adapters.soap.message import Fault, content_of
from adapters.soap.schema import Unusable
from adapters.xmltree import tree

_BOUNDARY = re.compile(rb"\s*--([0-9A-Za-z'()+_,./:=?-]+)\r?\n")


@pytest.fixture(scope="module")
def soap(samples: Path) -> Path:
    folder = samples / "soap"
    assert folder.is_dir(), "the samples hold no soap folder"
    return folder


def media_of(body: bytes) -> str:
    """Say what a body would be sent as: these samples come without their HTTP headers."""
    found = _BOUNDARY.match(body)
    return "text/xml" if found is None else f'multipart/related; boundary="{found[1].decode()}"'


def opened(body: bytes, operation: Operation | None = None, media: str = "") -> Any:
    """Read a message by its contract, or as the tree it is; a fault, or the reason why not, as text."""
    try:
        envelope, attachments = open_answer(body, media or media_of(body))
        content = content_of(envelope, operation.soap if operation else str(etree.QName(envelope).namespace))
        if isinstance(content, Fault):
            return content
        attachments.place(content)
        return operation.read(content) if operation else {"tree": tree(content)}
    except ContractBroken as broken:
        return f"refused: {broken.reason}"


def kind_of(outcome: Any) -> str:
    if isinstance(outcome, Fault):
        return "fault"
    return outcome if isinstance(outcome, str) and outcome.startswith("refused: ") else "read"


def with_crlf(body: bytes) -> bytes:
    return body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


@pytest.mark.parametrize("end", ["as they are", "CRLF"])
def test_the_bodies_of_the_x_road_proxys_own_tests(soap: Path, end: str) -> None:
    found: Counter[str] = Counter()
    outcomes: dict[str, str] = {}
    for file in sorted((soap / "xroad" / "queries").iterdir()):
        body = file.read_bytes()
        outcomes[file.name] = kind_of(opened(body if end == "as they are" else with_crlf(body)))
        found[outcomes[file.name].partition(":")[0]] += 1
    assert found == {"read": 35, "fault": 2, "refused": 5}
    assert outcomes["attachm2-utf8bom-inside.answer"] == "read"
    assert outcomes["soapfault-mtom.answer"] == "refused: the multipart answer is cut short"
    assert not [name for name, outcome in outcomes.items() if name.endswith(".answer") and "XML" in outcome]


# By what is wrong with the sample, where something is: the descriptions, as zeep and we refuse them, are the
# catalogue's affair (test_soap_catalogue.py); each refusal of an answer was held against its schema by hand.
QUADRUPLES = {"read": 11, "refused": 5, "no contract": 26, "no answer": 5}
REFUSED = {
    "Dummy__should_deserialize_basic_types": "byte: missing, or not in its place",
    "Dummy__should_handle_inline_types": "SimpleBoolean: missing, or not in its place",
    "GetItemInformation__should_ignore_default_namespace_from_schema": (
        "GetItemInformationResponse: an element that is not in the contract, or not in its place"
    ),
    "execFile__valid_xml_generated_on_request_with_complex_type_element_form_default_qualified": (
        "the answer is not of the contract's SOAP version"
    ),
    "fooOp__should_return_back_good_response_object": "the answer is not XML",
}


def quadruples(soap: Path) -> Iterator[tuple[Path, Operation | None, bytes | None, str]]:
    for folder in sorted((soap / "node-soap" / "request-response-samples").iterdir()):
        answer, header = folder / "response.xml", folder / "responseHttpHeader.json"
        media = json.loads(header.read_text())["content-type"] if header.exists() else "text/xml"
        try:
            operation = load_contract(folder / "soap.wsdl").operation(folder.name.partition("__")[0])
        except Unusable:
            operation = None
        yield folder, operation, answer.read_bytes() if answer.exists() else None, media


def ours(document: Any) -> Any:
    """Turn node-soap's shape into ours: it has attributes apart, the text beside them under another name."""
    if isinstance(document, list):
        return [ours(item) for item in document]
    if not isinstance(document, dict):
        return document
    found = {f"@{name}": value for name, value in document.get("attributes", {}).items()}
    found |= {"#text": document["$value"]} if "$value" in document else {}
    return found | {name: ours(value) for name, value in document.items() if name not in ("attributes", "$value")}


def alike(read: Any, expected: Any) -> bool:
    """Compare where the shapes are comparable.

    They are not for an empty answer (``null`` there), a list of one item (no list there), and instants (in UTC there,
    as sent here).
    """
    if isinstance(read, list) and not isinstance(expected, list):
        expected = [expected]
    if isinstance(read, list) and isinstance(expected, list):
        return len(read) == len(expected) and all(alike(*pair) for pair in zip(read, expected, strict=True))
    if isinstance(read, dict) and isinstance(expected, dict):
        return read.keys() == expected.keys() and all(alike(read[name], expected[name]) for name in read)
    if isinstance(read, str) and isinstance(expected, str) and read[10:11] == "T":
        return read.rstrip("Z").partition(".")[0] == expected.rstrip("Z").partition(".")[0]
    return bool(read == expected) or (read in ("", {}) and expected is None)


def test_the_quadruples_of_node_soap(soap: Path) -> None:
    found: Counter[str] = Counter()
    refused: dict[str, str] = {}
    compared = 0
    for folder, operation, body, media in quadruples(soap):
        if body is None:
            found["no answer"] += 1
            continue
        if operation is None:
            # Nothing to hold it against; it must still open, or say why not.
            found["no contract"] += 1
            opened(body, media=media)
            continue
        outcome = opened(body, operation, media)
        kind = kind_of(outcome)
        found[kind.partition(":")[0]] += 1
        if kind != "read":
            refused[folder.name] = kind.removeprefix("refused: ")
            continue
        expected = folder / "response.json"
        if expected.exists():
            compared += 1
            assert alike(outcome, ours(json.loads(expected.read_text(encoding="utf-8")))), folder.name
    assert found == QUADRUPLES
    assert refused == REFUSED
    assert compared == 11


def test_the_requests_of_node_soap_are_messages_too(soap: Path) -> None:
    bodies = [file.read_bytes() for file in sorted((soap / "node-soap").rglob("request.xml"))]
    found = Counter(kind_of(opened(body)).partition(":")[0] for body in bodies)
    assert found == {"read": 45, "refused": 1}


def test_the_answers_of_savon(soap: Path) -> None:
    found = {file.name: opened(file.read_bytes()) for file in sorted((soap / "savon-responses").iterdir())}
    faults = {name: outcome for name, outcome in found.items() if isinstance(outcome, Fault)}
    assert faults == {
        "another_soap_fault.xml": Fault(
            "ERR_NO_SESSION", "Wrong session message", "soapVal", {"ERRNO": "80:1289245853:55"}
        ),
        "soap_fault.xml": Fault("Server", "Fault occurred while processing."),
        "soap_fault12.xml": Fault("Sender", "Sender Timeout", "MaxTime", "P5M", "MessageTimeout"),
    }
    assert [kind_of(outcome) for outcome in found.values()].count("read") == 3


def test_the_answers_of_mexicos_tax_service(soap: Path) -> None:
    found = {
        str(file.relative_to(soap / "mx-sat")): opened(file.read_bytes())
        for file in sorted((soap / "mx-sat").rglob("*.xml"))
    }
    kinds = Counter(kind_of(outcome).partition(":")[0] for outcome in found.values())
    assert kinds == {"read": 8, "fault": 1}
    failed = found["authenticate/response-with-error.xml"]
    assert isinstance(failed, Fault)
    assert failed.code == "InvalidSecurity"
    accepted = found["query/response-issued.xml"]["tree"]["SolicitaDescargaEmitidosResult"]
    assert {"@IdSolicitud", "@CodEstatus", "@Mensaje"} <= accepted.keys()


def test_argentinas_tax_register_can_be_asked_by_its_own_descriptions(soap: Path) -> None:
    folder = soap / "ar-afip"
    person = load_contract(folder / "ws_sr_padron_a5.wsdl").operation("getPersona_v2")
    assert person.writer.refusal(["token", "sign", "cuitRepresentada", "idPersona"]) is None
    answer = etree.fromstring(person.build({"token": "t", "sign": "s", "cuitRepresentada": 2, "idPersona": 20}))[0][0]
    assert [child.text for child in answer] == ["t", "s", "2", "20"]
    for name in ("ws_sr_padron_a4", "ws_sr_padron_a5", "ws_sr_padron_a10"):
        dummy = load_contract(folder / f"{name}.wsdl").operation("dummy")
        body = "<appserver>OK</appserver><authserver>OK</authserver><dbserver>OK</dbserver>"
        namespace = etree.QName(dummy.answer).namespace
        read = dummy.read(
            etree.fromstring(f'<d:dummyResponse xmlns:d="{namespace}"><return>{body}</return></d:dummyResponse>')
        )
        assert read == {"return": {"appserver": "OK", "authserver": "OK", "dbserver": "OK"}}
