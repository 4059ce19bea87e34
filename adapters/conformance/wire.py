"""How a recorded answer goes over HTTP: its body as it is, or for SOAP in an envelope like that of the request."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

from lxml import etree

from adapters.conformance.cases import Answer
from adapters.conformance.documents import Document, XmlDocument, document_of
from adapters.conformance.server import Act, Request, Wire, http
from adapters.manifest import Manifest
from adapters.soap.message import SOAP_11, SOAP_12
from adapters.soap.security import Signer
from adapters.soap.security_sign import Security, header_of, secure

_MEDIA = {SOAP_11: "text/xml", SOAP_12: "application/soap+xml"}
_FAULTS = {
    SOAP_11: "<f:Fault xmlns:f='{ns}'><faultcode>f:{old}</faultcode><faultstring>x</faultstring></f:Fault>",
    SOAP_12: "<f:Fault xmlns:f='{ns}'><f:Code><f:Value>f:{new}</f:Value></f:Code>"
    "<f:Reason><f:Text xml:lang='es'>x</f:Text></f:Reason></f:Fault>",
}
#: Makes the bytes of a body and their media type, for a request.
Writer = Callable[[Request], tuple[bytes, str]]


class Carrier:
    """Puts bodies on the wire as a manifest's kind has them."""

    def __init__(self, manifest: Manifest, partner: Signer | None = None) -> None:
        self.soap, self._xroad, self._partner = manifest.kind == "soap", bool(manifest.xroad), partner

    def acts(self, answers: Sequence[Answer]) -> list[Act]:
        """Make what answers one question: an act for each page."""
        return [self.act(answer, document_of(answer)) for answer in answers]

    def act(
        self, answer: Answer, document: Document, *, status: int | None = None, charset: str = "utf-8",
        told: str | None = None, note: bool = False, then: str = "close",
        change: Callable[[bytes], bytes] | None = None,
    ) -> Act:  # fmt: skip
        """Make one answer. ``charset`` it is written in, ``told`` the one declared; ``change`` is done to its bytes."""

        def wire(request: Request) -> bytes:
            body, media = self.write(document, request, charset, note)
            body = body if change is None else change(body)
            media = f"{media}; charset={told or charset}"
            return http(answer.status if status is None else status, body, media, answer.headers)

        return Act(wire, then)

    def write(self, document: Document, request: Request, charset: str, note: bool) -> tuple[bytes, str]:
        """Write a body; gives its media type too."""
        if not self.soap or not isinstance(document, XmlDocument):
            return document.raw(charset, note), document.media
        envelope, namespace = self._envelope(document.root, request)
        if note:
            envelope.insert(0, etree.Comment("Ñandutí"))
        written = cast(bytes, etree.tostring(envelope, xml_declaration=True, encoding=charset))
        return written, _MEDIA[namespace]

    def fault(self, request: Request, old: str, new: str) -> XmlDocument:
        """Make a fault in the version of SOAP that was asked in."""
        namespace = _version(request)
        text = _FAULTS[namespace].format(ns=namespace, old=old, new=new)
        return XmlDocument(etree.fromstring(text))

    def _envelope(self, root: etree._Element, request: Request) -> tuple[etree._Element, str]:
        namespace = _version(request)
        if etree.QName(root).localname == "Envelope":
            envelope = copy.deepcopy(root)
            namespace = etree.QName(root).namespace or namespace
        else:
            envelope = etree.Element(f"{{{namespace}}}Envelope", nsmap={"soap": namespace})
            etree.SubElement(envelope, f"{{{namespace}}}Body").append(copy.deepcopy(root))
        # Faults carry no X-Road headers.
        if etree.QName(root).localname != "Fault":
            self._repeat_headers(envelope, namespace, request)
        if self._partner is not None:
            secure(envelope, Security(timestamp_s=300, signer=self._partner), datetime.now(UTC))
        return envelope, namespace

    def _repeat_headers(self, envelope: etree._Element, namespace: str, request: Request) -> None:
        if not self._xroad:
            return
        asked = etree.fromstring(request.body).find(f"{{{namespace}}}Header")
        header = header_of(envelope)
        for item in () if asked is None else asked:
            if "x-road.eu" in str(etree.QName(item).namespace):
                header.append(copy.deepcopy(item))


@dataclass(frozen=True, slots=True)
class Carriers:
    """How answers are to come, and by the name of a case, how they must not."""

    right: Carrier
    wrong: Mapping[str, Carrier] = field(default_factory=dict)


def says(status: int, body: bytes, media: str = "application/json", **headers: str) -> Act:
    """Make an answer of fixed bytes; an underscore in a header's name stands for a hyphen."""
    written = http(status, body, media, [(name.replace("_", "-"), value) for name, value in headers.items()])
    return raw(written)


def raw(content: bytes, then: str = "close") -> Act:
    """Make an answer of bytes that need not be HTTP."""
    wire: Wire = lambda _request: content  # noqa: E731 - the type is the point
    return Act(wire, then)


def _version(request: Request) -> str:
    return SOAP_12 if SOAP_12.encode() in request.body else SOAP_11
