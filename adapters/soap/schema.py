"""Finds what the schemas of a service description declare: elements, types, groups and attributes by qualified name.

zeep keeps of a schema what it needs to build a message and drops the rest (enumerations, substitution groups, what a
choice demands); answers are held to the schemas themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

from lxml import etree
from zeep.loader import absolute_location

from adapters.soap.catalogue import WSDL, XSD, Documents, Refused
from schemas.text import _

XSD_NS = XSD.strip("{}")
ENCODING = "http://schemas.xmlsoap.org/soap/encoding/"
ANY_TYPE = f"{XSD}anyType"
_XML_NS = "http://www.w3.org/XML/1998/namespace"
_SORTS = {
    f"{XSD}element": "element",
    f"{XSD}complexType": "type",
    f"{XSD}simpleType": "type",
    f"{XSD}group": "group",
    f"{XSD}attributeGroup": "attributeGroup",
    f"{XSD}attribute": "attribute",
}


class Unusable(ValueError):
    """A WSDL, or an operation of one, cannot be used; the text says what of it and why."""


class Schemas:
    """The global declarations of all schemas a description brings along."""

    def __init__(self, documents: Documents) -> None:
        self.definitions: list[etree._Element] = []
        self._documents = documents
        self._found: dict[tuple[str, str], etree._Element] = {}
        self._members: dict[str, list[str]] = {}
        self._seen: set[tuple[str, str | None]] = set()
        # Proxies of lxml live as long as somebody holds them, and nodes are looked up by identity.
        self._roots: list[etree._Element] = []
        self._read(str(documents.file), None)

    def find(self, sort: str, name: str) -> etree._Element:
        """Return the global declaration of a name; raise :class:`Unusable` where there is none."""
        found = self.get(sort, name)
        namespace = etree.QName(name).namespace or ""
        if found is None and namespace.startswith("http://"):
            # What everybody uses and many forget to import is in the catalogue.
            with suppress(Refused):
                self._read(namespace, None)
            found = self.get(sort, name)
        if found is None:
            raise Unusable(_("{name}: no está declarado en los esquemas").format(name=etree.QName(name).localname))
        return found

    def get(self, sort: str, name: str) -> etree._Element | None:
        """Return the global declaration of a name, None where there is none; looks nothing up for it."""
        return self._found.get((sort, name))

    def refers(self, node: etree._Element, attribute: str, sort: str) -> str | None:
        """Return the qualified name that an attribute holds, None without the attribute; raise :class:`Unusable`.

        A bare name means the default namespace; without one, that of its schema where no other declares it.
        """
        value = node.get(attribute)
        return None if value is None else self.resolve(node, value, sort)

    def resolve(self, node: etree._Element, value: str, sort: str) -> str:
        """Return the qualified name that a text means at a node."""
        prefix, _colon, local = value.strip().rpartition(":")
        namespace = _XML_NS if prefix == "xml" else node.nsmap.get(prefix or None)
        if prefix and namespace is None:
            raise Unusable(_("usa el prefijo {prefix}, que no está declarado").format(prefix=prefix))
        name = f"{{{namespace}}}{local}" if namespace else local
        if not namespace and (sort, name) not in self._found and (target := target_of(node)):
            return f"{{{target}}}{local}"
        return name

    def substitutes(self, name: str) -> Iterator[str]:
        """Give the elements that may stand for a global element, itself first (XSD 1.0 clause 3.3.6)."""
        waiting, seen = [name], {name}
        for each in waiting:
            yield each
            more = [member for member in self._members.get(each, ()) if member not in seen]
            seen.update(more)
            waiting += more

    def _read(self, address: str, includer: str | None) -> None:
        if (address, includer) in self._seen:
            return
        self._seen.add((address, includer))
        root = self._documents.open(address).root
        self._roots.append(root)
        if root.tag == f"{WSDL}definitions":
            self.definitions.append(root)
            for node in root.findall(f"{WSDL}import"):
                self._follow(address, node.get("location"), None)
        for schema in root.iter(f"{XSD}schema"):
            own = schema
            if includer is not None and schema.get("targetNamespace") is None:
                own = _in_namespace(schema, includer)
                self._roots.append(own)
            self._register(own)
            for node in own.iterchildren(f"{XSD}import"):
                self._follow(address, node.get("schemaLocation"), None)
            for node in own.iterchildren(f"{XSD}include", f"{XSD}redefine"):
                self._follow(address, node.get("schemaLocation"), own.get("targetNamespace"))

    def _follow(self, address: str, location: str | None, includer: str | None) -> None:
        if location:
            self._read(cast(Any, absolute_location)(location, address), includer)

    def _register(self, schema: etree._Element) -> None:
        target = schema.get("targetNamespace")
        for node in schema:
            sort, name = _SORTS.get(node.tag), node.get("name")
            if sort is None or name is None:
                continue
            qualified = f"{{{target}}}{name}" if target else name
            self._found.setdefault((sort, qualified), node)
            head = self.refers(node, "substitutionGroup", "element")
            if head is not None:
                self._members.setdefault(head, []).append(qualified)


def target_of(node: etree._Element) -> str | None:
    """Return the target namespace of the schema a node stands in."""
    return schema_of(node).get("targetNamespace")


def schema_of(node: etree._Element) -> etree._Element:
    """Return the schema a node stands in."""
    return next(each for each in (node, *node.iterancestors()) if each.tag == f"{XSD}schema")


def tag_of(node: etree._Element, form_default: str) -> str:
    """Return the qualified name a local or global element or attribute has in a message (XSD 1.0 clause 3.3.2)."""
    parent, name = node.getparent(), node.get("name", "").strip()
    schema = schema_of(node)
    qualified = parent is schema or node.get("form", schema.get(form_default)) == "qualified"
    target = schema.get("targetNamespace")
    return f"{{{target}}}{name}" if qualified and target else name


def _in_namespace(schema: etree._Element, target: str) -> etree._Element:
    """Copy a schema without namespace into that of the one that includes it (XSD 1.0 clause 4.2.1)."""
    attributes = dict(cast(Any, schema.attrib), targetNamespace=target)
    names: dict[str | None, str] = {None: target}
    names.update(schema.nsmap)
    copy = etree.Element(schema.tag, attributes, nsmap=cast(Any, names))
    copy.extend(list(etree.fromstring(etree.tostring(schema))))
    return copy
