"""The SOAP kind with WS-Security, SAML and X-Road as a manifest asks for them: the request's headers, and no answer
believed that is not signed, confirmed or to the question asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from adapter_examples import MANIFESTS, fetch, send
from lxml import etree
from wsse_examples import NOW, pair, verify

from adapters.errors import ManifestError
from adapters.models import Adapter, Found, Malformed, Taken, Unavailable
from adapters.registry import load_adapters
from adapters.soap.message import SOAP_11
from adapters.soap.security import WSSE, WSU
from adapters.soap.security_sign import Security, secure
from adapters.xmltree import parse

PERSONS = "http://identificaciones.ws.sii.senatics.gov.py/"
MDS = "http://derivaciones.ws.mds.gov.py/"
XROAD = "http://x-road.eu/xsd/xroad.xsd"
SAML = (
    '<a:Assertion xmlns:a="urn:oasis:names:tc:SAML:2.0:assertion" ID="s1"><a:Conditions '
    'NotBefore="2026-03-04T11:00:00Z" NotOnOrAfter="{until}"/></a:Assertion>'
)
RECORD = "<apellido>NÚÑEZ</apellido><cedula>4123456</cedula><fechNacim>1980-02-29</fechNacim><nombres>MARÍA</nombres>"
PERSON = f'<n:findPersonaByCedulaResponse xmlns:n="{PERSONS}"><return>{RECORD}</return></n:findPersonaByCedulaResponse>'
FAULT = "<S:Fault><faultcode>S:Server</faultcode><faultstring>x</faultstring></S:Fault>"
Answering = Callable[[etree._Element], bytes | httpx.Response]


def answer(content: str = PERSON, header: str = "") -> etree._Element:
    return parse(
        f'<S:Envelope xmlns:S="{SOAP_11}"><S:Header>{header}</S:Header><S:Body>{content}</S:Body></S:Envelope>'.encode()
    )


def signed(content: str = PERSON, by: str = "institution") -> bytes:
    envelope = answer(content)
    secure(envelope, Security(timestamp_s=60, signer=pair(by).signer), NOW)
    return etree.tostring(envelope)


def connected(
    folder: Path, more: str, answering: Answering, name: str = "identificaciones-soap", seen: list[bytes] | None = None
) -> Adapter:
    """Connect a shipped manifest with more in it, to a service that answers what it is told to."""
    manifests, secrets = folder / "manifests", folder / "secrets"
    for made in (manifests, secrets):
        made.mkdir(exist_ok=True)
    if not (manifests / "wsdl").exists():
        (manifests / "wsdl").symlink_to(MANIFESTS / "wsdl")
    text = (MANIFESTS / f"{name}.yaml").read_text(encoding="utf-8")
    (manifests / f"{name}.yaml").write_text(f"{text}\n{more}\n", encoding="utf-8")
    own, theirs = pair("gateway"), pair("institution")
    for secret, content in {
        "identificaciones_password": b"clave",
        "mds_password": b"clave",
        "ws_password": "clave-ñ".encode(),
        "own": own.certificate + own.key,
        "theirs": theirs.certificate,
        "nothing": b"-----BEGIN CERTIFICATE-----\n",
        "assertion": SAML.format(until="2026-03-04T13:00:00Z").encode(),
    }.items():
        (secrets / secret).write_bytes(content)
    (folder / "connections.yaml").write_text(json.dumps({name: {"address": "http://127.0.0.1:9"}}), encoding="utf-8")

    def handle(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request.content)
        answered = answering(parse(request.content))
        if isinstance(answered, httpx.Response):
            return answered
        return httpx.Response(200, content=answered, headers={"content-type": "text/xml"})

    adapters = load_adapters(
        [manifests], folder / "connections.yaml", secrets, transport=httpx.MockTransport(handle), now=lambda: NOW
    )
    return adapters.named(name)


async def test_a_request_carries_what_the_manifest_says(tmp_path: Path) -> None:
    seen: list[bytes] = []
    more = "security: {username: siis, password: ws_password, timestamp_s: 60, certificate: own, saml: assertion}"
    adapter = connected(tmp_path, more, lambda _request: etree.tostring(answer()), seen=seen)
    assert isinstance(await fetch(adapter), Found)
    security = parse(seen[0]).find(f"{{{SOAP_11}}}Header/{{{WSSE}}}Security")
    assert security is not None
    assert security.findtext(f"{{{WSSE}}}UsernameToken/{{{WSSE}}}Password") == "clave-ñ"
    assert security.findtext(f"{{{WSU}}}Timestamp/{{{WSU}}}Expires") == "2026-03-04T12:01:00.000Z"
    names = [etree.QName(child).localname for child in security]
    assert names == ["Timestamp", "UsernameToken", "Assertion", "BinarySecurityToken", "Signature"]
    # Signed as sent: the other side verifies it with our certificate, in what it got byte for byte.
    assert verify(parse(seen[0]), pair("gateway").partner).find(f"{{{PERSONS}}}findPersonaByCedula") is not None
    await fetch(adapter)
    assert seen[0] != seen[1]


async def test_only_an_answer_signed_by_the_registered_institution_is_believed(tmp_path: Path) -> None:
    answers: list[bytes] = []
    adapter = connected(tmp_path, "security: {partner: theirs}", lambda _request: answers.pop())
    answers.append(signed())
    assert isinstance(await fetch(adapter), Found)
    for broken in (etree.tostring(answer()), signed(by="stranger"), signed().replace(b"1980-02-29", b"1981-02-29")):
        answers.append(broken)
        outcome = await fetch(adapter)
        assert isinstance(outcome, Malformed)
        assert not answers


async def test_the_same_answer_is_not_taken_twice(tmp_path: Path) -> None:
    once = signed()
    adapter = connected(tmp_path, "security: {partner: theirs}", lambda _request: once)
    assert isinstance(await fetch(adapter), Found)
    outcome = await fetch(adapter)
    assert isinstance(outcome, Unavailable)
    assert outcome.reason == "the answer was used before"


async def test_a_fault_that_nobody_signed_says_only_that_something_is_wrong(tmp_path: Path) -> None:
    adapter = connected(tmp_path, "security: {partner: theirs}", lambda _request: etree.tostring(answer(FAULT)))
    outcome = await fetch(adapter)
    assert isinstance(outcome, Unavailable)
    assert outcome.reason == "a fault that is not signed by the producer"


async def test_an_attachment_that_no_signature_covers_is_refused(tmp_path: Path) -> None:
    envelope = signed(PERSON.replace("MARÍA", "cid:a"))
    body = (
        b"--b\r\nContent-Type: text/xml\r\n\r\n" + envelope + b"\r\n--b\r\nContent-Id: <a>\r\n\r\nMALLORY\r\n--b--\r\n"
    )
    replied = httpx.Response(200, content=body, headers={"content-type": "multipart/related; boundary=b"})
    outcome = await fetch(connected(tmp_path, "security: {partner: theirs}", lambda _request: replied))
    assert isinstance(outcome, Malformed)
    assert outcome.reason == "the answer has parts that the signature does not cover"


async def test_an_assertion_is_read_for_each_request_and_none_leaves_without_it(tmp_path: Path) -> None:
    seen: list[bytes] = []
    adapter = connected(tmp_path, "security: {saml: assertion}", lambda _request: etree.tostring(answer()), seen=seen)
    assert isinstance(await fetch(adapter), Found)
    file = tmp_path / "secrets" / "assertion"
    file.write_text(SAML.format(until=(NOW - timedelta(1)).isoformat()), encoding="utf-8")
    expired = await fetch(adapter)
    file.unlink()
    gone = await fetch(adapter)
    assert (expired.reason, gone.reason) == ("saml assertion expired", "no SAML assertion to send")
    assert isinstance(gone, Unavailable)
    assert len(seen) == 1


XROAD_SAYS = "xroad: {client: PY/GOV/80001/portal, service: PY/GOV/80002/registro, version: v1}"


def echoed(request: etree._Element, content: str) -> etree._Element:
    """Answer as a security server does: the request's headers, as they came."""
    envelope = answer(content)
    header = request.find(f"{{{SOAP_11}}}Header")
    assert header is not None
    envelope[0].extend(list(header))
    return envelope


async def test_an_x_road_answer_is_to_the_question_asked(tmp_path: Path) -> None:
    seen: list[bytes] = []
    adapter = connected(tmp_path, XROAD_SAYS, lambda request: etree.tostring(echoed(request, PERSON)), seen=seen)
    found = await fetch(adapter)
    assert isinstance(found, Found)
    header = parse(seen[0]).find(f"{{{SOAP_11}}}Header")
    assert header is not None
    provider = header.find(f"{{{XROAD}}}service")
    assert provider is not None
    assert [part.text for part in provider] == ["PY", "GOV", "80002", "registro", "findPersonaByCedula", "v1"]
    await fetch(adapter)
    ids = [parse(each).findtext(f"{{{SOAP_11}}}Header/{{{XROAD}}}id") for each in seen]
    assert len(set(ids)) == 2
    assert found.provenance.message_id == ids[0]


async def test_an_x_road_answer_to_another_question_is_malformed_and_a_fault_needs_no_headers(tmp_path: Path) -> None:
    def other(request: etree._Element) -> bytes:
        envelope = echoed(request, PERSON)
        found = envelope.find(f"{{{SOAP_11}}}Header/{{{XROAD}}}id")
        assert found is not None
        found.text = "otra"
        return etree.tostring(envelope)

    outcome = await fetch(connected(tmp_path, XROAD_SAYS, other))
    assert isinstance(outcome, Malformed)
    assert outcome.reason == "X-Road header id: not the request's"
    outcome = await fetch(connected(tmp_path, XROAD_SAYS, lambda _request: etree.tostring(answer(FAULT))))
    assert isinstance(outcome, Unavailable)
    assert outcome.reason == "fault: Server"


async def test_a_referral_over_x_road_is_the_issue(tmp_path: Path) -> None:
    seen: list[bytes] = []
    receipt = f'<registrarDerivacionResponse xmlns="{MDS}"><codigo>0</codigo><mensaje/></registrarDerivacionResponse>'
    adapter = connected(
        tmp_path, XROAD_SAYS, lambda request: etree.tostring(echoed(request, receipt)), name="mds", seen=seen
    )
    assert isinstance(await send(adapter), Taken)
    root = parse(seen[0])
    reference = root.findtext(f"{{{SOAP_11}}}Body/*/{{{MDS}}}idReferencia")
    assert reference == root.findtext(f"{{{SOAP_11}}}Header/{{{XROAD}}}issue")


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ("security: {certificate: own}", "security"),
        ("security: {certificate: nothing, timestamp_s: 60}", "security.certificate"),
        ("security: {certificate: theirs, timestamp_s: 60}", "security.certificate"),
        ("security: {partner: nothing}", "security.partner"),
        ("security: {partner: gone}", "security.partner"),
        ("security: {username: a, password: gone}", "security.password"),
        ("xroad: {client: 'PY/GOV/8:1/x', service: PY/GOV/80002/registro}", "xroad.client"),
        ("xroad: {client: PY/GOV/80001/x, service: 'PY/GOV/8%1/x'}", "xroad.service"),
        ("xroad: {client: PY/GOV/80001/x, service: PY/GOV/80002}", "xroad.service"),
        ("port: Otro", "datasets.identity.request.operation"),
    ],
)
def test_a_manifest_that_cannot_be_kept_is_refused_by_field(tmp_path: Path, more: str, field: str) -> None:
    with pytest.raises(ManifestError) as refused:
        connected(tmp_path, more, lambda _request: b"")
    assert refused.value.field == field
