"""Wires what a manifest asks of WS-Security, SAML and X-Road: into each request, and of an answer before it is read."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from lxml import etree

from adapters.base import Secrets
from adapters.errors import CallFailed, ContractBroken, ManifestError
from adapters.manifest import Manifest
from adapters.soap.attachments import Attachments
from adapters.soap.message import Fault, content_of
from adapters.soap.saml import read_assertion
from adapters.soap.security import Partner, Signer, UnusableKey
from adapters.soap.security_sign import Security, Username, secure
from adapters.soap.security_verify import SeenAnswers, verify_answer
from adapters.soap.xroad import Identifier, XRoadRequest, add_headers, check_answer, member, service
from adapters.xmltree import parse
from schemas.text import _


@dataclass(frozen=True, slots=True)
class Sealed:
    """A request as it leaves, and what its answer is held against."""

    content: bytes
    at: datetime
    signature: bytes | None = None
    xroad: XRoadRequest | None = None


class Protection:
    """What one producer's messages carry beside their content, made once."""

    def __init__(self, manifest: Manifest, secret: Secrets, now: Callable[[], datetime]) -> None:
        """Read the secrets; raise :class:`~adapters.errors.ManifestError` for one that is not there or no use."""
        said, self._now = manifest.security, now
        username = Username(said["username"], secret("security", "password")) if "username" in said else None
        signer, self._partner = None, None
        place = ["security", "certificate"]
        try:
            if "certificate" in said:
                pem = secret(*place).encode()
                signer = Signer.load(pem, pem)
            if "partner" in said:
                place = ["security", "partner"]
                self._partner = Partner.load(secret(*place).encode())
        except UnusableKey as error:
            manifest.source.refuse(place, str(error))
        self._security = Security(username, said.get("timestamp_s"), signer) if said.keys() - {"partner"} else None
        # Others keep the assertion fresh, so it is read for each request.
        self._assertion = (lambda: secret("security", "saml")) if "saml" in said else None
        self._client = member(manifest.xroad["client"]) if manifest.xroad else None
        self._xroad, self._seen = manifest.xroad, SeenAnswers()
        self.active = bool(said or manifest.xroad)
        #: Signing and checking a signature take a processor's millisecond each.
        self.slow = signer is not None or self._partner is not None

    def seal(self, content: bytes, service_code: str, issue: str | None) -> Sealed:
        """Add the headers; raise CallFailed where there is no assertion to send."""
        now = self._now()
        if not self.active:
            return Sealed(content, now)
        envelope, request, signature = parse(content), None, None
        if self._client is not None:
            provider = xroad_service(self._xroad["service"], service_code, self._xroad.get("version"))
            request = XRoadRequest(self._client, provider, str(uuid.uuid4()), issue=issue)
            add_headers(envelope, request)
        if self._security is not None:
            signature = secure(envelope, self._security, now, self._read_assertion(now))
        sealed = etree.tostring(envelope, xml_declaration=True, encoding="UTF-8")
        return Sealed(sealed, now, signature, request)

    def open(
        self, envelope: etree._Element, attachments: Attachments, sealed: Sealed, soap: str
    ) -> etree._Element | Fault:
        """Return what the Body holds, once it is proved to answer the request.

        Raises ContractBroken, and CallFailed for an answer used before or a fault that nobody vouches for.
        """
        found = content_of(envelope, soap)
        if self._partner is not None:
            self._verify(envelope, sealed, fault=isinstance(found, Fault))
            if len(attachments):
                raise ContractBroken("the answer has parts that the signature does not cover")
        if isinstance(found, Fault):
            return found
        if sealed.xroad is not None:
            check_answer(envelope, sealed.xroad, sealed.content)
        attachments.place(found)
        return found

    def _verify(self, envelope: etree._Element, sealed: Sealed, *, fault: bool) -> None:
        if self._partner is None:
            return
        try:
            verify_answer(
                envelope,
                self._partner,
                now=self._now(),
                asked=sealed.at,
                seen=self._seen,
                request_signature=sealed.signature,
            )
        except ContractBroken:
            # Many services sign no faults. What such a fault says is not believed, only that something is wrong.
            if fault:
                raise CallFailed("a fault that is not signed by the producer") from None
            raise

    def _read_assertion(self, now: datetime) -> etree._Element | None:
        if self._assertion is None:
            return None
        try:
            return read_assertion(self._assertion().encode(), now)
        except ManifestError:
            raise CallFailed("no SAML assertion to send", acted=False, again=False) from None


def check_protection(manifest: Manifest) -> None:
    """Refuse a manifest for what is wrong in its security and xroad, before any secret is read."""
    refuse = manifest.source.refuse
    if "certificate" in manifest.security and "timestamp_s" not in manifest.security:
        refuse(["security"], _("lo firmado debe llevar su plazo: falta timestamp_s"))
    said = manifest.xroad
    for name, text in said.items():
        try:
            if name == "client":
                member(text)
            else:
                xroad_service(said["service"], "x", said.get("version") if name == "version" else None)
        except ValueError as error:
            refuse(["xroad", name], str(error))


def xroad_service(provider: str, code: str, version: str | None) -> Identifier:
    """Return the identifier of a provider's service; its code is the request element's name (PR-MESS 2.7)."""
    return service("/".join([provider, code, *([version] if version else [])]))
