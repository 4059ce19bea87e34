"""The wsse:Security header: what a request carries, when a signed answer is fresh, which keys and assertions serve."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import xmlsec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from lxml import etree
from wsse_examples import NOW, SOAP_11, SOAP_12, envelope, pair, resign, sent, signed, verify
from xmlsec import constants
from zeep.wsse.signature import BinarySignature, Signature

from adapters.errors import CallFailed, ContractBroken
from adapters.soap import security_verify
from adapters.soap.saml import read_assertion
from adapters.soap.security import DS, ID, SECURITY, WSSE, WSSE_11, WSU, Partner, Signer, UnusableKey
from adapters.soap.security_sign import Security, Username, secure
from adapters.soap.security_verify import SeenAnswers

OURS, PARTNER, NEXT = pair("ours"), pair("partner"), pair("next")
NAMES = {"wsse": WSSE, "wsu": WSU, "ds": DS}


def header(security: Security, soap: str = SOAP_11) -> etree._Element:
    root = envelope(soap)
    secure(root, security, NOW)
    return sent(root)[0]


@pytest.mark.parametrize("soap", [SOAP_11, SOAP_12])
def test_the_header_stands_before_the_body_and_must_be_understood(soap: str) -> None:
    root = envelope(soap)
    assert secure(root, Security(timestamp_s=60), NOW) is None
    assert [child.tag for child in sent(root)] == [f"{{{soap}}}Header", f"{{{soap}}}Body"]
    (security,) = sent(root)[0]
    assert (security.tag, security.get(f"{{{soap}}}mustUnderstand")) == (SECURITY, "1")
    assert security.findtext("wsu:Timestamp/wsu:Created", namespaces=NAMES) == "2026-03-04T12:00:00.000Z"
    assert security.findtext("wsu:Timestamp/wsu:Expires", namespaces=NAMES) == "2026-03-04T12:01:00.000Z"


def test_a_header_that_is_there_is_kept() -> None:
    root = envelope()
    root.insert(0, etree.Element(f"{{{SOAP_11}}}Header"))
    etree.SubElement(root[0], "{urn:a}a")
    secure(root, Security(username=Username("siis", "secret")), NOW)
    assert [child.tag for child in root[0]] == ["{urn:a}a", SECURITY]
    assert len(root) == 2


def test_a_password_goes_as_text_and_with_a_nonce_only_where_asked() -> None:
    token = header(Security(username=Username("siis", "contraseña")))[0][0]
    assert [(etree.QName(child).localname, child.text) for child in token] == [
        ("Username", "siis"),
        ("Password", "contraseña"),
    ]
    assert token[1].get("Type", "").endswith("username-token-profile-1.0#PasswordText")
    assert "contraseña" not in repr(Username("siis", "contraseña"))
    names = [etree.QName(c).localname for c in header(Security(username=Username("siis", "x", nonce=True)))[0][0]]
    assert names == ["Username", "Password", "Nonce", "Created"]


def test_a_digest_is_of_nonce_time_and_password_and_never_the_same() -> None:
    tokens = [header(Security(username=Username("siis", "contraseña", digest=True)))[0][0] for _ in range(2)]
    for token in tokens:
        _name, password, nonce, created = (child.text or "" for child in token)
        mixed = base64.b64decode(nonce) + created.encode() + "contraseña".encode()
        assert base64.b64decode(password) == hashlib.sha1(mixed, usedforsecurity=False).digest()
        assert token[1].get("Type", "").endswith("#PasswordDigest")
    assert tokens[0][2].text != tokens[1][2].text


def test_the_signature_covers_body_timestamp_and_username_as_another_library_computes_it() -> None:
    root = envelope()
    value = secure(root, Security(Username("siis", "secret"), 60, OURS.signer), NOW)
    root = sent(root)
    targets = []
    for reference in root.iterfind(".//ds:Reference", NAMES):
        (element,) = [found for found in root.iter() if f"#{found.get(ID)}" == reference.get("URI")]
        digest = hashlib.sha256(etree.tostring(element, method="c14n", exclusive=True, with_comments=False)).digest()
        assert reference.findtext("ds:DigestValue", namespaces=NAMES) == base64.b64encode(digest).decode()
        targets.append(etree.QName(element).localname)
    assert sorted(targets) == ["Body", "Timestamp", "UsernameToken"]
    token = x509.load_der_x509_certificate(
        base64.b64decode(root.findtext(".//wsse:BinarySecurityToken", "", NAMES))
    ).public_key()
    signed_info = root.find(".//ds:SignedInfo", NAMES)
    assert isinstance(token, RSAPublicKey)
    assert signed_info is not None
    assert value is not None
    token.verify(value, etree.tostring(signed_info, method="c14n", exclusive=True), PKCS1v15(), SHA256())
    assert base64.b64decode(root.findtext(".//ds:SignatureValue", "", NAMES)) == value
    assert root.xpath("string(//wsse:Reference/@URI)", namespaces=NAMES) == "#" + str(
        root.xpath("string(//wsse:BinarySecurityToken/@wsu:Id)", namespaces=NAMES)
    )


@pytest.mark.parametrize("kind", [Signature, BinarySignature])
def test_an_answer_signed_by_another_implementation_is_taken(kind: type[Signature], tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    key.write_bytes(PARTNER.key)
    certificate.write_bytes(PARTNER.certificate)
    root = envelope()
    secure(root, Security(timestamp_s=300), NOW)
    algorithms = {"signature_method": constants.TransformRsaSha256, "digest_method": constants.TransformSha256}
    kind(str(key), str(certificate), **algorithms).apply(root, {})
    root = sent(root)
    assert verify(root, PARTNER.partner) is root[1]


@pytest.mark.parametrize(
    ("name", "bits", "method"),
    [
        ("partner", 2048, constants.TransformRsaSha384),
        ("partner", 2048, constants.TransformRsaSha512),
        ("curve", 256, constants.TransformEcdsaSha256),
    ],
)
def test_the_other_allowed_algorithms_verify(name: str, bits: int, method: object) -> None:
    by, root = pair(name, bits=bits), signed(PARTNER)
    root = resign(root, by.xmlsec_key, [root[1], root[0][0][0]], method=method)
    assert verify(root, by.partner) is root[1]


def test_plain_ids_and_inclusive_prefixes_as_other_servers_write_them_are_taken() -> None:
    root = signed(PARTNER)
    body, timestamp = root[1], root[0][0][0]
    signature = root[0][0][2]
    root[0][0].remove(signature)
    template = xmlsec.template.create(root, constants.TransformExclC14N, constants.TransformRsaSha256)
    root[0][0].append(template)
    context = xmlsec.SignatureContext()
    context.key = PARTNER.xmlsec_key
    for element in (body, timestamp):
        value = element.attrib.pop(ID)
        element.set("Id", value)
        context.register_id(element, "Id")
        reference = xmlsec.template.add_reference(template, constants.TransformSha256, uri=f"#{value}")
        transform = xmlsec.template.add_transform(reference, constants.TransformExclC14N)
        xmlsec.template.transform_add_c14n_inclusive_namespaces(transform, ["S", "n"])
    context.sign(template)
    root = sent(root)
    assert verify(root, PARTNER.partner) is root[1]


def test_a_partner_may_change_its_certificate_without_a_gap() -> None:
    both = Partner.load(PARTNER.certificate + NEXT.certificate)
    for by in (PARTNER, NEXT):
        verify(signed(by), both)
        root = signed(by)
        verify(resign(root, by.xmlsec_key, [root[1], root[0][0][0]]), both)
    with pytest.raises(ContractBroken, match="not registered"):
        verify(signed(OURS), both)


@pytest.mark.parametrize(
    ("made", "life_s", "reason"),
    [
        (0, 300, None),
        (50, 300, None),
        (70, 300, "in the future"),
        (-50, 300, None),
        (-70, 300, "older than the question"),
        (-50, 1, None),
        (-59, 1, None),
    ],
)
def test_an_answer_is_as_fresh_as_its_question_give_or_take_a_minute(
    made: int, life_s: int, reason: str | None
) -> None:
    root = signed(PARTNER, NOW + timedelta(seconds=made), life_s=life_s)
    if reason is None:
        verify(root, PARTNER.partner, asked=NOW)
    else:
        with pytest.raises(ContractBroken, match=reason):
            verify(root, PARTNER.partner, asked=NOW)


@pytest.mark.parametrize(("waited", "life_s", "reason"), [(100, 10, "expired"), (400, 3600, "older")])
def test_a_slow_answer_may_be_too_old_though_the_question_is_older(waited: int, life_s: int, reason: str) -> None:
    root = signed(PARTNER, NOW - timedelta(seconds=waited), life_s=life_s)
    with pytest.raises(ContractBroken, match=reason):
        verify(root, PARTNER.partner, asked=NOW - timedelta(seconds=waited))


def test_an_answer_serves_once_and_another_like_it_too() -> None:
    seen, root = SeenAnswers(), signed(PARTNER)
    verify(root, PARTNER.partner, seen=seen)
    with pytest.raises(CallFailed, match="used before") as caught:
        verify(sent(root), PARTNER.partner, seen=seen)
    assert caught.value.acted
    verify(signed(PARTNER), PARTNER.partner, seen=seen)


def test_an_answer_that_was_refused_does_not_count_as_used() -> None:
    seen, root = SeenAnswers(), signed(PARTNER)
    with pytest.raises(ContractBroken, match="older"):
        verify(root, PARTNER.partner, NOW + timedelta(hours=1), seen=seen)
    verify(root, PARTNER.partner, seen=seen)


def test_what_was_seen_is_forgotten_when_it_is_stale_and_when_there_is_too_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(security_verify, "_MOST_SEEN", 3)
    seen, minute = SeenAnswers(), timedelta(minutes=1)
    assert [seen.first_time(value, NOW, NOW + minute) for value in (b"a", b"b", b"c", b"a", b"d")] == [
        True,
        True,
        True,
        False,
        True,
    ]
    assert seen.first_time(b"a", NOW, NOW + minute)
    assert not seen.first_time(b"d", NOW, NOW + minute)
    assert seen.first_time(b"e", NOW + 2 * minute, NOW + 3 * minute)
    assert seen.first_time(b"d", NOW + 2 * minute, NOW + 3 * minute)


@pytest.mark.parametrize(
    ("confirmed", "request_signature", "signed_too", "reason"),
    [
        (b"ours", b"ours", True, None),
        (None, None, True, None),
        (b"another", b"ours", True, "of another request"),
        (None, b"ours", True, "of another request"),
        (b"ours", None, True, "of another request"),
        (b"ours", b"ours", False, "not given once and signed"),
    ],
)
def test_a_signature_confirmation_must_be_of_our_request(
    confirmed: bytes | None, request_signature: bytes | None, signed_too: bool, reason: str | None
) -> None:
    root = signed(PARTNER)
    confirmation = etree.SubElement(root[0][0], f"{{{WSSE_11}}}SignatureConfirmation")
    confirmation.set(ID, "id-confirmation")
    if confirmed is not None:
        confirmation.set("Value", base64.b64encode(confirmed).decode())
    elements = [root[1], root[0][0][0], confirmation] if signed_too else [root[1], root[0][0][0]]
    root = resign(root, PARTNER.xmlsec_key, elements)
    if reason is None:
        verify(root, PARTNER.partner, request=request_signature)
    else:
        with pytest.raises(ContractBroken, match=reason):
            verify(root, PARTNER.partner, request=request_signature)


def with_password(key: bytes) -> bytes:
    loaded = load_pem_private_key(key, None)
    return loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


@pytest.mark.parametrize(
    ("key", "certificate", "text"),
    [
        (b"no key", OURS.certificate, "clave privada PEM"),
        (with_password(OURS.key), OURS.certificate, "sin contraseña"),
        (OURS.key, b"no certificate", "no es un certificado PEM"),
        (OURS.key, PARTNER.certificate, "no son del mismo par"),
        (pair("weak", bits=1024).key, pair("weak", bits=1024).certificate, "2048 bits"),
        (pair("curve", bits=256).key, pair("curve", bits=256).certificate, "debe ser RSA"),
    ],
    ids=["no key", "password", "no certificate", "two pairs", "weak", "curve"],
)
def test_a_key_that_cannot_sign_is_refused_at_start(key: bytes, certificate: bytes, text: str) -> None:
    with pytest.raises(UnusableKey, match=text):
        Signer.load(key, certificate)


@pytest.mark.parametrize("certificate", [b"", b"no certificate", pair("weak", bits=1024).certificate])
def test_a_certificate_that_cannot_be_trusted_is_refused_at_start(certificate: bytes) -> None:
    with pytest.raises(UnusableKey):
        Partner.load(certificate)


ASSERTION = (
    '<saml:Assertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" xmlns:xs="http://www.w3.org/2001/XMLSchema" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" ID="_a1" Version="2.0">\n'
    "  <saml:Issuer>https://sts.gov.py</saml:Issuer>\n"
    '  <saml:Conditions NotBefore="2026-03-04T11:59:00Z" NotOnOrAfter="2026-03-04T12:05:00Z"/>\n'
    "  <saml:AttributeStatement><saml:Attribute Name='rol'><saml:AttributeValue xsi:type='xs:string'>Técnico &amp; "
    "más</saml:AttributeValue></saml:Attribute></saml:AttributeStatement>\n</saml:Assertion>"
)


def assertion(c14n: object = constants.TransformExclC14N) -> bytes:
    """Make an assertion signed by the token service, as it would lie in a file."""
    root = etree.fromstring(ASSERTION)
    signature = xmlsec.template.create(root, c14n, constants.TransformRsaSha256, ns="ds")
    root.insert(1, signature)
    context = xmlsec.SignatureContext()
    context.key = NEXT.xmlsec_key
    context.register_id(root, "ID")
    reference = xmlsec.template.add_reference(signature, constants.TransformSha256, uri="#_a1")
    xmlsec.template.add_transform(reference, constants.TransformEnveloped)
    transform = xmlsec.template.add_transform(reference, c14n)
    if c14n is constants.TransformExclC14N:
        xmlsec.template.transform_add_c14n_inclusive_namespaces(transform, ["xs"])
    context.sign(signature)
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8")


def assertion_in(root: etree._Element) -> etree._Element:
    return next(root.iter("{urn:oasis:names:tc:SAML:2.0:assertion}Assertion"))


@pytest.mark.parametrize("soap", [SOAP_11, SOAP_12])
def test_a_signed_assertion_verifies_in_the_envelope_that_carries_it(soap: str) -> None:
    root = envelope(soap)
    secure(root, Security(timestamp_s=60, signer=OURS.signer), NOW, read_assertion(assertion(), NOW))
    received = assertion_in(sent(root))
    signature = received.find("ds:Signature", NAMES)
    assert signature is not None
    context = xmlsec.SignatureContext()
    context.key = NEXT.xmlsec_key
    context.register_id(received, "ID")
    context.verify(signature)
    canonical = [
        etree.tostring(each, method="c14n", exclusive=True) for each in (received, etree.fromstring(assertion()))
    ]
    assert canonical[0] == canonical[1]


@pytest.mark.parametrize(
    ("raw", "now", "reason"),
    [
        (assertion(), NOW + timedelta(minutes=5), "saml assertion expired"),
        (assertion(), NOW - timedelta(minutes=2), "saml assertion is not valid yet"),
        (ASSERTION.replace("2026-03-04T12:05:00Z", "soon").encode(), NOW, "date that cannot be read"),
        (assertion(constants.TransformInclC14N), NOW, "inclusive c14n"),
        (b"", NOW, "is not plain XML"),
        (b"not XML", NOW, "is not plain XML"),
        (b'<!DOCTYPE a [<!ENTITY e "x">]>' + ASSERTION.encode(), NOW, "is not plain XML"),
        (b"<a/>", NOW, "is not an assertion"),
        (ASSERTION.replace("Assertion", "EncryptedAssertion").encode(), NOW, "is not an assertion"),
        (ASSERTION.replace("SAML:2.0", "SAML:9").encode(), NOW, "is not an assertion"),
        (ASSERTION.replace("gov.py", "gov.py<!-- -->").encode(), NOW, "comment"),
        (ASSERTION.replace("gov.py", "gov.py<?x?>").encode(), NOW, "comment"),
    ],
)
def test_an_assertion_that_would_not_serve_stays_here(raw: bytes, now: datetime, reason: str) -> None:
    with pytest.raises(CallFailed, match=reason) as caught:
        read_assertion(raw, now)
    assert (caught.value.acted, caught.value.again) == (False, False)


def test_instants_with_an_offset_are_the_same_instants() -> None:
    shifted = ASSERTION.replace("2026-03-04T12:05:00Z", "2026-03-04T09:05:00.123456789-03:00")
    read_assertion(shifted.encode(), datetime(2026, 3, 4, 12, 4, 59, tzinfo=UTC))
    with pytest.raises(CallFailed, match="expired"):
        read_assertion(shifted.encode(), datetime(2026, 3, 4, 12, 5, 1, tzinfo=UTC))
