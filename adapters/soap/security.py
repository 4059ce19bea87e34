"""Decides which keys may sign a SOAP message: ours for requests, a producer's registered certificates for its answers.

Also the names of WS-Security that both directions share (OASIS WSS 1.1, SOAP Message Security and X.509 Token Profile).
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from datetime import UTC, datetime

import xmlsec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, SECP521R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from lxml import etree

from schemas.text import _

_OASIS = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss"
WSSE = f"{_OASIS}-wssecurity-secext-1.0.xsd"
WSU = f"{_OASIS}-wssecurity-utility-1.0.xsd"
WSSE_11 = "http://docs.oasis-open.org/wss/oasis-wss-wssecurity-secext-1.1.xsd"
DS = "http://www.w3.org/2000/09/xmldsig#"
EXCLUSIVE_C14N = "http://www.w3.org/2001/10/xml-exc-c14n#"
USERNAME_PROFILE = f"{_OASIS}-username-token-profile-1.0"
BASE64 = f"{_OASIS}-soap-message-security-1.0#Base64Binary"
X509_V3 = f"{_OASIS}-x509-token-profile-1.0#X509v3"
SECURITY = f"{{{WSSE}}}Security"
TIMESTAMP = f"{{{WSU}}}Timestamp"
ID = f"{{{WSU}}}Id"
SIGNATURE_VALUE = f"{{{DS}}}SignatureValue"

_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_SMALLEST_RSA = 2048
_CURVES = (SECP256R1, SECP384R1, SECP521R1)


class UnusableKey(ValueError):
    """A key or certificate cannot be used; the text says why, never showing any of it."""


@dataclass(frozen=True, slots=True)
class Signer:
    """Our key and the certificate of it, in base64, that travels with each request."""

    key: xmlsec.Key
    certificate: str

    @classmethod
    def load(cls, key_pem: bytes, certificate_pem: bytes) -> Signer:
        """Read an RSA key without password and its certificate; raise :class:`UnusableKey`."""
        try:
            key = load_pem_private_key(key_pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise UnusableKey(_("no es una clave privada PEM sin contraseña")) from None
        certificate = _certificates(certificate_pem)[0]
        if not isinstance(certificate.public_key(), RSAPublicKey):
            raise UnusableKey(_("la clave debe ser RSA"))
        if key.public_key() != certificate.public_key():
            raise UnusableKey(_("la clave y el certificado no son del mismo par"))
        signing = xmlsec.Key.from_memory(key_pem, xmlsec.constants.KeyDataFormatPem)
        return cls(signing, base64.b64encode(certificate.public_bytes(Encoding.DER)).decode())


@dataclass(frozen=True, slots=True)
class Registered:
    """A certificate that a producer registered with us; valid from ``start`` to ``end``, both included."""

    der: bytes
    key: xmlsec.Key
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Partner:
    """The certificates a producer may sign with: one, or two while it changes them."""

    certificates: tuple[Registered, ...]

    @classmethod
    def load(cls, certificates_pem: bytes) -> Partner:
        """Read one or more certificates of a PEM file; raise :class:`UnusableKey`."""
        return cls(tuple(_registered(certificate) for certificate in _certificates(certificates_pem)))


def written(moment: datetime) -> str:
    """Write an instant as WSS 1.1 clause 10 asks: xs:dateTime in UTC, here to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def instant(text: str | None) -> datetime:
    """Read an xs:dateTime that has a time zone; raise ValueError for anything else."""
    if not _INSTANT.fullmatch(value := (text or "").strip()):
        raise ValueError("not an instant with its time zone")
    return datetime.fromisoformat(value)


def _certificates(pem: bytes) -> list[x509.Certificate]:
    """Read certificates whose keys are strong enough (NIST SP 800-57: 112 bits)."""
    try:
        certificates = x509.load_pem_x509_certificates(pem)
        keys = [certificate.public_key() for certificate in certificates]
    except (ValueError, UnsupportedAlgorithm):
        raise UnusableKey(_("no es un certificado PEM")) from None
    for key in keys:
        strong_rsa = isinstance(key, RSAPublicKey) and key.key_size >= _SMALLEST_RSA
        if not strong_rsa and not (isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)):
            raise UnusableKey(_("la clave del certificado no es RSA de 2048 bits o más, ni P-256, P-384 o P-521"))
    return certificates


def _registered(certificate: x509.Certificate) -> Registered:
    public = certificate.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return Registered(
        certificate.public_bytes(Encoding.DER),
        xmlsec.Key.from_memory(public, xmlsec.constants.KeyDataFormatPem),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


# An attribute needs a prefix, and the Body that gets a wsu:Id was made by others.
etree.register_namespace("wsu", WSU)
