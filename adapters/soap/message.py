"""Decides what bytes are a SOAP envelope of ours: charset, no DOCTYPE, one element in the Body, or a fault.

Everything here happens before any type of the WSDL is looked at, on a parser that expands and fetches nothing.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from lxml import etree

from adapters.errors import ContractBroken

SOAP_11 = "http://schemas.xmlsoap.org/soap/envelope/"
SOAP_12 = "http://www.w3.org/2003/05/soap-envelope"
_IN_HEADER = re.compile(r"charset\s*=\s*\"?([A-Za-z0-9._:-]+)", re.IGNORECASE)
_DECLARATION = re.compile(rb"\s*<\?xml\s[^>]*?(?:encoding\s*=\s*[\"']([A-Za-z0-9._:-]+)[\"'][^>]*)?\?>")
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_LONGEST_TEXT = 500


@dataclass(frozen=True, slots=True)
class Fault:
    """A SOAP fault: code and reason as sent, local name of the element in its detail, and that element's texts."""

    code: str
    reason: str
    detail: str
    content: dict[str, str]


def open_envelope(body: bytes, content_type: str) -> etree._Element | Fault:
    """Return the one element in a SOAP 1.1 Body, or the fault, which may also be one of SOAP 1.2.

    Raises ContractBroken, the text never holding content: not the charset declared, not XML, a DOCTYPE (whatever it
    declares), no envelope, an empty Body or one with several elements.
    """
    root = _parse(_in_utf8(body, content_type))
    name = etree.QName(root)
    if name.localname != "Envelope" or name.namespace not in (SOAP_11, SOAP_12):
        raise ContractBroken("the answer is not a SOAP envelope")
    content = root.findall(f"{{{name.namespace}}}Body/*")
    if len(content) != 1:
        raise ContractBroken(f"the SOAP Body holds {len(content)} elements")
    if content[0].tag == f"{{{name.namespace}}}Fault":
        return _fault_11(content[0]) if name.namespace == SOAP_11 else _fault_12(content[0])
    if name.namespace != SOAP_11:
        raise ContractBroken("the answer is SOAP 1.2, the contract 1.1")
    return content[0]


def _parse(xml: bytes) -> etree._Element:
    # A parser per answer: lxml parsers are not to be shared between threads, and large answers are read in one.
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(xml, parser)
    except etree.XMLSyntaxError:
        raise ContractBroken("the answer is not XML") from None
    if root.getroottree().docinfo.internalDTD is not None:
        raise ContractBroken("the answer has a DOCTYPE")
    return root


def _in_utf8(body: bytes, content_type: str) -> bytes:
    """Decide the charset: byte order mark, HTTP header, XML declaration, in this order (RFC 7303 clause 3).

    Where header and declaration disagree and it matters, neither is believed: the wrong one gives wrong names.
    """
    for mark, charset in _BOMS:
        if body.startswith(mark):
            return _decoded(body.removeprefix(mark), charset)
    in_header = _IN_HEADER.search(content_type)
    declaration = _DECLARATION.match(body)
    header = _codec(in_header[1]) if in_header else None
    declared = _codec(declaration[1].decode("ascii")) if declaration and declaration[1] else None
    if header and declared and header != declared and not body.isascii():
        raise ContractBroken("the HTTP header and the XML declaration state different charsets")
    charset = header or declared or "utf-8"
    # The parser is told UTF-8, which overrules what the declaration says.
    return body if charset == "utf-8" else _decoded(body, charset)


def _codec(name: str) -> str:
    try:
        return codecs.lookup(name).name
    except LookupError:
        raise ContractBroken("the answer is in an unknown charset") from None


def _decoded(body: bytes, charset: str) -> bytes:
    try:
        return body.decode(charset).encode()
    except (LookupError, UnicodeError):
        raise ContractBroken("the answer is not in the charset it declares") from None


def _fault_11(fault: etree._Element) -> Fault:
    code = _text(fault.find("faultcode"))
    return _fault(code, _text(fault.find("faultstring")), fault.find("detail"))


def _fault_12(fault: etree._Element) -> Fault:
    ns = f"{{{SOAP_12}}}"
    code = _text(fault.find(f"{ns}Code/{ns}Value"))
    return _fault(code, _text(fault.find(f"{ns}Reason/{ns}Text")), fault.find(f"{ns}Detail"))


def _fault(code: str, reason: str, detail: etree._Element | None) -> Fault:
    first = next(iter(detail), None) if detail is not None else None
    name = "" if first is None else etree.QName(first).localname
    content = {} if first is None else {etree.QName(item).localname: _text(item) for item in first}
    return Fault(code.rpartition(":")[2], reason, name, content)


def _text(element: etree._Element | None) -> str:
    return "" if element is None else (element.text or "").strip()[:_LONGEST_TEXT]
