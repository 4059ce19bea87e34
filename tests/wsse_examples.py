"""Keys, certificates and signed SOAP answers made for the tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import xmlsec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from lxml import etree
from xmlsec import constants

from adapters.soap.security import DS, ID, WSU, Partner, Signer
from adapters.soap.security_sign import Security, secure
from adapters.soap.security_verify import SeenAnswers, verify_answer
from adapters.xmltree import parse

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
SOAP_11 = "http://schemas.xmlsoap.org/soap/envelope/"
SOAP_12 = "http://www.w3.org/2003/05/soap-envelope"
ENVELOPE = (
    '<S:Envelope xmlns:S="{soap}"><S:Body><n:Answer xmlns:n="urn:answer"><cedula>4123456</cedula>'
    "<nombre>MARÍA &lt;NÚÑEZ&gt;</nombre></n:Answer></S:Body></S:Envelope>"
)


@dataclass(frozen=True)
class Pair:
    """A private key and its certificate, both PEM."""

    key: bytes
    certificate: bytes

    @property
    def xmlsec_key(self) -> xmlsec.Key:
        return xmlsec.Key.from_memory(self.key, constants.KeyDataFormatPem)

    @property
    def signer(self) -> Signer:
        return Signer.load(self.key, self.certificate)

    @property
    def partner(self) -> Partner:
        return Partner.load(self.certificate)


@cache
def pair(name: str, *, bits: int = 2048, days: int = 30) -> Pair:
    """Make an RSA key (P-256 where ``bits`` is 256) and a certificate from a day before NOW for ``days`` days."""
    key = ec.generate_private_key(ec.SECP256R1()) if bits == 256 else rsa.generate_private_key(65537, bits)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = NOW - timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    certificate = builder.not_valid_before(start).not_valid_after(start + timedelta(days=days)).sign(key, SHA256())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Pair(private, certificate.public_bytes(Encoding.PEM))


def envelope(soap: str = SOAP_11) -> etree._Element:
    """Parse an envelope without header."""
    return parse(ENVELOPE.format(soap=soap).encode())


def sent(root: etree._Element) -> etree._Element:
    """Return the envelope as the other side parses it."""
    return parse(etree.tostring(root, xml_declaration=True, encoding="UTF-8"))


def signed(pair: Pair, at: datetime = NOW, soap: str = SOAP_11, life_s: int = 300) -> etree._Element:
    """Make a signed answer and parse it."""
    root = envelope(soap)
    secure(root, Security(timestamp_s=life_s, signer=pair.signer), at)
    return sent(root)


def verify(
    root: etree._Element,
    partner: Partner,
    now: datetime = NOW,
    *,
    asked: datetime | None = None,
    seen: SeenAnswers | None = None,
    request: bytes | None = None,
) -> etree._Element:
    """Verify an answer to a question asked a second before ``now``."""
    asked = now - timedelta(seconds=1) if asked is None else asked
    return verify_answer(root, partner, now=now, asked=asked, seen=seen or SeenAnswers(), request_signature=request)


def resign(
    root: etree._Element,
    key: xmlsec.Key,
    elements: Iterable[etree._Element],
    *,
    c14n: Any = constants.TransformExclC14N,
    method: Any = constants.TransformRsaSha256,
    digest: Any = constants.TransformSha256,
    transforms: Iterable[Any] = (constants.TransformExclC14N,),
) -> etree._Element:
    """Put another signature, without KeyInfo, in the place of an answer's; returns it as parsed by us."""
    old = next(root.iter(f"{{{DS}}}Signature"))
    security = old.getparent()
    assert security is not None
    security.remove(old)
    signature = xmlsec.template.create(security, c14n, method, ns="ds")
    security.append(signature)
    context = xmlsec.SignatureContext()
    context.key = key
    for element in elements:
        context.register_id(element, "Id", WSU)
        reference = xmlsec.template.add_reference(signature, digest, uri=f"#{element.get(ID)}")
        for transform in transforms:
            node = xmlsec.template.add_transform(reference, transform)
            if transform is constants.TransformXPath:
                etree.SubElement(node, f"{{{DS}}}XPath").text = "not(ancestor-or-self::cedula)"
    context.sign(signature)
    return sent(root)
