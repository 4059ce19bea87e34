"""X-Road headers: the request says who asks whom, the answer must say the same and be to the bytes we sent."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree
from wsse_examples import SOAP_11, envelope, sent

from adapters.errors import ContractBroken
from adapters.soap.xroad import Party, XRoadRequest, add_headers, check_answer, member, service
from adapters.xmltree import parse

XROAD = "http://x-road.eu/xsd/xroad.xsd"
ID = "http://x-road.eu/xsd/identifiers"
HASH = "http://www.w3.org/2001/04/xmlenc#sha512"
REQUEST = XRoadRequest(
    member("PY/GOV/80001234/portal"),
    service("PY/GOV/80009876/rc/findPerson/v1"),
    "0198c1d2-0000-7000-8000-000000000001",
    user_id="PY4123456",
    issue="REF-2026-1",
    represented=Party("80005555", "GOV"),
)
#: One of the samples' requests, in our words.
SAMPLE = XRoadRequest(
    member("EE/BUSINESS/consumer/subsys1"),
    service("EE/BUSINESS/producer/subsys2/getState"),
    "411d6755661409fed365ad8135f8210be07613da",
    user_id="EE:PIN:abc4567",
)


def asked(request: XRoadRequest = REQUEST) -> etree._Element:
    root = envelope()
    add_headers(root, request)
    return sent(root)


def field(root: etree._Element, name: str) -> etree._Element:
    (found,) = [child for child in root[0] if etree.QName(child).localname == name]
    return found


def prove(root: etree._Element, posted: bytes, algorithm: str = HASH) -> None:
    element = etree.SubElement(root[0], f"{{{XROAD}}}requestHash", algorithmId=algorithm)
    element.text = base64.b64encode(hashlib.sha512(posted).digest()).decode()


def test_the_headers_are_those_of_the_protocol() -> None:
    header = asked()[0]
    assert [etree.QName(child).localname for child in header] == [
        "client",
        "service",
        "representedParty",
        "id",
        "userId",
        "issue",
        "protocolVersion",
    ]
    assert header.findtext(f"{{{XROAD}}}protocolVersion") == "4.0"
    client, called, party = header[0], header[1], header[2]
    assert client.get(f"{{{ID}}}objectType") == "SUBSYSTEM"
    assert [(etree.QName(part).localname, part.text) for part in client] == [
        ("xRoadInstance", "PY"),
        ("memberClass", "GOV"),
        ("memberCode", "80001234"),
        ("subsystemCode", "portal"),
    ]
    assert called.get(f"{{{ID}}}objectType") == "SERVICE"
    assert [part.text for part in called][-2:] == ["findPerson", "v1"]
    assert [(etree.QName(part).localname, part.text) for part in party] == [
        ("partyClass", "GOV"),
        ("partyCode", "80005555"),
    ]


def test_what_is_not_known_is_not_sent() -> None:
    request = replace(REQUEST, user_id=None, issue=None, represented=Party("80005555"))
    names = [etree.QName(child).localname for child in asked(request)[0].iter()]
    assert not {"userId", "issue", "partyClass"} & set(names)
    assert member("PY/GOV/80001234").object_type == "MEMBER"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PY",
        "PY/GOV",
        "PY/GOV/1/2/3",
        "PY//1",
        "PY/GOV/ 1",
        "PY/GOV/..",
        "PY/GOV/a%2fb",
        "PY/GOV/a;b",
        "PY/GOV/a\tb",
    ],
)
def test_what_is_no_identifier_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"instancia|signo"):
        member(text)
    with pytest.raises(ValueError, match=r"instancia|signo"):
        service(f"{text}/x" if text.count("/") < 4 else f"{text}/4/5")


def test_an_answer_that_repeats_its_request_is_taken_with_or_without_proof() -> None:
    answer, posted = asked(), b"the request"
    assert check_answer(answer, REQUEST, posted) is False
    prove(answer, posted)
    assert check_answer(sent(answer), REQUEST, posted) is True


def test_prefixes_order_and_white_space_between_elements_do_not_matter() -> None:
    header = asked()[0]
    raw = etree.tostring(header.getparent(), pretty_print=True).replace(b"xroad:", b"x:").replace(b":xroad", b":x")
    answer = parse(raw.replace(b"><", b">\n  <"))
    answer[0].append(answer[0][0])
    assert check_answer(answer, REQUEST, b"") is False


def changed(name: str, text: str) -> Callable[[etree._Element], None]:
    def change(root: etree._Element) -> None:
        field(root, name).text = text

    return change


def part_changed(name: str, part: int, text: str) -> Callable[[etree._Element], None]:
    def change(root: etree._Element) -> None:
        field(root, name)[part].text = text

    return change


def without(name: str) -> Callable[[etree._Element], None]:
    return lambda root: root[0].remove(field(root, name))


def twice(name: str) -> Callable[[etree._Element], None]:
    return lambda root: root[0].append(deepcopy(field(root, name)))


def other_namespace(root: etree._Element) -> None:
    field(root, "id").tag = "{urn:x}id"


def version_dropped(root: etree._Element) -> None:
    called = field(root, "service")
    called.remove(called[-1])


def other_type(root: etree._Element) -> None:
    field(root, "client").set(f"{{{ID}}}objectType", "MEMBER")


def no_header(root: etree._Element) -> None:
    root.remove(root[0])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed("id", "another"), "header id: not"),
        (changed("userId", "PY9999999"), "header userId: not"),
        (changed("issue", "REF-2026-2"), "header issue: not"),
        (changed("issue", "REF-2026-1 "), "header issue: not"),
        (changed("protocolVersion", "4.1"), "header protocolVersion: not"),
        (part_changed("client", 3, "other"), "header client: not"),
        (part_changed("service", 4, "findAnother"), "header service: not"),
        (part_changed("representedParty", 1, "80006666"), "header representedParty: not"),
        (without("client"), "header client: in the answer 0 times"),
        (without("representedParty"), "header representedParty: in the answer 0 times"),
        (without("issue"), "header issue: in the answer 0 times"),
        (twice("id"), "header id: in the answer 2 times"),
        (other_namespace, "header id: in the answer 0 times"),
        (version_dropped, "header service: not"),
        (other_type, "header client: not"),
        (no_header, "header client: in the answer 0 times"),
    ],
)
def test_an_answer_to_another_question_is_refused_by_the_header_that_says_so(
    change: Callable[[etree._Element], None], reason: str
) -> None:
    answer = asked()
    change(answer)
    with pytest.raises(ContractBroken, match=reason) as caught:
        check_answer(answer, REQUEST, b"")
    assert "80006666" not in caught.value.reason


@pytest.mark.parametrize(
    ("algorithm", "posted", "times", "reason"),
    [
        (HASH, b"other bytes", 1, "not of the bytes sent"),
        ("http://www.w3.org/2001/04/xmlenc#sha256", b"the request", 1, "not of the bytes sent"),
        ("http://www.w3.org/2000/09/xmldsig#sha1", b"the request", 1, "algorithm not known"),
        (HASH, b"the request", 2, "several times"),
    ],
)
def test_a_request_hash_that_does_not_prove_our_bytes_is_refused(
    algorithm: str, posted: bytes, times: int, reason: str
) -> None:
    answer = asked()
    for _ in range(times):
        prove(answer, b"the request", algorithm)
    with pytest.raises(ContractBroken, match=reason):
        check_answer(answer, REQUEST, posted)


def test_the_headers_are_valid_by_the_schema_of_x_road(samples: Path) -> None:
    folder = samples / "soap" / "xroad"
    xroad = etree.XMLSchema(etree.parse(folder / "wsdl" / "xsd" / "xroad.xsd"))
    representation = etree.XMLSchema(etree.parse(folder / "monitoring" / "representation.xsd"))
    for child in asked()[0]:
        schema = representation if "representation" in (etree.QName(child).namespace or "") else xroad
        schema.assertValid(etree.ElementTree(deepcopy(child)))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("getstate-subsystem.answer", None),
        ("nowhitespace.answer", "header client: not"),
        ("simple-comment.answer", "header client: not"),
        ("missing-userId.answer", "header client: not"),
        ("customsoapenv.answer", "header client: in the answer 0 times"),
    ],
)
def test_recorded_answers_are_told_apart(name: str, reason: str | None, samples: Path) -> None:
    answer = parse((samples / "soap" / "xroad" / "queries" / name).read_bytes())
    if reason is None:
        assert check_answer(answer, SAMPLE, b"") is False
        return
    with pytest.raises(ContractBroken, match=reason):
        check_answer(answer, SAMPLE, b"")


def test_a_recorded_request_hash_is_of_its_own_request_only(samples: Path) -> None:
    request = XRoadRequest(
        member("EE/GOV/TS1OWNER"),
        service("EE/GOV/TS1OWNER/mgmt service provider/clientReg"),
        "d9e5b4e0-052c-42f9-9ed7-b003f97f0f5f",
    )
    answer = parse((samples / "soap" / "xroad" / "queries" / "response-with-requestId.answer").read_bytes())
    assert answer.tag == f"{{{SOAP_11}}}Envelope"
    with pytest.raises(ContractBroken, match="not of the bytes sent"):
        check_answer(answer, request, b"not what was posted")
