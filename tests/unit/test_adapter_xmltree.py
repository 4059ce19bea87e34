"""XML as a document of members: what each form of an element becomes, and what is no document at all."""

from __future__ import annotations

from typing import Any

import jmespath
import pytest

from adapters.errors import ContractBroken
from adapters.xmltree import read_xml

XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'


@pytest.mark.parametrize(
    ("xml", "content"),
    [
        ("<a>texto</a>", "texto"),
        ("<a> con espacios </a>", " con espacios "),
        ("<a/>", ""),
        ("<a></a>", ""),
        (f'<a {XSI} xsi:nil="true"/>', None),
        (f'<a {XSI} xsi:type="xs:string" xsi:nil="false">x</a>', "x"),
        ("<a><![CDATA[1 < 2]]> &amp; &#209;</a>", "1 < 2 & Ñ"),
        ("<a><!-- no --><b>1</b><?no si?></a>", {"b": "1"}),
        ('<a n="1">x</a>', {"@n": "1", "#text": "x"}),
        ('<a xmlns:p="urn:p" p:n="1" xmlns="urn:d"><b/></a>', {"@n": "1", "b": ""}),
        ("<a>uno <b>dos</b> tres</a>", {"b": "dos", "#text": "uno  tres"}),
        ("<a><b>1</b><c/><b>2</b><b><d/></b></a>", {"b": ["1", "2", {"d": ""}], "c": ""}),
        ('<a xmlns:p="urn:p" xmlns:q="urn:q"><p:b>1</p:b><q:b>2</q:b></a>', {"b": ["1", "2"]}),
    ],
)
def test_an_element_becomes_what_it_holds(xml: str, content: Any) -> None:
    assert read_xml(xml.encode(), "application/xml") == {"a": content}


@pytest.mark.parametrize(
    ("people", "found"), [("", []), ("<p><n>A</n></p>", ["A"]), ("<p><n>A</n></p><p><n>B</n></p>", ["A", "B"])]
)
def test_one_expression_finds_none_one_or_several_elements(people: str, found: list[str]) -> None:
    document = read_xml(f"<r><lista>{people}</lista></r>".encode(), "")
    assert jmespath.search("[r.lista.p][].n", document) == found


def test_the_charset_declared_is_believed() -> None:
    xml = '<?xml version="1.0" encoding="ISO-8859-1"?><a>Ñandutí</a>'.encode("latin-1")
    assert read_xml(xml, "application/xml") == {"a": "Ñandutí"}


@pytest.mark.parametrize(
    "xml",
    [
        b"",
        b"no",
        b"<a>",
        b"<a><b></a>",
        "<a>Ñ</a>".encode("latin-1"),
        b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        b'<?xml version="1.0" encoding="klingon"?><a/>',
        b"<a>" * 1000 + b"</a>" * 1000,
    ],
    ids=["empty", "text", "cut", "crossed", "latin-1", "entity", "external", "charset", "deep"],
)
def test_what_is_no_plain_xml_is_not_read(xml: bytes) -> None:
    with pytest.raises(ContractBroken):
        read_xml(xml, "application/xml")
