"""Decides what an element of an answer becomes: a text, a whole number, a boolean, an object, or nothing at all.

An object for elements, a list for what may repeat, ``None`` for nil. Attributes stand under ``@name``, the text of an
element that has attributes under ``#text``; wildcards are left out. Dates, other numbers and binary stay texts, and so
do lists and unions: the manifest's converters look at them one by one, so one bad date does not refuse a page. Of the
facets only enumerations are checked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lxml import etree

from adapters.errors import ContractBroken
from adapters.soap.particles import Group, Occurs, Particle, Read, compile_model
from adapters.xmltree import attributes_of

Value = Callable[[str], Any]
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_MOST_DIGITS = 20


@dataclass(frozen=True, slots=True)
class Simple:
    """A simple type: text, whole or boolean, and the only texts it may be where they are listed."""

    sort: str
    only: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Attribute:
    name: str
    value: Value
    required: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """A complex type: its attributes by qualified name, then either a simple type or a model of elements."""

    attributes: Mapping[str, Attribute]
    any_attribute: bool
    model: Particle | None = None
    simple: Simple | None = None
    mixed: bool = False


TEXT = Simple("text")


def complex_reader(name: str, shape: Shape) -> Read:
    attributes, wild = shape.attributes, shape.any_attribute
    required = [each for each in attributes.values() if each.required]

    def read_attributes(element: etree._Element, content: dict[str, Any]) -> None:
        for key, value in attributes_of(element):
            found = attributes.get(key)
            if found is not None:
                content[found.name] = found.value(value)
            # What SOAP, WS-Security and the schema language themselves put on elements has a namespace.
            elif not wild and not key.startswith("{"):
                raise ContractBroken(f"{name}: an attribute that is not in the contract")
        for each in required:
            if each.name not in content:
                raise ContractBroken(f"{name}: the attribute {each.name[1:]} is missing")

    if shape.simple is not None:
        return _simple_content(name, shape.simple, read_attributes if attributes or wild else None)
    take, repeated = compile_model(shape.model or Group("sequence", (), Occurs()))
    mixed = shape.mixed

    def read(element: etree._Element) -> dict[str, Any]:
        content: dict[str, Any] = {}
        if element.attrib or required:
            read_attributes(element, content)
        for each in repeated:
            content[each] = []
        children = deque(element)
        take(children, content)
        if children:
            raise ContractBroken(f"{name}: an element that is not in the contract, or not in its place")
        text = element.text
        if text and not text.isspace():
            if not mixed:
                raise ContractBroken(f"{name}: a text where elements belong")
            content["#text"] = text
        return content

    return read


def _simple_content(
    name: str, simple: Simple, read_attributes: Callable[[etree._Element, dict[str, Any]], None] | None
) -> Read:
    value = simple_reader(simple, name)
    if read_attributes is None:
        return value

    def read(element: etree._Element) -> dict[str, Any]:
        content: dict[str, Any] = {"#text": value(element)}
        read_attributes(element, content)
        return content

    return read


def simple_reader(simple: Simple, name: str) -> Read:
    value = None if simple == TEXT else value_of(simple, name)

    def text(element: etree._Element) -> str:
        if len(element):
            raise ContractBroken(f"{name}: elements where a value belongs")
        return element.text or ""

    return text if value is None else lambda element: value(text(element))


def value_of(simple: Simple, name: str) -> Value:
    """Compile what a text becomes."""
    only = simple.only

    def listed(text: str) -> str:
        if only is not None and text not in only and text.strip() not in only:
            raise ContractBroken(f"{name}: not one of the values of the contract")
        return text

    def boolean(text: str) -> bool:
        try:
            return _BOOLEANS[listed(text).strip()]
        except KeyError:
            raise ContractBroken(f"{name}: not a boolean") from None

    def whole(text: str) -> int:
        digits = listed(text).strip().removeprefix("-").removeprefix("+")
        if not (digits.isascii() and digits.isdecimal() and len(digits) < _MOST_DIGITS):
            raise ContractBroken(f"{name}: not a whole number")
        return int(text)

    return {"boolean": boolean, "whole": whole}.get(simple.sort, listed)
