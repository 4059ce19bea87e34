"""Decides what plain XML is as a document of members, so that one field table language reads JSON and XML alike.

A list with one element looks like an element without a list: ``[lista.persona][]`` in a manifest's expression is the
list in any case, whether there are none, one or several (JMESPath multiselect and flatten).
"""

from __future__ import annotations

from typing import Any

from lxml import etree

from adapters.soap.content import tree
from adapters.soap.message import in_utf8, parse


def read_xml(body: bytes, content_type: str) -> dict[str, Any]:
    """Read XML into ``{name of the root: its content}``.

    Names are local names. An element with text alone is that text, an empty one ``""``, one that says ``xsi:nil`` is
    ``None``; any other is a mapping of its attributes (``@name``), its elements (a list where a name is repeated) and,
    where it has text too, ``#text``. Attributes of the schema-instance namespace describe, and are left out.

    Raises ContractBroken for another charset than the one declared (RFC 7303 clause 3), what is not XML, or a DOCTYPE.
    """
    root = parse(in_utf8(body, content_type))
    return {etree.QName(root).localname: tree(root)}
