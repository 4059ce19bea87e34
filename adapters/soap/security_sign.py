"""Puts the wsse:Security header into a request: who asks, when, and a signature over what must not be changed.

OASIS WSS 1.1: SOAP Message Security, UsernameToken Profile, X.509 Token Profile (direct reference).
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import xmlsec
from lxml import etree

from adapters.soap.security import (
    BASE64,
    ID,
    SECURITY,
    SIGNATURE_VALUE,
    TIMESTAMP,
    USERNAME_PROFILE,
    WSSE,
    WSU,
    X509_V3,
    Signer,
    written,
)
from schemas.ids import uuid7

_NAMES = {"wsse": WSSE, "wsu": WSU}
_NONCE_BYTES = 16


@dataclass(frozen=True, slots=True)
class Username:
    """A name and password; ``nonce`` adds Nonce and Created, ``digest`` sends the digest of the three instead.

    The clear password belongs on TLS only; the digest is SHA-1 by the profile, and no better than the password's.
    """

    name: str
    password: str = field(repr=False)
    nonce: bool = False
    digest: bool = False


@dataclass(frozen=True, slots=True)
class Security:
    """What the header of every request to one producer holds; ``timestamp_s`` is the life of a request, in seconds."""

    username: Username | None = None
    timestamp_s: int | None = None
    signer: Signer | None = None


def secure(
    envelope: etree._Element, security: Security, now: datetime, assertion: etree._Element | None = None
) -> bytes | None:
    """Add the header to a SOAP 1.1 or 1.2 envelope and return the signature value, None where nothing is signed.

    Signs Body, Timestamp and UsernameToken (RSA-SHA256, exclusive c14n). Call it last and serialise without changing
    white space. ``assertion`` is moved in as it is: see :func:`adapters.soap.saml.read_assertion`.
    """
    soap = etree.QName(envelope).namespace
    header = header_of(envelope)
    element = etree.SubElement(header, SECURITY, {f"{{{soap}}}mustUnderstand": "1"}, nsmap=_NAMES)
    signed = []
    if security.timestamp_s is not None:
        timestamp = etree.SubElement(element, TIMESTAMP)
        _say(timestamp, WSU, "Created", written(now))
        _say(timestamp, WSU, "Expires", written(now + timedelta(seconds=security.timestamp_s)))
        signed.append(timestamp)
    if security.username is not None:
        signed.append(_username(element, security.username, now))
    if assertion is not None:
        element.append(assertion)
    if security.signer is None:
        return None
    body = envelope.find(f"{{{soap}}}Body")
    if body is None:
        raise ValueError("an envelope without Body")
    return _sign(element, security.signer, [body, *signed])


def header_of(envelope: etree._Element) -> etree._Element:
    """Return the Header of an envelope of ours, made where there is none."""
    tag = f"{{{etree.QName(envelope).namespace}}}Header"
    header = envelope.find(tag)
    if header is None:
        header = etree.Element(tag)
        envelope.insert(0, header)
    return header


def _username(security: etree._Element, username: Username, now: datetime) -> etree._Element:
    token = etree.SubElement(security, f"{{{WSSE}}}UsernameToken")
    _say(token, WSSE, "Username", username.name)
    nonce, created = secrets.token_bytes(_NONCE_BYTES), written(now)
    if username.digest:
        # UsernameToken Profile 1.1 clause 3.1 knows no other digest.
        digest = hashlib.sha1(nonce + created.encode() + username.password.encode(), usedforsecurity=False).digest()
        _say(token, WSSE, "Password", _text(digest), Type=f"{USERNAME_PROFILE}#PasswordDigest")
    else:
        _say(token, WSSE, "Password", username.password, Type=f"{USERNAME_PROFILE}#PasswordText")
    if username.nonce or username.digest:
        _say(token, WSSE, "Nonce", _text(nonce), EncodingType=BASE64)
        _say(token, WSU, "Created", created)
    return token


def _sign(security: etree._Element, signer: Signer, elements: list[etree._Element]) -> bytes:
    exclusive, token_id = xmlsec.constants.TransformExclC14N, _new_id()
    _say(security, WSSE, "BinarySecurityToken", signer.certificate, EncodingType=BASE64, ValueType=X509_V3).set(
        ID, token_id
    )
    signature = xmlsec.template.create(security, exclusive, xmlsec.constants.TransformRsaSha256, ns="ds")
    security.append(signature)
    context = xmlsec.SignatureContext()
    context.key = signer.key
    for element in elements:
        element.set(ID, _new_id())
        context.register_id(element, "Id", WSU)
        reference = xmlsec.template.add_reference(
            signature, xmlsec.constants.TransformSha256, uri=f"#{element.get(ID)}"
        )
        xmlsec.template.add_transform(reference, exclusive)
    key_info = xmlsec.template.ensure_key_info(signature)
    named = etree.SubElement(key_info, f"{{{WSSE}}}SecurityTokenReference")
    etree.SubElement(named, f"{{{WSSE}}}Reference", URI=f"#{token_id}", ValueType=X509_V3)
    context.sign(signature)
    return base64.b64decode(signature.findtext(SIGNATURE_VALUE) or "")


def _say(parent: etree._Element, namespace: str, name: str, text: str, **attributes: str) -> etree._Element:
    element = etree.SubElement(parent, f"{{{namespace}}}{name}", attributes)
    element.text = text
    return element


def _new_id() -> str:
    # An id must not start with a digit (xs:ID), as a UUID may.
    return f"id-{uuid7()}"


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
