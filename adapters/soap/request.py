"""Writes the requests of one operation: zeep says once what a request looks like, values are put in for each call.

zeep takes 35 µs and more for a request; the same operation with the same fields present always looks the same, so
what zeep built serves as a template. A field it cannot stand in for is written by zeep each time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lxml import etree
from zeep.exceptions import Error as ZeepError
from zeep.xsd import AnySimpleType, AnyType, Choice, ComplexType, Element, Group, ListType
from zeep.xsd.types import builtins

from adapters.reading import Unsayable
from adapters.soap.schema import Unusable
from schemas.text import _

_MOST_TEMPLATES = 256
_MARK = "siis-{}-siis"
_MARKS = re.compile(r"siis-(\d+)-siis", re.IGNORECASE)
# XML 1.0 clause 2.2; what is left of it must be written as references, in attributes too.
_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SPECIAL = re.compile("[^ !#-%'-;=?-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REFERENCES = {ord(sign): f"&#{ord(sign)};" for sign in '&<>"\t\n\r'}
# What zeep lets through bare: an unknown element, a control character, a value of another type.
_BARE = (TypeError, ValueError, LookupError, AttributeError, AssertionError)


@dataclass(frozen=True, slots=True)
class _Field:
    """A parameter: the path to it, and its type, which says how a value is written."""

    path: tuple[str, ...]
    type: Any

    def given(self, value: Any) -> Any:
        """Return a value in the form zeep takes: a list has spaces between its items."""
        return str(value).split() if isinstance(self.type, ListType) else value

    def text(self, value: Any) -> str:
        """Write a value as zeep would, with references where XML needs them."""
        plain = isinstance(self.type, builtins.String) and isinstance(value, str)
        text = value if plain else str(self.type.xmlvalue(self.given(value)))
        if _SPECIAL.search(text) is None:
            return text
        if _FORBIDDEN.search(text) is not None:
            raise ValueError
        return text.translate(_REFERENCES)


@dataclass(frozen=True, slots=True)
class _Template:
    """A request in pieces, with a field between each two."""

    pieces: tuple[str, ...]
    fields: tuple[tuple[str, Callable[[Any], str]], ...]

    def fill(self, values: Mapping[str, Any]) -> bytes:
        """Put the values in."""
        written = [self.pieces[0]]
        for (name, text), piece in zip(self.fields, self.pieces[1:], strict=True):
            written += (text(values[name]), piece)
        return "".join(written).encode()


class RequestWriter:
    """The requests of one operation. ``name`` is the request element's local name, empty for an empty Body."""

    def __init__(self, operation: Any) -> None:
        self._operation, message = operation, operation.input
        if message is None or (message.body is not None and message._is_body_wrapped):
            raise Unusable(_("su petición no es un solo elemento"))
        self._type: Any = None if message.body is None else message.body.type
        self.name = "" if message.body is None else str(message.body.qname.localname)
        self._fields: dict[str, _Field] = {}
        self._templates: dict[tuple[str, ...], _Template | None] = {}

    def refusal(self, names: Iterable[str]) -> tuple[str, str] | None:
        """Say which parameter cannot be written (or, under an empty name, is missing), None where all is well.

        A dot in a name leads to an element of an element.
        """
        used: dict[tuple[str, ...], tuple[Any, set[str]]] = {(): (self._type, set())}
        for name in names:
            field = self._find(name)
            if field is None:
                return name, _("la operación no tiene este parámetro")
            self._fields[name] = field
            for depth in range(len(field.path)):
                inside, _seen = used.setdefault(field.path[:depth], (self._inside(field.path[:depth]), set()))
                used[field.path[:depth]][1].add(field.path[depth])
        for path, (inside, seen) in used.items():
            for needed in _required(inside):
                if needed not in seen:
                    return "", _("falta el parámetro {name}").format(name=".".join((*path, needed)))
        return None

    def build(self, values: Mapping[str, Any]) -> bytes:
        """Build the envelope of a request; raise :class:`~adapters.reading.Unsayable` for what the WSDL refuses."""
        shape = tuple(values)
        template = self._templates.get(shape)
        try:
            if template is None:
                if shape in self._templates:
                    return self._by_zeep(values)
                template = self._template(shape)
                if len(self._templates) < _MOST_TEMPLATES:
                    self._templates[shape] = template
                if template is None:
                    return self._by_zeep(values)
            return template.fill(values)
        except ZeepError as error:
            raise Unsayable(f"the WSDL refuses it at {'.'.join(getattr(error, 'path', None) or ['?'])}") from None
        except _BARE:
            raise Unsayable("the WSDL refuses it") from None

    def _by_zeep(self, values: Mapping[str, Any]) -> bytes:
        if isinstance(self._type, AnySimpleType):
            [value] = values.values()
            content = self._operation.create(value).content
        else:
            content = self._operation.create(**self._nested(values)).content
        return etree.tostring(content, xml_declaration=True, encoding="UTF-8")

    def _template(self, shape: tuple[str, ...]) -> _Template | None:
        marks = {name: _MARK.format(number) for number, name in enumerate(shape)}
        try:
            text = self._by_zeep(marks).decode()
        except _BARE:
            # A type of value that zeep reads before it writes it.
            return None
        pieces = _MARKS.split(text)
        found = [int(number) for number in pieces[1::2]]
        if sorted(found) != list(range(len(shape))):
            return None
        fields = tuple((shape[number], self._field(shape[number]).text) for number in found)
        return _Template(tuple(pieces[0::2]), fields)

    def _nested(self, values: Mapping[str, Any]) -> dict[str, Any]:
        document: dict[str, Any] = {}
        for name, value in values.items():
            field = self._field(name)
            place = document
            for parent in field.path[:-1]:
                place = place.setdefault(parent, {})
            place[field.path[-1]] = field.given(value)
        return document

    def _field(self, name: str) -> _Field:
        found = self._fields.get(name) or self._find(name)
        if found is None:
            raise LookupError(name)
        self._fields[name] = found
        return found

    def _find(self, name: str) -> _Field | None:
        if isinstance(self._type, AnySimpleType):
            return _Field((name,), self._type) if name == self.name else None
        path: tuple[str, ...] = (name,) if name in _members(self._type) else tuple(name.split("."))
        found = self._inside(path)
        # Text is written into what has a simple type, or any.
        simple = isinstance(found, AnySimpleType) or type(found) is AnyType
        return _Field(path, found) if simple else None

    def _inside(self, path: tuple[str, ...]) -> Any:
        """Return the type of what a path leads to, None where it leads nowhere."""
        found = self._type
        for name in path:
            member = _members(found).get(name)
            found = None if member is None else member.type
        return found


def _members(kind: Any) -> dict[str, Any]:
    if not isinstance(kind, ComplexType):
        return {}
    named = {name: each for name, each in kind.attributes if each.name is not None}
    return named | {name: each for name, each in kind.elements if isinstance(each, Element)}


def _required(kind: Any) -> Iterator[str]:
    """Give the elements that every value of a type must have; what a choice demands, zeep checks."""
    if isinstance(kind, AnySimpleType) or not isinstance(kind, ComplexType):
        return
    yield from (name for name, each in kind.attributes if each.name is not None and each.required)
    for _name, each in kind.elements_nested:
        yield from _always(each)


def _always(particle: Any) -> Iterator[str]:
    if not particle.min_occurs or isinstance(particle, Choice):
        return
    if isinstance(particle, Element):
        if not particle.nillable:
            yield str(particle.attr_name)
    elif isinstance(particle, Group):
        yield from _always(particle.child)
    elif isinstance(particle, list):
        for each in particle:
            yield from _always(each)
