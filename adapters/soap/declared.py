"""Reads what a service description declares, apart from zeep: bindings, messages, schema names, and what is wrong.

zeep drops what it cannot resolve with a warning at most; this reading is what its result is held against.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from lxml import etree

from adapters.soap.catalogue import MIME, SOAP_11, SOAP_12, WSDL, XSD, Problem, Source, line_of
from schemas.text import _

T = TypeVar("T")
_VERSIONS = {SOAP_11: "1.1", SOAP_12: "1.2"}
_HTTP = ("http://schemas.xmlsoap.org/soap/http", "http://www.w3.org/2003/05/soap/bindings/HTTP/")
_XML = "http://www.w3.org/XML/1998/namespace"
# What every reader knows without an import.
_BUILT_IN = ("http://www.w3.org/2001/XMLSchema", _XML, "http://schemas.xmlsoap.org/soap/encoding/")
# Which attribute refers to which sort of schema component, by the element that holds it (XSD 1.0 clause 3).
_REFERENCES = {
    ("element", "type"): "type",
    ("element", "ref"): "element",
    ("element", "substitutionGroup"): "element",
    ("attribute", "type"): "type",
    ("attribute", "ref"): "attribute",
    ("restriction", "base"): "type",
    ("extension", "base"): "type",
    ("list", "itemType"): "type",
    ("group", "ref"): "group",
    ("attributeGroup", "ref"): "attributeGroup",
}


# XML Schema 1.0 without xsd:redefine, which zeep does not read. What is not here it skips in places without a word.
_KNOWN = {
    "all", "annotation", "any", "anyAttribute", "appinfo", "attribute", "attributeGroup", "choice", "complexContent",
    "complexType", "documentation", "element", "enumeration", "extension", "field", "fractionDigits", "group", "import",
    "include", "key", "keyref", "length", "list", "maxExclusive", "maxInclusive", "maxLength", "minExclusive",
    "minInclusive", "minLength", "notation", "pattern", "restriction", "schema", "selector", "sequence",
    "simpleContent", "simpleType", "totalDigits", "union", "unique", "whiteSpace",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Content:
    """What a message carries: qualified names of elements, or names of parts that have a type; headers apart."""

    body: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BoundOperation:
    """An operation of a binding: where it stands, and what its two messages carry."""

    name: str
    where: str
    input: Content
    output: Content


@dataclass(slots=True)
class Binding:
    """A SOAP binding over HTTP."""

    soap: str
    operations: list[BoundOperation] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a service: the file it stands in, and the qualified name of its binding."""

    file: str
    service: str
    name: str
    binding: str


class Declared:
    """What the documents of a description declare; ``problems`` names every reference that leads nowhere."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self.problems: list[Problem] = []
        self.bindings: dict[str, Binding] = {}
        self.ports: list[Port] = []
        self._sources = list(sources)
        self._messages: dict[str, tuple[Source, etree._Element]] = {}
        self._port_types: dict[str, etree._Element] = {}
        self._names: dict[str, set[str]] = {}
        self._namespaces: set[str | None] = set()
        for source in self._sources:
            self._read_schemas(source)
        for source in self._definitions():
            target = source.root.get("targetNamespace")
            for node in source.root.findall(f"{WSDL}message"):
                self._messages[_named(node, target)] = (source, node)
            for node in source.root.findall(f"{WSDL}portType"):
                self._port_types[_named(node, target)] = node
        for source in self._sources:
            self._check_schemas(source)
        for source in self._definitions():
            self._check_messages(source)
            for node in source.root.findall(f"{WSDL}binding"):
                self._read_binding(source, node)
        for source in self._definitions():
            for node in source.root.iterfind(f"{WSDL}service/{WSDL}port"):
                self._read_port(source, node)

    def _definitions(self) -> Iterator[Source]:
        return (source for source in self._sources if source.root.tag == f"{WSDL}definitions")

    def _problem(self, kind: str, source: Source, node: etree._Element, what: str) -> None:
        self.problems.append(Problem(kind, f"{source.name}:{line_of(node)}", what))

    # -- schemas

    def _read_schemas(self, source: Source) -> None:
        for schema in source.root.iter(f"{XSD}schema"):
            target = schema.get("targetNamespace")
            self._namespaces.add(target)
            for node in schema:
                if isinstance(node.tag, str) and node.get("name"):
                    sort = etree.QName(node).localname
                    names = self._names.setdefault("type" if sort.endswith("Type") else sort, set())
                    names.add(_named(node, target))

    def _check_schemas(self, source: Source) -> None:
        for schema in source.root.iter(f"{XSD}schema"):
            for node in schema.iter(f"{XSD}*"):
                if any(above.tag == f"{XSD}annotation" for above in node.iterancestors(f"{XSD}*")):
                    continue
                name = etree.QName(node).localname
                if name not in _KNOWN:
                    what = _("xsd:{name} no se puede leer: mal escrito o no admitido").format(name=name)
                    self._problem("bad-schema", source, node, what)
                if name in ("element", "attribute") and not node.get("name") and not node.get("ref"):
                    self._problem("bad-schema", source, node, _("xsd:{name} sin nombre").format(name=name))
                for (holder, attribute), sort in _REFERENCES.items():
                    if name == holder and node.get(attribute):
                        absent = self._resolve(source, node, attribute, sort)
                        if absent is not None:
                            self._problem("missing-name", source, node, self._absent([absent]))

    def _resolve(self, source: Source, node: etree._Element, attribute: str, sort: str) -> etree.QName | None:
        """Return the name a reference to a schema component uses where nothing declares it."""
        qname = self._qname(source, node, attribute)
        if qname is None:
            return None
        name = etree.QName(qname)
        # The bare name too: a schema without a namespace takes that of the one that includes it.
        known = {qname, name.localname} & self._names.get(sort, set())
        return None if known or name.namespace in (*_BUILT_IN, None) else name

    def _absent(self, names: list[etree.QName]) -> str:
        """Say that names lead nowhere; they are of one namespace."""
        namespace = names[0].namespace
        if namespace in self._namespaces:
            what = _("usa {names}, que ningún esquema declara en el espacio de nombres {namespace}")
        else:
            what = _("usa {names}, pero ningún esquema del espacio de nombres {namespace} está importado")
        return what.format(names=", ".join(name.localname for name in names), namespace=namespace)

    # -- messages, bindings and ports

    def _check_messages(self, source: Source) -> None:
        for message in source.root.iterfind(f"{WSDL}message"):
            absent: dict[str | None, list[etree.QName]] = {}
            for part in message.iterfind(f"{WSDL}part"):
                for attribute in ("element", "type"):
                    name = self._resolve(source, part, attribute, attribute) if part.get(attribute) else None
                    if name is not None:
                        absent.setdefault(name.namespace, []).append(name)
            for names in absent.values():
                what = _("el mensaje {name} se pierde: {why}")
                what = what.format(name=message.get("name"), why=self._absent(names))
                self._problem("lost-message", source, message, what)

    def _read_binding(self, source: Source, node: etree._Element) -> None:
        soap = next((child for child in node if _soap_version(child, "binding")), None)
        if soap is None or soap.get("transport") not in _HTTP:
            return
        prefix = f"{{{etree.QName(soap).namespace}}}"
        binding = Binding(_VERSIONS[prefix])
        self.bindings[_named(node, source.root.get("targetNamespace"))] = binding
        port_type = self._find(source, node, "type", self._port_types, "portType")
        if port_type is None:
            return
        offered = {str(item.get("name")): item for item in port_type.iterfind(f"{WSDL}operation")}
        for operation in node.iterfind(f"{WSDL}operation"):
            name, abstract = str(operation.get("name")), offered.get(str(operation.get("name")))
            if abstract is None:
                what = _("el binding tiene la operación {name}, que no está en su portType").format(name=name)
                self._problem("missing-name", source, operation, what)
                continue
            where = f"{source.name}:{line_of(operation)}"
            ways = [self._content(source, operation, abstract, way, prefix) for way in ("input", "output")]
            binding.operations.append(BoundOperation(name, where, *ways))

    def _content(
        self, source: Source, bound: etree._Element, abstract: etree._Element, way: str, prefix: str
    ) -> Content:
        declared, concrete = abstract.find(f"{WSDL}{way}"), bound.find(f"{WSDL}{way}")
        if declared is None:
            return Content()
        if not declared.get("message"):
            what = _("{way} de la operación {name} no dice su mensaje").format(way=way, name=abstract.get("name"))
            self._problem("missing-name", source, declared, what)
            return Content()
        found = self._find(source, declared, "message", self._messages, "message")
        if found is None or concrete is None:
            return Content()
        parts = _parts(found[1])
        headers: list[str] = []
        for header in concrete.iter(f"{prefix}header"):
            holder = self._find(source, header, "message", self._messages, "message")
            name = str(header.get("part"))
            if holder is None or name not in (there := _parts(holder[1])):
                if holder is not None:
                    what = _("el encabezado nombra la parte {part}, que su mensaje no tiene").format(part=name)
                    self._problem("missing-name", source, header, what)
                continue
            headers.append(there[name])
            if holder[1] is found[1]:
                parts.pop(name, None)
        body = next(concrete.iter(f"{prefix}body"), None)
        if body is None:
            parts = {}
        elif body.get("parts") is not None:
            names = body.get("parts", "").split()
            for name in names:
                if name not in parts:
                    what = _("el cuerpo nombra la parte {part}, que su mensaje no tiene").format(part=name)
                    self._problem("missing-name", source, body, what)
            parts = {name: parts[name] for name in names if name in parts}
        # Parts that travel as attachments beside the envelope (WSDL 1.1 clause 5).
        attached = {content.get("part") for content in concrete.iter(f"{MIME}content")}
        parts = {name: content for name, content in parts.items() if name not in attached}
        return Content(tuple(parts.values()), tuple(headers))

    def _read_port(self, source: Source, node: etree._Element) -> None:
        service = node.getparent()
        qname = self._qname(source, node, "binding")
        if qname is None or service is None:
            return
        if qname in self.bindings:
            self.ports.append(Port(source.name, str(service.get("name")), str(node.get("name")), qname))
        elif any(_soap_version(child, "address") for child in node):
            what = _("el puerto {name} nombra el binding {binding}, que no existe o no es de SOAP sobre HTTP")
            name = etree.QName(qname).localname
            self._problem("missing-name", source, node, what.format(name=node.get("name"), binding=name))

    def _find(
        self, source: Source, node: etree._Element, attribute: str, among: Mapping[str, T], what: str
    ) -> T | None:
        """Follow a reference between parts of the WSDL; where it leads nowhere, that is a problem."""
        qname = self._qname(source, node, attribute)
        if qname is None:
            return None
        found = among.get(qname)
        if found is None and ":" not in node.get(attribute, ""):
            # Some write the bare name where their default namespace is another.
            found = among.get(f"{{{source.root.get('targetNamespace')}}}{node.get(attribute)}")
        if found is None:
            text = _("{tag} nombra {what} {name}, que no existe").format(
                tag=etree.QName(node).localname, what=what, name=etree.QName(qname).localname
            )
            self._problem("missing-name", source, node, text)
        return found

    def _qname(self, source: Source, node: etree._Element, attribute: str) -> str | None:
        value = node.get(attribute, "").strip()
        prefix, _colon, local = value.rpartition(":")
        namespace = _XML if prefix == "xml" else node.nsmap.get(prefix or None)
        if prefix and not namespace:
            what = _('{attribute}="{value}" usa el prefijo {prefix}, que no está declarado')
            what = what.format(attribute=attribute, value=value, prefix=prefix)
            self._problem("undeclared-prefix", source, node, what)
            return None
        try:
            return str(etree.QName(namespace, local).text)
        except ValueError:
            what = _('{attribute}="{value}" no es un nombre').format(attribute=attribute, value=value)
            self._problem("missing-name", source, node, what)
            return None


def _named(node: etree._Element, target: str | None) -> str:
    return f"{{{target}}}{node.get('name')}" if target else str(node.get("name"))


def _soap_version(node: etree._Element, name: str) -> str | None:
    return next((version for prefix, version in _VERSIONS.items() if node.tag == f"{prefix}{name}"), None)


def _parts(message: etree._Element) -> dict[str, str]:
    """Give the parts of a message: by name, the element each is, or its own name where it has a type."""
    parts: dict[str, str] = {}
    for part in message.findall(f"{WSDL}part"):
        name, element = str(part.get("name")), part.get("element", "").strip()
        prefix, _colon, local = element.rpartition(":")
        namespace = part.nsmap.get(prefix or None)
        parts[name] = name if not element else f"{{{namespace}}}{local}" if namespace else local
    return parts
