"""The body of a recorded answer, and how it is spoilt: members added, taken out, put elsewhere, of another type.

Nothing here knows an institution; what a field is called in its answers is read off the manifest's expressions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from typing import Any, Protocol, cast

import orjson
from jmespath.parser import Parser
from lxml import etree

from adapters.conformance.cases import Answer, parse_example

#: A member no contract has, and a code no table has.
EXTRA, UNKNOWN_CODE = "siisExtra", "ZZ-SIIS"
_NOTE = "Ñandutí"


class Document(Protocol):
    """A body. What cannot be done to it (a text, a list of numbers) is ``None``."""

    media: str

    def raw(self, charset: str = "utf-8", note: bool = False) -> bytes:
        """Write it. ``note`` adds a word outside ASCII where no reader looks."""
        ...

    def extra(self) -> Document | None:
        """Add something unknown."""
        ...

    def reordered(self) -> Document | None:
        """Put members in another order."""
        ...

    def without(self, names: Collection[str]) -> Document | None:
        """Take out every member of these names."""
        ...

    def replaced(self, names: Collection[str], value: Any) -> Document | None:
        """Put a value in the place of every member of these names."""
        ...

    def texts(self) -> Iterator[str]:
        """Give every value in it as text."""
        ...


def document_of(answer: Answer) -> Document:
    """Make the document of an HTTP answer."""
    match answer.form:
        case "json":
            return JsonDocument(answer.content)
        case "xml":
            return XmlDocument(parse_example(answer.content))
    return TextDocument(answer.content)


class JsonDocument:
    """JSON."""

    media = "application/json"

    def __init__(self, value: Any) -> None:
        self.value = value

    def raw(self, charset: str = "utf-8", note: bool = False) -> bytes:
        """Write it."""
        value = self.value
        if note:
            value = _each_object(copy.deepcopy(value), lambda item: item.update({EXTRA: _NOTE}))
        return orjson.dumps(value).decode().encode(charset, "backslashreplace")

    def extra(self) -> JsonDocument | None:
        """Add a member to every object."""
        return self._changed(lambda item: item.update({EXTRA: {"nuevo": [1, None, "x"]}}))

    def reordered(self) -> JsonDocument | None:
        """Turn the members of every object round; their order means nothing in JSON (RFC 8259 clause 4)."""

        def turn(item: dict[str, Any]) -> None:
            members = list(item.items())
            item.clear()
            item.update(reversed(members))

        return self._changed(turn)

    def without(self, names: Collection[str]) -> JsonDocument | None:
        """Take out every member of these names."""

        def drop(item: dict[str, Any]) -> None:
            for name in names:
                item.pop(name, None)

        return self._changed(drop)

    def replaced(self, names: Collection[str], value: Any) -> JsonDocument | None:
        """Put a value in the place of every member of these names."""
        return self._changed(lambda item: item.update({name: value for name in names if name in item}))

    def texts(self) -> Iterator[str]:
        """Give every value in it as text."""
        return _texts(self.value)

    def _changed(self, change: Callable[[dict[str, Any]], None]) -> JsonDocument | None:
        value = _each_object(copy.deepcopy(self.value), change)
        # Compared as written: the order of members counts here.
        return None if orjson.dumps(value) == orjson.dumps(self.value) else JsonDocument(value)


class XmlDocument:
    """XML: the whole body of an answer, or for SOAP the element in the Body."""

    media = "application/xml"

    def __init__(self, root: etree._Element) -> None:
        self.root = root

    def raw(self, charset: str = "utf-8", note: bool = False) -> bytes:
        """Write it with a declaration of the charset."""
        root = copy.deepcopy(self.root)
        if note:
            root.insert(0, etree.Comment(_NOTE))
        return cast(bytes, etree.tostring(root, xml_declaration=True, encoding=charset))

    def extra(self) -> XmlDocument | None:
        """Add an element at the end of the one that holds most."""

        def add(root: etree._Element) -> None:
            parent = max(_parents(root), key=len, default=root)
            namespace = etree.QName(parent[0] if len(parent) else parent).namespace
            etree.SubElement(parent, EXTRA if namespace is None else f"{{{namespace}}}{EXTRA}").text = "x"

        return self._changed(add)

    def reordered(self) -> XmlDocument | None:
        """Put the first element behind the last one, in the element that holds most of different names."""

        def turn(root: etree._Element) -> None:
            parent = _most_varied(root)
            if parent is not None:
                parent.append(parent[0])

        return self._changed(turn)

    def ordered(self) -> frozenset[str]:
        """Return the names of the elements whose order :meth:`reordered` changes."""
        parent = _most_varied(self.root)
        return frozenset(() if parent is None else (etree.QName(child).localname for child in parent))

    def without(self, names: Collection[str]) -> XmlDocument | None:
        """Take out every element, attribute (``@name``) or text (``#text``) of these names."""

        def drop(root: etree._Element) -> None:
            for item in list(root.iter()):
                for name in names:
                    if name.startswith("@") and name[1:] in item.attrib:
                        del item.attrib[name[1:]]
                parent = item.getparent()
                if etree.QName(item).localname in names and parent is not None:
                    parent.remove(item)

        return self._changed(drop)

    def replaced(self, names: Collection[str], value: Any) -> XmlDocument | None:
        """Put a text, or an element where one belongs (for a structure), in the place of these names."""

        def put(root: etree._Element) -> None:
            for item in list(root.iter()):
                if etree.QName(item).localname in names and item is not root:
                    for child in list(item):
                        item.remove(child)
                    if isinstance(value, str):
                        item.text = value
                    else:
                        item.text = None
                        etree.SubElement(item, EXTRA).text = "x"
                for name in names:
                    if name.startswith("@") and name[1:] in item.attrib and isinstance(value, str):
                        item.attrib[name[1:]] = value

        return self._changed(put)

    def texts(self) -> Iterator[str]:
        """Give every value in it as text."""
        return (item.text for item in self.root.iter() if item.text)

    def _changed(self, change: Callable[[etree._Element], None]) -> XmlDocument | None:
        root = copy.deepcopy(self.root)
        change(root)
        return None if etree.tostring(root) == etree.tostring(self.root) else XmlDocument(root)


class TextDocument:
    """A body of a form the kit does not know."""

    media = "text/plain"

    def __init__(self, text: str) -> None:
        self.text = text

    def raw(self, charset: str = "utf-8", note: bool = False) -> bytes:
        """Write it."""
        return (self.text + (_NOTE if note else "")).encode(charset)

    def extra(self) -> None:
        """Nothing is known of its form."""

    def reordered(self) -> None:
        """Nothing is known of its form."""

    def without(self, names: Collection[str]) -> None:
        """Nothing is known of its form."""

    def replaced(self, names: Collection[str], value: Any) -> None:
        """Nothing is known of its form."""

    def texts(self) -> Iterator[str]:
        """Give it."""
        yield self.text


def names_in(expression: str) -> frozenset[str]:
    """Return the members whose value an expression (JMESPath) gives: the last of each path in it."""
    return _last_names(_tree(expression))


def names_within(expression: str) -> frozenset[str]:
    """Return the members an expression looks at to decide: the last of each path, conditions included."""
    return _last_names(_tree(expression), conditions=True)


def _tree(expression: str) -> dict[str, Any]:
    return cast(dict[str, Any], Parser().parse(expression).parsed)


def _last_names(node: dict[str, Any], conditions: bool = False) -> frozenset[str]:
    children = node.get("children", [])
    match node["type"]:
        case "field":
            return frozenset([node["value"]])
        case "subexpression" | "index_expression" | "pipe" | "projection" | "value_projection":
            for child in reversed(children):
                # The text of an element with attributes is not a member of its own.
                if found := _last_names(child, conditions) - {"#text"}:
                    return found
            return frozenset()
        case "filter_projection":
            found = _last_names(children[1]) or _last_names(children[0])
            return found | _last_names(children[2]) if conditions else found
    return frozenset(name for child in children if isinstance(child, dict) for name in _last_names(child, conditions))


def _parents(root: etree._Element) -> list[etree._Element]:
    return [item for item in root.iter() if len(item)]


def _most_varied(root: etree._Element) -> etree._Element | None:
    """Return the element that holds most, of those that hold elements of different names."""
    several = [item for item in _parents(root) if len({child.tag for child in item}) > 1]
    return max(several, key=len, default=None)


def _each_object(value: Any, change: Callable[[dict[str, Any]], None]) -> Any:
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _each_object(child, change)
    if isinstance(value, dict):
        change(value)
    return value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _texts(child)
    elif value is not None:
        yield str(value)
