"""What the tests of SOAP contracts share: a small WSDL around whatever schema a test is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lxml import etree

from adapters.soap.contract import Operation, load_contract

NS = "urn:x"
XSI = 'xmlns:i="http://www.w3.org/2001/XMLSchema-instance"'
BINDING_11, BINDING_12 = "http://schemas.xmlsoap.org/wsdl/soap/", "http://schemas.xmlsoap.org/wsdl/soap12/"


def wsdl(
    schema: str,
    *,
    binding: str = BINDING_11,
    style: str = "document",
    body: str = '<s:body use="literal"/>',
    more: str = "",
) -> str:
    """A WSDL with one operation: ``ask`` takes a text, or parts, and answers ``askResponse`` of the schema given."""
    asked = '<w:part name="p" element="t:ask"/>' if style == "document" else '<w:part name="nro" type="x:string"/>'
    answered = (
        '<w:part name="p" element="t:askResponse"/>'
        if style == "document"
        else '<w:part name="estado" type="x:int"/><w:part name="persona" type="t:persona"/>'
    )
    return f"""<w:definitions xmlns:w="http://schemas.xmlsoap.org/wsdl/" xmlns:x="http://www.w3.org/2001/XMLSchema"
      xmlns:s="{binding}" xmlns:t="{NS}" targetNamespace="{NS}">
    <w:types><x:schema targetNamespace="{NS}" elementFormDefault="qualified">
      <x:element name="ask"><x:complexType><x:sequence>
        <x:element name="nro" type="x:string"/><x:element name="dia" type="x:date" minOccurs="0"/>
        <x:element name="caso" minOccurs="0"><x:complexType><x:sequence>
          <x:element name="tipo" type="x:string"/><x:element name="vigente" type="x:boolean" minOccurs="0"/>
          <x:element name="codigos" minOccurs="0"><x:simpleType><x:list itemType="x:string"/></x:simpleType></x:element>
        </x:sequence><x:attribute name="origen" type="x:string"/></x:complexType></x:element>
      </x:sequence></x:complexType></x:element>
      {schema}
    </x:schema></w:types>
    <w:message name="in">{asked}</w:message><w:message name="out">{answered}</w:message>
    <w:portType name="pt"><w:operation name="ask"><w:input message="t:in"/><w:output message="t:out"/></w:operation>
      <w:operation name="tell"><w:input message="t:in"/></w:operation></w:portType>
    <w:binding name="b" type="t:pt"><s:binding style="{style}" transport="http://schemas.xmlsoap.org/soap/http"/>
      <w:operation name="ask"><s:operation soapAction="urn:act"/><w:input>{body}</w:input><w:output>{body}</w:output>
      </w:operation>
      <w:operation name="tell"><s:operation soapAction=""/><w:input>{body}</w:input></w:operation>
    </w:binding>
    <w:service name="sv"><w:port name="uno" binding="t:b"><s:address location="http://localhost/"/></w:port>{more}
    </w:service></w:definitions>"""


def operation(folder: Path, text: str, name: str = "ask", port: str | None = None) -> Operation:
    file = folder / "x.wsdl"
    file.write_text(text, encoding="utf-8")
    return load_contract(file).operation(name, port)


def answer_type(content: str, more: str = "") -> str:
    return f'<x:element name="askResponse"><x:complexType>{content}</x:complexType></x:element>{more}'


def read(asked: Operation, content: str, attributes: str = "", name: str = "askResponse") -> Any:
    return asked.read(etree.fromstring(f'<{name} xmlns="{NS}" xmlns:t="{NS}" {XSI} {attributes}>{content}</{name}>'))


MAYBE = 'minOccurs="0"'
TWICE = 'minOccurs="1" maxOccurs="2"'
PERSON = (
    '<x:complexType name="persona"><x:sequence><x:element name="n" type="x:string"/></x:sequence></x:complexType>'
    '<x:complexType name="nino"><x:complexContent><x:extension base="t:persona"><x:sequence>'
    '<x:element name="edad" type="x:int"/></x:sequence></x:extension></x:complexContent></x:complexType>'
    '<x:complexType name="otro"><x:sequence><x:element name="o" type="x:string"/></x:sequence></x:complexType>'
)
CODE = (
    '<x:simpleType name="codigo"><x:restriction base="x:string"><x:enumeration value="A"/><x:enumeration value="B"/>'
    "</x:restriction></x:simpleType>"
)


def elements(*names: str, occurs: str = "") -> str:
    return "".join(f'<x:element name="{name}" type="x:string" {occurs}/>' for name in names)
