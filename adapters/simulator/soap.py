"""The little of SOAP the simulated services need: read one operation, write an answer or a fault, in 1.1 or 1.2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from lxml import etree

from adapters.simulator.web import XML, Reply, Request

_ENVELOPE = "http://schemas.xmlsoap.org/soap/envelope/"
SOAP_12 = "http://www.w3.org/2003/05/soap-envelope"
_MEDIA = {_ENVELOPE: XML, SOAP_12: "application/soap+xml; charset=utf-8"}
#: What SOAP 1.2 clause 5.4.6 calls the codes of 1.1.
_CODES_12 = {"Client": "Sender", "Server": "Receiver"}
_WSDL = Path(__file__).parents[1] / "manifests" / "wsdl"
#: What an element holds: nothing said, a text, or elements in order.
Content = str | Sequence[tuple[str, "Content"]]


class Fault(ValueError):
    """A SOAP 1.1 fault: ``faultcode`` without prefix, ``faultstring`` and the element of its detail."""

    def __init__(self, code: str, text: str, detail: str = "", content: Content = ()) -> None:
        super().__init__(text)
        self.code, self.text, self.detail, self.content = code, text, detail, content


def wsdl(name: str, request: Request) -> Reply:
    """Serve a WSDL of the shipped manifests with the address the caller used in it."""
    address = f"http://{request.headers.get(b'host', b'localhost').decode('latin-1')}"
    text = (_WSDL / f"{name}.wsdl").read_text(encoding="utf-8")
    return Reply(200, text.replace(f"http://localhost/{name}", f"{address}/{name}").encode(), XML)


def read(body: bytes, namespace: str, envelope: str = _ENVELOPE) -> tuple[str, dict[str, str]]:
    """Return the operation's name and its parameters; raise :class:`Fault` for what is no call of ours."""
    # Entities stay unread and nothing is fetched: what a stranger sends may be hostile.
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(body, parser)
    except etree.XMLSyntaxError:
        raise Fault("Client", "Couldn't create SOAP message due to exception: XML reader error") from None
    if root.getroottree().docinfo.internalDTD is not None or root.tag != f"{{{envelope}}}Envelope":
        raise Fault("Client", "Not a SOAP message of this version")
    call = root.find(f"{{{envelope}}}Body/*")
    if call is None or etree.QName(call).namespace != namespace:
        raise Fault("Client", "Cannot find dispatch method")
    parameters = {
        etree.QName(child).localname: (child.text or "").strip() for child in call.iterchildren(tag=etree.Element)
    }
    return etree.QName(call).localname, parameters


def answer(
    namespace: str,
    element: str,
    content: Content,
    *,
    qualified: bool,
    effect: bool = True,
    version: str = _ENVELOPE,
    charset: str = "utf-8",
) -> Reply:
    """Answer an element of the service's namespace; ``qualified`` says whether its children are in it too."""
    envelope, body = _envelope(namespace, version)
    child = etree.SubElement(body, f"{{{namespace}}}{element}")
    _fill(child, content, f"{{{namespace}}}" if qualified else "")
    media = _MEDIA[version].replace("utf-8", charset)
    written = cast(bytes, etree.tostring(envelope, xml_declaration=True, encoding=charset))
    return Reply(200, written, media, effect=effect)


def fault_12(error: Fault) -> Reply:
    """Answer a fault of SOAP 1.2 (part 1 clause 5.4), with status 400 for the sender's and 500 for our own."""
    envelope, body = _envelope("", SOAP_12)
    element = etree.SubElement(body, f"{{{SOAP_12}}}Fault")
    code = etree.SubElement(element, f"{{{SOAP_12}}}Code")
    etree.SubElement(code, f"{{{SOAP_12}}}Value").text = f"S:{_CODES_12[error.code]}"
    text = etree.SubElement(etree.SubElement(element, f"{{{SOAP_12}}}Reason"), f"{{{SOAP_12}}}Text")
    text.set("{http://www.w3.org/XML/1998/namespace}lang", "es")
    text.text = error.text
    status = 400 if error.code == "Client" else 500
    content = etree.tostring(envelope, xml_declaration=True, encoding="UTF-8")
    return Reply(status, content, _MEDIA[SOAP_12], effect=False)


def fault(namespace: str, error: Fault) -> Reply:
    """Answer a fault, with status 500 as SOAP 1.1 clause 6.2 asks."""
    envelope, body = _envelope(namespace)
    element = etree.SubElement(body, f"{{{_ENVELOPE}}}Fault")
    etree.SubElement(element, "faultcode").text = f"S:{error.code}"
    etree.SubElement(element, "faultstring").text = error.text
    if error.detail:
        detail = etree.SubElement(etree.SubElement(element, "detail"), f"{{{namespace}}}{error.detail}")
        _fill(detail, error.content, "")
    return Reply(500, etree.tostring(envelope, xml_declaration=True, encoding="UTF-8"), XML, effect=False)


def unauthorized() -> Reply:
    """Ask for HTTP Basic credentials."""
    challenge = (b"www-authenticate", b'Basic realm="SII"')
    return Reply(401, b"<html><body>401 Unauthorized</body></html>", "text/html", effect=False, headers=(challenge,))


def _envelope(namespace: str, version: str = _ENVELOPE) -> tuple[etree._Element, etree._Element]:
    prefixes = {"S": version, "ns2": namespace} if namespace else {"S": version}
    envelope = etree.Element(f"{{{version}}}Envelope", nsmap=prefixes)
    return envelope, etree.SubElement(envelope, f"{{{version}}}Body")


def _fill(element: etree._Element, content: Content, prefix: str) -> None:
    if isinstance(content, str):
        element.text = content
        return
    for name, inner in content:
        _fill(etree.SubElement(element, f"{prefix}{name}"), inner, prefix)


def present(fields: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the fields that have a value, in their order."""
    return [(name, value) for name, value in fields.items() if value]
