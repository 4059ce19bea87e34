"""Where the imports of a description are found, and what of it is refused: all offline, all by name."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest
from lxml import etree

from adapters.soap.catalogue import Documents, Refused, parse
from adapters.soap.examine import KINDS, Examined, Limits, examine, examine_here

CATALOGUE = Path(__file__).parent.parent.parent / "adapters" / "soap" / "catalogue"
XSD = 'xmlns:x="http://www.w3.org/2001/XMLSchema"'
ANSWER = f'<x:schema {XSD} xmlns:t="u:t" targetNamespace="u:t"><x:element name="a" type="x:string"/></x:schema>'
WRAPPED = """<w:definitions xmlns:w="http://schemas.xmlsoap.org/wsdl/" xmlns:s="http://schemas.xmlsoap.org/wsdl/soap/"
    xmlns:m="http://schemas.xmlsoap.org/wsdl/mime/" xmlns:x="http://www.w3.org/2001/XMLSchema" xmlns:t="u:t"
    targetNamespace="u:t">
  <w:types><x:schema targetNamespace="u:t">TYPES</x:schema></w:types>
  <w:message name="in"><w:part name="p" element="t:a"/></w:message>
  <w:message name="out"><w:part name="p" element="t:a"/></w:message>
  <w:portType name="pt">
    <w:operation name="ask"><w:input message="t:in"/><w:output message="t:out"/></w:operation>
  </w:portType>
  <w:binding name="b" type="t:pt">
    <s:binding transport="http://schemas.xmlsoap.org/soap/http"/>
    <w:operation name="ask">
      <s:operation soapAction=""/><w:input><s:body use="literal"/></w:input><w:output><s:body use="literal"/></w:output>
    </w:operation>
  </w:binding>
  <w:service name="sv"><w:port name="po" binding="t:b"><s:address location="http://x.example/"/></w:port></w:service>
</w:definitions>"""
PLAIN = WRAPPED.replace("TYPES", '<x:element name="a"><x:complexType/></x:element>')


def described(folder: Path, text: str) -> Path:
    file = folder / "s.wsdl"
    file.write_text(text, encoding="utf-8")
    return file


def schema(namespace: str, *names: str, more: str = "") -> str:
    elements = "".join(f'<x:element name="{name}" type="x:string"/>' for name in names)
    target = f' targetNamespace="{namespace}"' if namespace else ""
    return f"<x:schema {XSD}{target}>{more}{elements}</x:schema>"


def using(namespace: str, *names: str, location: str | None) -> str:
    """A description whose element holds elements of another namespace, imported from a location."""
    place = "" if location is None else f' schemaLocation="{location}"'
    refs = "".join(f'<x:element ref="o:{name}"/>' for name in names)
    element = f'<x:element name="a"><x:complexType><x:sequence>{refs}</x:sequence></x:complexType></x:element>'
    types = f'<x:import namespace="{namespace}"{place}/>{element}'
    return WRAPPED.replace("TYPES", types).replace('xmlns:t="u:t"', f'xmlns:t="u:t" xmlns:o="{namespace}"')


def kinds(found: Examined) -> list[str]:
    return sorted({problem.kind for problem in found.problems})


@pytest.mark.parametrize("file", sorted(CATALOGUE.glob("*.xsd")), ids=lambda file: file.name)
def test_every_shipped_schema_is_valid_and_stands_alone(file: Path, tmp_path: Path) -> None:
    etree.XMLSchema(etree.parse(str(file)))
    root = parse(file.read_bytes())
    if file.name == "xml.xsd":
        return  # Its names need no import: see the test of xml:lang.
    names = [str(node.get("name")) for node in root.iterchildren("{*}element")]
    text = using(root.get("targetNamespace", ""), *names[:3], location=f"http://else.example/{file.name}")
    assert examine_here(described(tmp_path, text)).operations, file


@pytest.mark.parametrize(
    "location",
    [
        "types.xsd",
        "deeper/TYPES.XSD",
        "../types.xsd",
        "http://a.example/wsdl/types.xsd",
        "https://a.example/x/types.xsd?version=2",
        "file:///C:/Desarrollo/types.xsd",
        "C:/Desarrollo/types.xsd",
        "http://a.example/service?xsd=1",
        "otro%20nombre.xsd",
        None,
    ],
)
def test_an_import_is_found_by_namespace_and_name(tmp_path: Path, location: str | None) -> None:
    folder = tmp_path / "catalogue" / "of" / "institution"
    folder.mkdir(parents=True)
    (folder / "types.xsd").write_text(schema("u:o", "e"), encoding="utf-8")
    (folder / "else.xsd").write_text(schema("u:else", "e"), encoding="utf-8")
    (tmp_path / "w").mkdir()
    file = described(tmp_path / "w", using("u:o", "e", location=location))
    assert not examine_here(file).usable
    assert examine_here(file, [tmp_path / "catalogue"]).operations


def test_of_several_files_of_a_namespace_the_one_that_declares_what_is_used_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "catalogue"
    folder.mkdir()
    for name in ("b", "c", "d"):
        (folder / f"{name}.xsd").write_text(schema("u:o", name, f"{name}2"), encoding="utf-8")
    assert examine_here(described(tmp_path, using("u:o", "c", "c2", location="absent.xsd")), [folder]).operations
    unclear = examine_here(described(tmp_path, using("u:o", "c", "d", location="absent.xsd")), [folder])
    [problem] = unclear.problems
    assert (problem.kind, problem.where) == ("missing-import", "s.wsdl:4")
    for name in ("absent.xsd", "u:o", "c, d", "b.xsd", "--catalogue"):
        assert name in problem.what


@pytest.mark.parametrize(
    ("found", "loads"),
    [(schema("u:o", "e"), True), (schema("", "e"), True), (schema("u:else", "e"), False), ("<a/>", False)],
)
def test_an_include_is_found_by_name_in_its_own_namespace_or_in_none(tmp_path: Path, found: str, loads: bool) -> None:
    folder = tmp_path / "catalogue"
    folder.mkdir()
    outer = schema("u:o", more='<x:include schemaLocation="https://a.example/parts/inner.xsd"/>')
    (folder / "outer.xsd").write_text(outer, encoding="utf-8")
    (folder / "inner.xsd").write_text(found, encoding="utf-8")
    examined = examine_here(described(tmp_path, using("u:o", "e", location="outer.xsd")), [folder])
    assert bool(examined.operations) is loads
    assert loads or "inner.xsd" in examined.problems[0].what


def test_a_wsdl_that_another_imports_is_found_in_the_catalogue(tmp_path: Path) -> None:
    (tmp_path / "catalogue").mkdir()
    head, service, tail = PLAIN.partition("  <w:service")
    (tmp_path / "catalogue" / "binding.wsdl").write_text(f"{head}</w:definitions>", encoding="utf-8")
    start = head[: head.index(">") + 1]
    imported = '<w:import namespace="u:t" location="http://a.example/binding.wsdl"/>'
    file = described(tmp_path, start + imported + service + tail)
    assert kinds(examine_here(file)) == ["missing-import"]
    assert [operation["name"] for operation in examine_here(file, [tmp_path / "catalogue"]).operations] == ["ask"]


def test_a_standard_schema_with_a_doctype_gives_way_to_the_shipped_one(tmp_path: Path) -> None:
    folder, namespace = tmp_path / "catalogue", "http://www.w3.org/2000/09/xmldsig#"
    folder.mkdir()
    (folder / "dsig.xsd").write_text(f"<!DOCTYPE x:schema>{schema(namespace, 'Signature')}", encoding="utf-8")
    file = described(tmp_path, using(namespace, "KeyInfo", location="http://a.example/dsig.xsd"))
    assert examine_here(file, [folder]).operations


def test_xml_lang_needs_no_import(tmp_path: Path) -> None:
    attribute = '<x:complexType><x:attribute ref="xml:lang"/></x:complexType>'
    file = described(tmp_path, WRAPPED.replace("TYPES", f'<x:element name="a">{attribute}</x:element>'))
    assert examine_here(file).usable


def test_nothing_is_asked_of_the_network(tmp_path: Path) -> None:
    asked: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: asked.append(len(server.accept())), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.xsd"
        for text in (
            using("u:o", "e", location=url),
            using(url, "e", location=None),
            f'<!DOCTYPE w SYSTEM "{url}">{PLAIN}',
            f'<!DOCTYPE w [<!ENTITY e SYSTEM "{url}">]>{PLAIN.replace("ask", "&e;")}',
            PLAIN.replace("<w:types>", f'<w:import namespace="u:o" location="{url}"/><w:types>'),
        ):
            assert not examine(described(tmp_path, text)).usable
    assert not asked


@pytest.mark.parametrize(
    ("old", "new", "kind", "what"),
    [
        ('<w:part name="p" element="t:a"/></w:message>\n  <w:message name="out">', "", "missing-name", "out"),
        ('name="out"><w:part name="p" element="t:a"', 'name="out"><w:part name="p" element="t:z"', "lost-message", "z"),
        ('name="in"><w:part name="p" element="t:a"', 'name="in"><w:part name="p" type="q:z"', "undeclared-prefix", "q"),
        ('type="t:pt"', 'type="t:other"', "missing-name", "other"),
        ('binding="t:b"', 'binding="t:other"', "no-operations", "puerto"),
        ('<w:operation name="ask">\n', '<w:operation name="gone">\n', "missing-name", "gone"),
        ('<w:output message="t:out"/>', "<w:output/>", "missing-name", "output"),
        ("<s:operation", '<w:input/><s:operation', "lost-message", "ask"),
        ('<s:body use="literal"/></w:input>', '<s:header message="t:in" part="h" use="literal"/></w:input>',
         "missing-name", "h"),
        ('<s:body use="literal"/></w:input>', '<s:body use="literal" parts="z"/></w:input>', "missing-name", "z"),
        ("<x:complexType/>", "<x:complextype/>", "bad-schema", "complextype"),
        ("<x:complexType/>", "<x:complexType><x:sequence><x:element/></x:sequence></x:complexType>", "bad-schema",
         "sin nombre"),
        ("<x:element", '<x:redefine schemaLocation="s.wsdl"/><x:element', "wrong-import", "s.wsdl"),
        ("<x:element", '<x:element name="b" type="t:nowhere"/><x:element', "missing-name", "nowhere"),
        ("</w:definitions>", "", "not-xml", "línea|line"),
        ("<w:types>", "<v:types>", "undeclared-prefix", "v"),
        ("<w:definitions", "texto<w:definitions", "not-xml", "XML"),
        ("<w:definitions", "<!DOCTYPE w><w:definitions", "doctype", "DOCTYPE"),
        ("http://schemas.xmlsoap.org/soap/http", "http://a.example/jms", "no-operations", "HTTP"),
        ('use="literal"', 'use="encoded" namespace="u:t"', "not-callable", "encoded"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, kind: str, what: str) -> None:
    assert examine_here(described(tmp_path, PLAIN)).usable
    assert old in PLAIN
    found = examine_here(described(tmp_path, PLAIN.replace(old, new)))
    assert not found.usable
    named = [problem for problem in found.problems if problem.kind == kind]
    assert named, found.problems
    assert all(problem.where.startswith("s.wsdl") for problem in named)
    assert any(text in problem.what for problem in named for text in what.split("|"))


def test_an_overloaded_operation_is_lost_and_said_to_be(tmp_path: Path) -> None:
    start = PLAIN.index('    <w:operation name="ask">\n')
    operation = PLAIN[start : PLAIN.index("  </w:binding>")]
    found = examine_here(described(tmp_path, PLAIN.replace(operation, operation * 2)))
    assert (found.usable, kinds(found), len(found.operations)) == (False, ["lost-operation"], 1)


def test_a_body_beside_attachments_is_not_lost(tmp_path: Path) -> None:
    body = '<s:body use="literal"/></w:output>'
    content = '<m:part><m:content part="file" type="image/png"/></m:part>'
    related = f'<m:multipartRelated><m:part><s:body use="literal" parts="p"/></m:part>{content}</m:multipartRelated>'
    text = PLAIN.replace(body, f"{related}</w:output>").replace(
        'name="out">', 'name="out"><w:part name="file" type="x:base64Binary"/>'
    )
    assert examine_here(described(tmp_path, text)).problems == []


def test_a_header_of_the_same_message_is_no_part_of_the_body(tmp_path: Path) -> None:
    header = '<s:header message="t:in" part="h" use="literal"/>'
    text = PLAIN.replace('name="in">', 'name="in"><w:part name="h" element="t:a"/>')
    assert examine_here(described(tmp_path, text.replace("<w:input><s:body", f"<w:input>{header}<s:body"))).usable


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "unreadable"),
        (b"\x00\xff\x01", "not-xml"),
        (b'{"a": 1}', "not-xml"),
        (b"<html><body/></html>", "not-wsdl"),
        (ANSWER.encode(), "not-wsdl"),
        (b'<description xmlns="http://www.w3.org/ns/wsdl"/>', "not-wsdl"),
        (b"<a>" * 100_000, "not-xml"),
    ],
)
def test_what_is_no_wsdl_is_refused(tmp_path: Path, content: bytes, kind: str) -> None:
    file = tmp_path / "x"
    file.write_bytes(content)
    found = examine_here(file)
    assert (found.usable, found.operations, kinds(found)) == (False, [], [kind])


def test_only_plain_files_of_sensible_size_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    for name, kind in (("pipe", "unreadable"), ("loop", "unreadable"), (".", "unreadable"), ("huge", "limit")):
        assert kinds(examine_here(tmp_path / name)) == [kind], name
    assert kinds(examine_here(tmp_path / "huge", [tmp_path / "absent"])) == ["unreadable"]
    file_of_pipe = described(tmp_path, using("u:o", "e", location="pipe"))
    with pytest.raises(Refused, match="no es un archivo"):
        Documents(file_of_pipe).open(str(tmp_path / "pipe"))
    assert kinds(examine_here(file_of_pipe)) == ["unreadable"]


@pytest.mark.parametrize("limits", [Limits(wall_s=1), Limits(cpu_s=1), Limits(size=200 << 20)])
def test_a_description_that_costs_too_much_is_refused_as_such(tmp_path: Path, limits: Limits) -> None:
    types = "".join(f'<x:element name="e{n}"><x:complexType/></x:element>' for n in range(60_000))
    found = examine(described(tmp_path, PLAIN.replace("</x:schema>", f"{types}</x:schema>")), limits=limits)
    assert (found.usable, kinds(found)) == (False, ["limit"])


def test_the_kinds_are_a_closed_set() -> None:
    sources = (CATALOGUE.parent / name for name in ("catalogue.py", "declared.py", "compare.py", "examine.py"))
    text = "".join(source.read_text(encoding="utf-8") for source in sources)
    assert set(KINDS) == {kind for kind in KINDS if text.count(f'"{kind}"') > 1}
