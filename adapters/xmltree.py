"""Decides what XML is: bytes into an element, and an element of no known type into a document of members.

So one field table language reads JSON and XML alike. A list with one element looks like an element without a list:
``[lista.persona][]`` in a manifest's expression is the list in any case, whether there are none, one or several
(JMESPath multiselect and flatten).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from typing import Any, cast

from lxml import etree

from adapters.charset import charset_in, charset_of, to_utf8
from adapters.errors import ContractBroken

XSI = "http://www.w3.org/2001/XMLSchema-instance"
NIL, XSI_TYPE = f"{{{XSI}}}nil", f"{{{XSI}}}type"
TRUE = ("true", "1")
_DECLARATION = re.compile(rb"\s*<\?xml\s[^>]*?(?:encoding\s*=\s*[\"']([A-Za-z0-9._:-]+)[\"'][^>]*)?\?>")
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def read_xml(body: bytes, content_type: str) -> dict[str, Any]:
    """Read XML into ``{local name of the root: its content}``, each element as :func:`tree` has it.

    Raises ContractBroken for another charset than the one declared (RFC 7303 clause 3), what is not XML, or a DOCTYPE.
    """
    root = parse(in_utf8(body, content_type))
    return {etree.QName(root).localname: tree(root)}


def parse(xml: bytes) -> etree._Element:
    """Parse XML in UTF-8, fetching and expanding nothing; comments and processing instructions are left out.

    Raises ContractBroken for what is not XML or has a DOCTYPE.
    """
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


def in_utf8(body: bytes, content_type: str) -> bytes:
    """Decide the charset: byte order mark, HTTP header, XML declaration, in this order (RFC 7303 clause 3).

    Where header and declaration disagree and it matters, neither is believed: the wrong one gives wrong names.
    """
    for mark, charset in _BOMS:
        if body.startswith(mark):
            return to_utf8(body.removeprefix(mark), charset)
    header, declaration = charset_in(content_type), _DECLARATION.match(body)
    declared = charset_of(declaration[1].decode("ascii")) if declaration and declaration[1] else None
    if header and declared and header != declared and not body.isascii():
        raise ContractBroken("the HTTP header and the XML declaration state different charsets")
    charset = header or declared or "utf-8"
    # The parser is told UTF-8, which overrules what the declaration says.
    return body if charset == "utf-8" else to_utf8(body, charset)


def attributes_of(element: etree._Element) -> Iterable[tuple[str, str]]:
    """Return an element's attributes by qualified name."""
    return cast(Iterable[tuple[str, str]], element.items())


def tree(element: etree._Element) -> Any:
    """Read an element of no known type.

    One with text alone is that text, an empty one ``""``, one that says ``xsi:nil`` is ``None``; any other an object of
    its attributes, its elements by local name (a list where a name is repeated) and, where it has text too, ``#text``.
    Attributes of the schema-instance namespace describe, and are left out.
    """
    if element.get(NIL) in TRUE:
        return None
    members: dict[str, Any] = {
        f"@{etree.QName(name).localname}": value
        for name, value in attributes_of(element)
        if not name.startswith(f"{{{XSI}}}")
    }
    text = element.text or ""
    repeated = set()
    for child in element:
        name, content = etree.QName(child).localname, tree(child)
        if name not in members:
            members[name] = content
        elif name in repeated:
            members[name].append(content)
        else:
            repeated.add(name)
            members[name] = [members[name], content]
        text += child.tail or ""
    if not members:
        return text
    if text.strip():
        members["#text"] = text.strip()
    return members
