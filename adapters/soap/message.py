"""Decides what bytes are a SOAP envelope of ours: charset, no DOCTYPE, one element in the Body, or a fault.

Everything here happens before any type of the WSDL is looked at, on a parser that expands and fetches nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lxml import etree

from adapters.errors import ContractBroken
from adapters.xmltree import in_utf8, parse, tree

SOAP_11 = "http://schemas.xmlsoap.org/soap/envelope/"
SOAP_12 = "http://www.w3.org/2003/05/soap-envelope"
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
_LONGEST_TEXT = 500


@dataclass(frozen=True, slots=True)
class Fault:
    """A SOAP fault: code, innermost subcode and reason as sent, the local name of what its detail holds, and that.

    ``content`` is the content of the one element in the detail, or of the detail itself where it holds several.
    """

    code: str
    reason: str
    detail: str = ""
    content: Any = None
    subcode: str = ""

    @property
    def name(self) -> str:
        """What a rule of a manifest knows it by: its detail, else its most particular code."""
        return self.detail or self.subcode or self.code or "Fault"

    def document(self) -> dict[str, Any]:
        """Lay it out for the rules of a manifest."""
        return {"code": self.code, "subcode": self.subcode, "reason": self.reason, "detail": self.content}


def open_envelope(body: bytes, content_type: str) -> etree._Element:
    """Return the envelope of an answer that is no multipart message.

    Raises ContractBroken, the text never holding content: not the charset declared, not XML, a DOCTYPE (whatever it
    declares), no envelope.
    """
    root = parse(in_utf8(body, content_type))
    if root.tag not in (f"{{{SOAP_11}}}Envelope", f"{{{SOAP_12}}}Envelope"):
        raise ContractBroken("the answer is not a SOAP envelope")
    return root


def content_of(envelope: etree._Element, soap: str) -> etree._Element | Fault:
    """Return the one element in an envelope's Body, or the fault, which may also be of the other SOAP version.

    Raises ContractBroken for an empty Body, one with several elements, and an answer of another version than ``soap``.
    """
    version = etree.QName(envelope).namespace
    content = envelope.findall(f"{{{version}}}Body/*")
    if len(content) != 1:
        raise ContractBroken(f"the SOAP Body holds {len(content)} elements")
    if content[0].tag == f"{{{version}}}Fault":
        return _fault(content[0])
    if version != soap:
        raise ContractBroken("the answer is not of the contract's SOAP version")
    return content[0]


def _fault(fault: etree._Element) -> Fault:
    """Read a fault of either version by local names: some servers write one version's members in the other."""
    code, subcode = _child(fault, "Code"), ""
    inner = _child(code, "Subcode")
    while inner is not None:
        subcode, inner = _code(_child(inner, "Value")), _child(inner, "Subcode")
    detail = _child(fault, "detail", "Detail")
    name, content = "", None
    if detail is not None:
        children = list(detail)
        name = etree.QName(children[0]).localname if children else ""
        content = _stripped(tree(children[0] if len(children) == 1 else detail))
    return Fault(
        _code(_child(fault, "faultcode") if code is None else _child(code, "Value")),
        _reason(fault),
        name,
        content,
        subcode,
    )


def _child(element: etree._Element | None, *names: str) -> etree._Element | None:
    if element is None:
        return None
    return next((child for child in element if etree.QName(child).localname in names), None)


def _code(element: etree._Element | None) -> str:
    return _text(element).rpartition(":")[2]


def _reason(fault: etree._Element) -> str:
    """Return what the fault says, in Spanish where it says it in several languages (SOAP 1.2 clause 5.4.2)."""
    reason = _child(fault, "Reason")
    if reason is None:
        return _text(_child(fault, "faultstring"))
    texts = [child for child in reason if etree.QName(child).localname == "Text"]
    spanish = [text for text in texts if text.get(_LANGUAGE, "").lower().partition("-")[0] == "es"]
    return _text(next(iter([*spanish, *texts]), None))


def _text(element: etree._Element | None) -> str:
    return "" if element is None else (element.text or "").strip()[:_LONGEST_TEXT]


def _stripped(content: Any) -> Any:
    """Take the white space off the texts of a tree."""
    if isinstance(content, str):
        return content.strip()
    if isinstance(content, dict):
        return {name: _stripped(value) for name, value in content.items()}
    return [_stripped(value) for value in content] if isinstance(content, list) else content
