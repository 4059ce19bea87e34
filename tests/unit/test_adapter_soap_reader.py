"""The SOAP kind's reading: an answer is what the schemas of its WSDL say, element by element, or it is refused."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
from lxml import etree
from soap_examples import CODE, MAYBE, NS, PERSON, TWICE, XSI, answer_type, elements, operation, read, wsdl

from adapters.errors import ContractBroken

# What an answer's type says, then answers with what is read of them, or None for what breaks the contract.
MODELS: dict[str, tuple[str, list[tuple[str, Any]]]] = {
    "nested sequences": (
        answer_type(f"<x:sequence><x:sequence>{elements('a')}</x:sequence>{elements('b')}</x:sequence>"),
        [("<a>1</a><b/>", {"a": "1", "b": ""}), ("<b/><a/>", None), ("<a/>", None), ("<a/><b/><c/>", None)],
    ),
    "an optional sequence": (
        answer_type(
            f"<x:sequence><x:sequence {MAYBE}>{elements('a', 'b')}</x:sequence>{elements('c')}</x:sequence>"
        ),
        [("<c/>", {"c": ""}), ("<a/><b/><c/>", {"a": "", "b": "", "c": ""}), ("<a/><c/>", None)],
    ),
    "a repeated sequence": (
        answer_type(f"<x:sequence maxOccurs='2'>{elements('a')}{elements('b', occurs=MAYBE)}</x:sequence>"),
        [
            ("<a>1</a><a>2</a><b>3</b>", {"a": ["1", "2"], "b": ["3"]}),
            ("<a>1</a>", {"a": ["1"], "b": []}),
            ("<a/><a/><a/>", None),
            ("", None),
        ],
    ),
    "a choice": (
        answer_type(f"<x:choice>{elements('a')}<x:sequence>{elements('b', 'c')}</x:sequence></x:choice>"),
        [
            ("<a>1</a>", {"a": "1"}),
            ("<b/><c/>", {"b": "", "c": ""}),
            ("<b/>", None),
            ("", None),
            ("<a/><b/><c/>", None),
        ],
    ),
    "a choice that may repeat": (
        answer_type(f"<x:choice minOccurs='0' maxOccurs='unbounded'>{elements('a', 'b')}</x:choice>"),
        [("", {"a": [], "b": []}), ("<b>1</b><a>2</a><b>3</b>", {"a": ["2"], "b": ["1", "3"]}), ("<c/>", None)],
    ),
    "all": (
        answer_type(f"<x:all>{elements('a')}{elements('b', occurs=MAYBE)}</x:all>"),
        [("<b>1</b><a>2</a>", {"a": "2", "b": "1"}), ("<a/>", {"a": ""}), ("<b/>", None), ("<a/><a/>", None)],
    ),
    "a name in two places": (
        answer_type(f"<x:sequence>{elements('a', 'b')}{elements('a', occurs=MAYBE)}</x:sequence>"),
        [("<a>1</a><b/>", {"a": ["1"], "b": ""}), ("<a>1</a><b/><a>2</a>", {"a": ["1", "2"], "b": ""})],
    ),
    "a group": (
        answer_type(
            "<x:sequence><x:group ref='t:g' minOccurs='0'/></x:sequence>",
            f"<x:group name='g'><x:sequence>{elements('a', 'b')}</x:sequence></x:group>",
        ),
        [("", {}), ("<a/><b/>", {"a": "", "b": ""}), ("<a/>", None)],
    ),
    "counted": (
        answer_type(f"<x:sequence>{elements('a', occurs=TWICE)}</x:sequence>"),
        [("<a>1</a>", {"a": ["1"]}), ("<a/><a/>", {"a": ["", ""]}), ("", None), ("<a/><a/><a/>", None)],
    ),
    "an enumeration": (
        answer_type('<x:sequence><x:element name="a" type="t:codigo"/></x:sequence>', CODE),
        [("<a>A</a>", {"a": "A"}), ("<a>C</a>", None), ("<a/>", None)],
    ),
    "lists and unions stay texts": (
        answer_type(
            '<x:sequence><x:element name="a"><x:simpleType><x:list itemType="x:int"/></x:simpleType></x:element>'
            '<x:element name="b"><x:simpleType><x:union memberTypes="t:codigo x:int"/></x:simpleType></x:element>'
            "</x:sequence>",
            CODE,
        ),
        [("<a>1 2</a><b>C</b>", {"a": "1 2", "b": "C"})],
    ),
    "numbers and booleans": (
        answer_type(
            '<x:sequence><x:element name="a" type="x:long"/><x:element name="b" type="x:boolean"/>'
            '<x:element name="c" type="x:decimal"/></x:sequence>'
        ),
        [
            ("<a> -7 </a><b>0</b><c>1.50</c>", {"a": -7, "b": False, "c": "1.50"}),
            ("<a>7.0</a><b>0</b><c/>", None),
            ("<a/><b>0</b><c/>", None),
            ("<a>7</a><b>no</b><c/>", None),
        ],
    ),
    "attributes": (
        answer_type(
            "<x:sequence><x:element name='a'><x:complexType><x:simpleContent><x:extension base='t:codigo'>"
            "<x:attribute name='u' type='x:int'/><x:attributeGroup ref='t:ag'/></x:extension></x:simpleContent>"
            "</x:complexType></x:element></x:sequence>",
            f"{CODE}<x:attributeGroup name='ag'><x:attribute name='v' use='required'/></x:attributeGroup>",
        ),
        [
            ('<a u="3" v="x">A</a>', {"a": {"#text": "A", "@u": 3, "@v": "x"}}),
            ('<a v="x" i:schemaLocation="q">A</a>', {"a": {"#text": "A", "@v": "x"}}),
            ("<a>A</a>", None),
            ('<a v="x" w="y">A</a>', None),
            ('<a v="x">C</a>', None),
            ('<a u="tres" v="x">A</a>', None),
        ],
    ),
    "nil": (
        answer_type(
            '<x:sequence><x:element name="a" type="x:int" nillable="true"/><x:element name="b" type="x:string"/>'
            f"{elements('c', occurs=MAYBE)}</x:sequence>"
        ),
        [
            ('<a i:nil="true"/><b/>', {"a": None, "b": ""}),
            ('<a i:nil="false">1</a><b/>', {"a": 1, "b": ""}),
            ('<a i:nil="1"/><b/><c i:nil="true"/>', {"a": None, "b": "", "c": None}),
            ('<a>1</a><b i:nil="true"/>', None),
            ('<a i:nil="true">1</a><b/>', None),
        ],
    ),
    "a type named in the answer": (
        answer_type('<x:sequence><x:element name="a" type="t:persona"/></x:sequence>', PERSON),
        [
            ("<a><n>x</n></a>", {"a": {"n": "x"}}),
            ('<a i:type="t:persona"><n>x</n></a>', {"a": {"n": "x"}}),
            ('<a i:type="t:nino"><n>x</n><edad>3</edad></a>', {"a": {"n": "x", "edad": 3}}),
            ('<a i:type="t:otro"><o/></a>', None),
            ('<a i:type="t:nadie"><n/></a>', None),
            ('<a i:type="x:y"><n/></a>', None),
            ("<a><n>x</n><edad>3</edad></a>", None),
        ],
    ),
    "an abstract type": (
        answer_type(
            '<x:sequence><x:element name="a" type="t:persona"/></x:sequence>',
            PERSON.replace('name="persona"', 'name="persona" abstract="true"'),
        ),
        [("<a><n/></a>", None), ('<a i:type="t:nino"><n/><edad>3</edad></a>', {"a": {"n": "", "edad": 3}})],
    ),
    "a restriction": (
        answer_type(
            "<x:complexContent><x:restriction base='t:persona'><x:sequence>"
            '<x:element name="n" type="x:int"/></x:sequence></x:restriction></x:complexContent>',
            PERSON,
        ),
        [("<n>1</n>", {"n": 1}), ("<n>x</n>", None)],
    ),
    "a substitution group": (
        answer_type(
            '<x:sequence><x:element ref="t:doc" maxOccurs="unbounded"/></x:sequence>',
            '<x:element name="doc" type="x:string" abstract="true"/>'
            '<x:element name="cedula" substitutionGroup="t:doc"/>'
            '<x:element name="pasaporte" type="x:string" substitutionGroup="t:doc"/>',
        ),
        [
            ("<cedula>1</cedula><pasaporte>2</pasaporte>", {"cedula": ["1"], "pasaporte": ["2"]}),
            ("<doc>1</doc>", None),
            ("", None),
        ],
    ),
    "what may be anything": (
        answer_type(
            '<x:sequence><x:element name="a" nillable="true"/>'
            '<x:any namespace="##other" processContents="lax" minOccurs="0" maxOccurs="unbounded"/>'
            "</x:sequence><x:anyAttribute/>"
        ),
        [
            ("<a>1</a>", {"a": "1"}),
            ('<a i:nil="true"/>', {"a": None}),
            ("<a/>", {"a": ""}),
            ('<a><b c="2">1</b><b/></a><z xmlns="u:z"/>', {"a": {"b": [{"@c": "2", "#text": "1"}, ""]}}),
            ('<a xmlns:xs="http://www.w3.org/2001/XMLSchema" i:type="xs:int">7</a>', {"a": 7}),
            ('<a i:type="t:nadie"><b/></a>', {"a": {"b": ""}}),
            ('<a i:type="">x</a>', {"a": "x"}),
            ('<a i:type="1 :{}">x</a>', {"a": "x"}),
            ("<a/><a/>", None),
        ],
    ),
    "text where elements belong": (
        answer_type(f"<x:sequence>{elements('a', occurs=MAYBE)}</x:sequence>"),
        [("Persona no encontrada", None), ("\n ", {})],
    ),
}  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_an_answer_is_read_as_its_type_says_and_refused_otherwise(tmp_path: Path, model: str) -> None:
    schema, answers = MODELS[model]
    asked = operation(tmp_path, wsdl(schema))
    for content, expected in answers:
        if expected is not None:
            assert read(asked, content) == expected
            continue
        with pytest.raises(ContractBroken) as broken:
            read(asked, content)
        assert "no encontrada" not in broken.value.reason
    with pytest.raises(ContractBroken, match="namespace"):
        asked.read(etree.fromstring('<askResponse xmlns="urn:y"/>'))


def test_local_names_of_another_namespace_are_not_the_contracts(tmp_path: Path) -> None:
    asked = operation(tmp_path, wsdl(answer_type(f"<x:sequence>{elements('a')}</x:sequence>")))
    for content in ('<a xmlns="urn:y"/>', '<a xmlns=""/>'):
        with pytest.raises(ContractBroken, match="a: missing"):
            read(asked, content)


def test_an_answer_without_namespace_is_in_none(tmp_path: Path) -> None:
    text = wsdl('<x:element name="otra" type="x:string"/>').replace('element="t:askResponse"', 'element="askResponse"')
    own = '<x:schema><x:element name="askResponse" type="x:string"/></x:schema>'
    asked = operation(tmp_path, text.replace("<w:types>", f"<w:types>{own}"))
    assert asked.read(etree.fromstring("<askResponse>x</askResponse>")) == "x"
    with pytest.raises(ContractBroken, match="namespace"):
        read(asked, "x")


def test_a_type_that_holds_itself_is_read_as_deep_as_it_goes_and_no_deeper(tmp_path: Path) -> None:
    schema = answer_type('<x:sequence><x:element name="h" type="t:hijo"/></x:sequence>') + (
        '<x:complexType name="hijo"><x:sequence><x:element name="h" type="t:hijo" minOccurs="0"/></x:sequence>'
        "</x:complexType>"
    )
    asked = operation(tmp_path, wsdl(schema))
    assert read(asked, "<h><h><h/></h></h>") == {"h": {"h": {"h": {}}}}
    with pytest.raises(ContractBroken, match="too deeply"):
        read(asked, "<h>" * 250 + "</h>" * 250)


def test_no_value_of_an_answer_reaches_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked = operation(tmp_path, wsdl(answer_type('<x:sequence><x:element name="a" type="x:date"/></x:sequence>')))
    assert read(asked, "<a>1980-02-31</a>") == {"a": "1980-02-31"}
    assert caplog.text == ""


def test_an_included_schema_without_namespace_takes_that_of_its_includer(tmp_path: Path) -> None:
    (tmp_path / "tipos.xsd").write_text(
        '<x:schema xmlns:x="http://www.w3.org/2001/XMLSchema" elementFormDefault="qualified"><x:complexType name="p">'
        '<x:sequence><x:element name="a" type="q"/></x:sequence></x:complexType>'
        '<x:simpleType name="q"><x:restriction base="x:string"><x:enumeration value="A"/></x:restriction>'
        "</x:simpleType></x:schema>",
        encoding="utf-8",
    )
    text = wsdl('<x:element name="askResponse" type="t:p"/>')
    text = text.replace(
        'elementFormDefault="qualified">', 'elementFormDefault="qualified"><x:include schemaLocation="tipos.xsd"/>'
    )
    asked = operation(tmp_path, text)
    assert read(asked, "<a>A</a>") == {"a": "A"}
    with pytest.raises(ContractBroken, match="not one of the values"):
        read(asked, "<a>B</a>")


# Elements without children or attributes.
PIECES = re.compile(r"<(?:[a-z]+)/>|<([a-z]+)>[^<]*</\1>")
# Where we take more than the schema language does, on purpose: nil for what might as well be absent, and types that are
# not known where anything may be; and what is left to the manifest's converters.
TAKEN = {
    '<a i:nil="1"/><b/><c i:nil="true"/>',
    '<a i:type="t:nadie"><b/></a>',
    '<a i:type="">x</a>',
    '<a i:type="1 :{}">x</a>',
    "<a>1 2</a><b>C</b>",
}


def is_valid(schema: etree.XMLSchema, content: str) -> bool:
    text = f'<askResponse xmlns="{NS}" xmlns:t="{NS}" {XSI}>{content}</askResponse>'
    return bool(schema.validate(etree.fromstring(text)))


@pytest.mark.parametrize("model", MODELS)
def test_what_is_read_is_what_another_reader_of_schemas_finds_valid(tmp_path: Path, model: str) -> None:
    """Libxml2 validates the answers above, and many made at random of the same elements: we take what it takes."""
    declared, answers = MODELS[model]
    text = wsdl(declared)
    asked = operation(tmp_path, text)
    inline = next(etree.fromstring(text).iter("{http://www.w3.org/2001/XMLSchema}schema"))
    # On its own it must bring the names of the WSDL around it along.
    schema = etree.XMLSchema(etree.fromstring(etree.tostring(inline)))
    for content, expected in answers:
        assert is_valid(schema, content) == (expected is not None and content not in TAKEN), content
    pieces = [piece[0] for content, _expected in answers for piece in PIECES.finditer(content)]
    random = Random(1)
    for _each in range(300 if pieces else 0):
        content = "".join(random.choices(pieces, k=random.randint(0, 4)))
        if content in TAKEN:
            continue
        try:
            read(asked, content)
            taken = True
        except ContractBroken:
            taken = False
        assert taken == is_valid(schema, content), content
