"""X-Road message headers as consumer: who asks whom for what, and that the answer is to that very question.

X-Road: Message Protocol 4.0 (PR-MESS) and its Third Party Representation extension (PR-THIRDPARTY).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass

from lxml import etree

from adapters.errors import ContractBroken
from adapters.soap.security_sign import header_of
from schemas.text import _

_XROAD = "http://x-road.eu/xsd/xroad.xsd"
_IDENTIFIERS = "http://x-road.eu/xsd/identifiers"
_REPRESENTATION = "http://x-road.eu/xsd/representation.xsd"
_NAMES = {"xroad": _XROAD, "id": _IDENTIFIERS, "repr": _REPRESENTATION}
_OBJECT_TYPE = f"{{{_IDENTIFIERS}}}objectType"
_HASH = f"{{{_XROAD}}}requestHash"
_VERSION = "4.0"
_MEMBER = ("xRoadInstance", "memberClass", "memberCode", "subsystemCode")
# No separator, no path step, nothing invisible (PR-MESS 2.7); at the ends no space, which answers do not keep.
_CODE = re.compile(r"(?!\.\.?$)[^\s/\\%:;](?:[^/\\%:;\x00-\x1f\x7f]*[^\s/\\%:;])?")
_ALGORITHMS = {
    "http://www.w3.org/2001/04/xmlenc#sha512": hashlib.sha512,
    "http://www.w3.org/2001/04/xmldsig-more#sha384": hashlib.sha384,
    "http://www.w3.org/2001/04/xmlenc#sha256": hashlib.sha256,
}


@dataclass(frozen=True, slots=True)
class Identifier:
    """An X-Road identifier: its object type and its parts, by element name, in their order."""

    object_type: str
    parts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Party:
    """The institution that a request is made for."""

    code: str
    party_class: str | None = None


@dataclass(frozen=True, slots=True)
class XRoadRequest:
    """The headers of one request; ``id`` is unique, ``issue`` our case number, ``user_id`` starts with the country."""

    client: Identifier
    service: Identifier
    id: str
    user_id: str | None = None
    issue: str | None = None
    represented: Party | None = None


def member(text: str) -> Identifier:
    """Read ``instance/class/member`` or ``instance/class/member/subsystem``; raise ValueError saying what is wrong."""
    codes = _codes(text)
    if len(codes) not in (3, 4):
        raise ValueError(_("se esperaba instancia/clase/miembro/subsistema"))
    return Identifier("SUBSYSTEM" if len(codes) == 4 else "MEMBER", tuple(zip(_MEMBER, codes, strict=False)))


def service(text: str) -> Identifier:
    """Read ``instance/class/member/subsystem/service``, with ``/version`` where it has one; raise ValueError."""
    codes = _codes(text)
    if len(codes) not in (5, 6):
        raise ValueError(_("se esperaba instancia/clase/miembro/subsistema/servicio, y la versión si tiene"))
    return Identifier("SERVICE", tuple(zip((*_MEMBER, "serviceCode", "serviceVersion"), codes, strict=False)))


def add_headers(envelope: etree._Element, request: XRoadRequest) -> None:
    """Add the headers of a request to a SOAP envelope."""
    header = header_of(envelope)
    _identify(header, "client", request.client)
    _identify(header, "service", request.service)
    if request.represented is not None:
        party = _say(header, _REPRESENTATION, "representedParty")
        if request.represented.party_class is not None:
            _say(party, _REPRESENTATION, "partyClass", request.represented.party_class)
        _say(party, _REPRESENTATION, "partyCode", request.represented.code)
    for name, value in (("id", request.id), ("userId", request.user_id), ("issue", request.issue)):
        if value is not None:
            _say(header, _XROAD, name, value)
    _say(header, _XROAD, "protocolVersion", _VERSION)


def check_answer(envelope: etree._Element, request: XRoadRequest, posted: bytes) -> bool:
    """Check that an answer, no fault, repeats each header of its request once and as it was (PR-MESS 2.2).

    Returns whether a requestHash proves that it is to the bytes ``posted`` (of the SOAP part); False where there is
    none. Raises ContractBroken for a header that is missing, repeated or changed, and for a hash that differs.
    """
    soap = etree.QName(envelope).namespace
    header = envelope.find(f"{{{soap}}}Header")
    found = [] if header is None else list(header)
    asked = etree.Element(f"{{{soap}}}Envelope")
    add_headers(asked, request)
    for field in header_of(asked):
        name = etree.QName(field).localname
        same = [element for element in found if element.tag == field.tag]
        if len(same) != 1:
            raise ContractBroken(f"X-Road header {name}: in the answer {len(same)} times")
        if _value(same[0]) != _value(field):
            raise ContractBroken(f"X-Road header {name}: not the request's")
    hashes = [element for element in found if element.tag == _HASH]
    if len(hashes) > 1:
        raise ContractBroken("X-Road header requestHash: in the answer several times")
    return bool(hashes) and _proves(hashes[0], posted)


def _codes(text: str) -> list[str]:
    codes = text.split("/")
    if not all(_CODE.fullmatch(code) for code in codes):
        raise ValueError(_("un código está vacío o tiene un signo que X-Road no admite"))
    return codes


def _identify(header: etree._Element, name: str, identifier: Identifier) -> None:
    element = _say(header, _XROAD, name)
    element.set(_OBJECT_TYPE, identifier.object_type)
    for part, code in identifier.parts:
        _say(element, _IDENTIFIERS, part, code)


def _say(parent: etree._Element, namespace: str, name: str, text: str | None = None) -> etree._Element:
    element = etree.SubElement(parent, f"{{{namespace}}}{name}", nsmap=_NAMES)
    element.text = text
    return element


def _value(element: etree._Element) -> tuple[object, ...]:
    """Return what a header says, whatever its prefixes and, between elements, its white space."""
    text = "" if len(element) else element.text or ""
    object_type = element.get(_OBJECT_TYPE)
    return element.tag, object_type, text, [_value(child) for child in element]


def _proves(element: etree._Element, posted: bytes) -> bool:
    algorithm = _ALGORITHMS.get(element.get("algorithmId", ""))
    if algorithm is None:
        raise ContractBroken("X-Road header requestHash: algorithm not known")
    expected = base64.b64encode(algorithm(posted).digest()).decode()
    if not hmac.compare_digest("".join((element.text or "").split()).encode(), expected.encode()):
        raise ContractBroken("X-Road header requestHash: not of the bytes sent")
    return True
