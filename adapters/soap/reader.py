"""Compiles the schema types of a description into readers that walk an answer and hold it to its contract."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lxml import etree

from adapters.errors import ContractBroken
from adapters.soap.catalogue import XSD
from adapters.soap.content import Attribute, Shape, Simple, complex_reader, simple_reader, value_of
from adapters.soap.particles import Group, Leaf, Occurs, Particle, Read, Wildcard
from adapters.soap.schema import ANY_TYPE, ENCODING, XSD_NS, Schemas, Unusable, tag_of, target_of
from adapters.xmltree import NIL, TRUE, XSI_TYPE, attributes_of, tree
from schemas.text import _

_WHOLE = frozenset(
    {
        *("integer", "nonPositiveInteger", "negativeInteger", "long", "int", "short", "byte", "nonNegativeInteger"),
        *("unsignedLong", "unsignedInt", "unsignedShort", "unsignedByte", "positiveInteger"),
    }
)
_BUILT_IN = _WHOLE | {
    *("string", "boolean", "decimal", "float", "double", "duration", "dateTime", "time", "date", "gYearMonth", "gYear"),
    *("gMonthDay", "gDay", "gMonth", "hexBinary", "base64Binary", "anyURI", "QName", "NOTATION", "normalizedString"),
    *("token", "language", "NMTOKEN", "NMTOKENS", "Name", "NCName", "ID", "IDREF", "IDREFS", "ENTITY", "ENTITIES"),
    "anySimpleType",
}
_GROUPS = {f"{XSD}sequence": "sequence", f"{XSD}choice": "choice", f"{XSD}all": "all"}
_MODELS = (*_GROUPS, f"{XSD}group")
_ARRAY = f"{{{ENCODING}}}Array"
_MOST_BASES = 64
_NOTHING = Shape({}, any_attribute=False)


class Readers:
    """The readers of one description's elements and types, each compiled once, when it is first needed."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._types: dict[etree._Element, list[Read]] = {}
        # Types that only an answer names are compiled while it is read, maybe on another thread.
        self._lock = threading.RLock()

    def of_element(self, name: str) -> Read:
        """Return the reader of a global element; raise :class:`~adapters.soap.schema.Unusable`."""
        return self._element_reader(self._schemas.find("element", name), required=True)

    def of_parts(self, name: str, parts: Sequence[tuple[str, str]]) -> Read:
        """Return the reader of an rpc wrapper: its parts, each of a named type, in order and without namespace."""
        leaves = [
            Leaf(part, {part: (part, self._said_or(self._of_type(kind, part), kind, part, nil=True))}, Occurs())
            for part, kind in parts
        ]
        return complex_reader(name, Shape({}, any_attribute=True, model=Group("sequence", leaves, Occurs())))

    # Elements

    def _element_reader(self, node: etree._Element, *, required: bool) -> Read:
        name = node.get("name", "")
        kind, read = self._type_of(node, name)
        # Nil where the element might as well be absent is the same as absent.
        return self._said_or(read, kind, name, nil=node.get("nillable") in TRUE or not required)

    def _type_of(self, node: etree._Element, name: str) -> tuple[str, Read]:
        """Return the name of an element's type, empty for one without, and its reader."""
        kind = self._schemas.refers(node, "type", "type")
        if kind is not None:
            return kind, self._of_type(kind, name)
        for child in node.iterchildren(f"{XSD}complexType", f"{XSD}simpleType"):
            return "", self._of_node(child, name)
        head = self._schemas.refers(node, "substitutionGroup", "element")
        if head is not None:
            return self._type_of(self._schemas.find("element", head), name)
        return ANY_TYPE, tree

    def _said_or(self, read: Read, kind: str, name: str, *, nil: bool) -> Read:
        """Look first at what an instance says of itself, nil or a type of its own; most say nothing."""
        simple = kind != ANY_TYPE and self._is_simple(kind)

        def checked(element: etree._Element) -> Any:
            if not element.attrib:
                return read(element)
            if element.get(NIL, "").strip() in TRUE:
                if not nil or len(element) or (element.text or "").strip():
                    raise ContractBroken(f"{name}: nil is not allowed here")
                return None
            if simple and any(not key.startswith("{") for key, _value in attributes_of(element)):
                raise ContractBroken(f"{name}: an attribute that is not in the contract")
            said = element.get(XSI_TYPE)
            # A simple value is checked by the contract's own type, whatever it says it is; nuSOAP says it of each.
            return read(element) if said is None or simple else self._as_said(element, said, read, kind, name)

        return checked

    def _as_said(self, element: etree._Element, said: str, read: Read, kind: str, name: str) -> Any:
        """Read an element as the type it says it is, which must be the contract's or derived from it."""
        prefix, _colon, local = said.strip().rpartition(":")
        namespace = element.nsmap.get(prefix or None)
        named = f"{{{namespace}}}{local}" if namespace else local
        if named == kind or not kind:
            return read(element)
        try:
            if kind != ANY_TYPE and kind not in self._bases(named):
                raise ContractBroken(f"{name}: of a type that is not derived from the contract's")
            # Nothing is looked up for a name that only an answer gives.
            known = _built_in(named) is not None or self._schemas.get("type", named) is not None
            derived = self._of_type(named, name) if known else tree
        except (Unusable, RecursionError):
            raise ContractBroken(f"{name}: of a type that cannot be read") from None
        return derived(element)

    def _bases(self, kind: str) -> Iterator[str]:
        """Give the types a named type is derived from, the nearest first."""
        for _step in range(_MOST_BASES):
            node = self._schemas.get("type", kind)
            derived = None if node is None else next(node.iter(f"{XSD}extension", f"{XSD}restriction"), None)
            base = None if derived is None else self._schemas.refers(derived, "base", "type")
            if base is None:
                return
            yield base
            kind = base

    # Types

    def _of_type(self, kind: str, name: str) -> Read:
        if kind == ANY_TYPE:
            return tree
        built_in = _built_in(kind)
        if built_in is not None:
            return simple_reader(Simple(built_in), name)
        return self._of_node(self._schemas.find("type", kind), name)

    def _of_node(self, node: etree._Element, name: str) -> Read:
        if node.tag == f"{XSD}simpleType":
            return simple_reader(self._simple_node(node), name)
        with self._lock:
            held = self._types.get(node)
            if held is not None:
                # A type that holds itself is not compiled yet when it is met again.
                again = held
                return held[0] if held else lambda element: again[0](element)
            place = len(self._types)
            held = self._types[node] = []
            try:
                held.append(self._complex_node(node, name))
            except (Unusable, RecursionError):
                # Those compiled since may hold this one.
                for other in list(self._types)[place:]:
                    del self._types[other]
                raise
            return held[0]

    def _complex_node(self, node: etree._Element, name: str) -> Read:
        if node.get("abstract") in TRUE:

            def refuse(_element: etree._Element) -> Any:
                raise ContractBroken(f"{name}: does not say which type it is")

            return refuse
        return complex_reader(name, self._shape(node))

    def _shape(self, node: etree._Element) -> Shape:
        """Put a complex type together with those it is derived from (XSD 1.0 clause 3.4.2)."""
        mixed = node.get("mixed") in TRUE
        content = next(node.iterchildren(f"{XSD}complexContent", f"{XSD}simpleContent"), None)
        if content is None:
            known, wild = self._attributes(node)
            return Shape(known, wild, model=self._model(node), mixed=mixed)
        derived = next(content.iterchildren(f"{XSD}extension", f"{XSD}restriction"), None)
        if derived is None:
            raise Unusable(_("un tipo no dice de cuál deriva"))
        kind = self._schemas.refers(derived, "base", "type") or ANY_TYPE
        if kind == _ARRAY:
            raise Unusable(_("usa arreglos de SOAP-encoding, que WS-I Basic Profile excluye"))
        extends, base = derived.tag == f"{XSD}extension", self._base(kind)
        known, wild = self._attributes(derived)
        attributes = {name: each for name, each in base.attributes.items() if name not in self._prohibited(derived)}
        attributes.update(known)
        wild = wild or (extends and base.any_attribute)
        if content.tag == f"{XSD}simpleContent":
            return Shape(attributes, wild, simple=self._narrowed(derived, base.simple or Simple("text")))
        own, mixed = self._model(derived), mixed or content.get("mixed") in TRUE
        if not extends:
            return Shape(attributes, wild, model=own, mixed=mixed)
        parts = [model for model in (base.model, own) if model is not None]
        return Shape(attributes, wild, model=Group("sequence", parts, Occurs()), mixed=mixed or base.mixed)

    def _base(self, kind: str) -> Shape:
        if kind == ANY_TYPE:
            return _NOTHING
        if self._is_simple(kind):
            return Shape({}, any_attribute=False, simple=self._simple(kind))
        return self._shape(self._schemas.find("type", kind))

    def _is_simple(self, kind: str) -> bool:
        if not kind or kind == ANY_TYPE:
            return False
        return _built_in(kind) is not None or self._schemas.find("type", kind).tag == f"{XSD}simpleType"

    def _simple(self, kind: str) -> Simple:
        built_in = _built_in(kind)
        return Simple(built_in) if built_in else self._simple_node(self._schemas.find("type", kind))

    def _simple_node(self, node: etree._Element) -> Simple:
        restriction = node.find(f"{XSD}restriction")
        if restriction is not None:
            kind = self._schemas.refers(restriction, "base", "type")
            return self._narrowed(restriction, Simple("text") if kind is None else self._simple(kind))
        union = node.find(f"{XSD}union")
        if union is None:
            return Simple("text")
        kinds = [self._schemas.resolve(union, name, "type") for name in union.get("memberTypes", "").split()]
        members = [self._simple(kind) for kind in kinds]
        members += [self._simple_node(child) for child in union.iterchildren(f"{XSD}simpleType")]
        only = [member.only for member in members if member.only is not None]
        return Simple("text", frozenset().union(*only) if len(only) == len(members) else None)

    def _narrowed(self, restriction: etree._Element, base: Simple) -> Simple:
        inner = restriction.find(f"{XSD}simpleType")
        if inner is not None:
            base = self._simple_node(inner)
        listed = frozenset(each.get("value", "") for each in restriction.iterchildren(f"{XSD}enumeration"))
        return Simple(base.sort, listed) if listed else base

    # Content models

    def _model(self, node: etree._Element) -> Particle | None:
        found = next(node.iterchildren(*_MODELS), None)
        return None if found is None else self._particle(found)

    def _particle(self, node: etree._Element) -> Particle:
        occurs = _occurs(node)
        if node.tag == f"{XSD}element":
            return self._leaf(node, occurs)
        if node.tag == f"{XSD}any":
            return Wildcard(_accepted(node), occurs)
        if node.tag == f"{XSD}group":
            name = self._schemas.refers(node, "ref", "group") or ""
            inner = self._model(self._schemas.find("group", name))
            return Group("sequence", [] if inner is None else [inner], occurs)
        parts = node.iterchildren(f"{XSD}element", f"{XSD}any", *_MODELS)
        return Group(_GROUPS[node.tag], [self._particle(part) for part in parts], occurs)

    def _leaf(self, node: etree._Element, occurs: Occurs) -> Leaf:
        required = occurs.least > 0
        name = self._schemas.refers(node, "ref", "element")
        if name is None:
            own = node.get("name", "")
            reader = self._element_reader(node, required=required)
            return Leaf(own, {tag_of(node, "elementFormDefault"): (own, reader)}, occurs)
        if name.startswith(XSD):
            # A schema inside the answer, as old .NET services send along.
            return Leaf("schema", {name: (name.removeprefix(XSD), tree)}, occurs)
        readers = {}
        for each in self._schemas.substitutes(name):
            declared = self._schemas.find("element", each)
            if declared.get("abstract") not in TRUE:
                reader = self._element_reader(declared, required=required)
                readers[each] = (str(declared.get("name")), reader)
        return Leaf(etree.QName(name).localname, readers, occurs)

    def _attributes(self, node: etree._Element) -> tuple[dict[str, Attribute], bool]:
        known: dict[str, Attribute] = {}
        wild = False
        for child in node.iterchildren(f"{XSD}attribute", f"{XSD}attributeGroup", f"{XSD}anyAttribute"):
            if child.tag == f"{XSD}anyAttribute":
                wild = True
            elif child.tag == f"{XSD}attributeGroup":
                name = self._schemas.refers(child, "ref", "attributeGroup") or ""
                more, also_wild = self._attributes(self._schemas.find("attributeGroup", name))
                known.update(more)
                wild = wild or also_wild
            elif child.get("use") != "prohibited":
                tag, declared = self._attribute_node(child)
                local = etree.QName(tag).localname
                value = value_of(self._attribute_type(declared), f"@{local}")
                known[tag] = Attribute(f"@{local}", value, child.get("use") == "required")
        return known, wild

    def _prohibited(self, node: etree._Element) -> set[str]:
        children = node.iterchildren(f"{XSD}attribute")
        return {self._attribute_node(child)[0] for child in children if child.get("use") == "prohibited"}

    def _attribute_node(self, node: etree._Element) -> tuple[str, etree._Element]:
        """Return the qualified name of an attribute and where it is declared."""
        name = self._schemas.refers(node, "ref", "attribute")
        if name is None:
            return tag_of(node, "attributeFormDefault"), node
        return name, self._schemas.find("attribute", name)

    def _attribute_type(self, node: etree._Element) -> Simple:
        kind = self._schemas.refers(node, "type", "type")
        inner = node.find(f"{XSD}simpleType")
        return self._simple(kind) if kind else Simple("text") if inner is None else self._simple_node(inner)


def _built_in(kind: str) -> str | None:
    """Return text, whole or boolean for a type of the schema language, or of SOAP encoding's copies of them."""
    # An answer may give what is no name at all, so it is not taken apart as one.
    namespace, _brace, local = kind.removeprefix("{").rpartition("}")
    if namespace not in (XSD_NS, ENCODING) or local not in _BUILT_IN:
        return None
    return "whole" if local in _WHOLE else "boolean" if local == "boolean" else "text"


def _occurs(node: etree._Element) -> Occurs:
    most = node.get("maxOccurs", "1").strip()
    try:
        return Occurs(int(node.get("minOccurs", "1")), None if most == "unbounded" else int(most))
    except ValueError:
        raise Unusable(_("minOccurs o maxOccurs no es un número")) from None


def _accepted(node: etree._Element) -> Callable[[str], bool]:
    """Compile which qualified names a wildcard takes (XSD 1.0 clause 3.10.2)."""
    said, target = node.get("namespace", "##any").split(), target_of(node)
    if said == ["##any"]:
        return lambda _tag: True
    if said == ["##other"]:
        return lambda tag: etree.QName(tag).namespace not in (None, target)
    named = {"##targetNamespace": target, "##local": None}
    allowed = {named.get(each, each) for each in said}
    return lambda tag: etree.QName(tag).namespace in allowed
