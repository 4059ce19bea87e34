"""Reading hostile JSON: limits first, then members one by one with their type, noting which leaves were taken."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from gateway.standards.fhir.errors import FhirError
from schemas.text import _

MAX_DEPTH = 40
MAX_VALUES = 50_000

Path = tuple[str | int, ...]

# R4 string: no code point below 32 but tab, line feed and carriage return; a lone surrogate is no character at all.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")


def pointer(path: Path) -> str:
    """Write a path as JSON Pointer (RFC 6901 section 3)."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def leaves(document: Any) -> dict[Path, Any]:
    """Return every leaf of a JSON document by its path, in document order; empty objects and lists count as leaves.

    Raises :class:`FhirError` for what no later step should meet: more than ``MAX_DEPTH`` levels or ``MAX_VALUES``
    values, control characters and lone surrogates in texts or names, numbers that are not finite or beyond 64 bits,
    anything that is not JSON.
    """
    found: dict[Path, Any] = {}
    stack: list[tuple[Path, Any]] = [((), document)]
    seen = 1
    while stack:
        path, value = stack.pop()
        if not isinstance(value, dict | list) or not value:
            _check_leaf(path, value)
            found[path] = value
            continue
        if len(path) >= MAX_DEPTH:
            raise FhirError(pointer(path), _("demasiados niveles, el máximo es {n}").format(n=MAX_DEPTH), "too-costly")
        seen += len(value)
        if seen > MAX_VALUES:
            raise FhirError(pointer(path), _("demasiados datos, el máximo es {n}").format(n=MAX_VALUES), "too-costly")
        if isinstance(value, dict):
            for name in value:
                if not isinstance(name, str) or _FORBIDDEN.search(name):
                    raise FhirError(pointer(path), _("un nombre de campo tiene caracteres no válidos"), "structure")
            stack.extend(((*path, name), member) for name, member in reversed(value.items()))
        else:
            stack.extend(((*path, place), value[place]) for place in reversed(range(len(value))))
    return found


def _check_leaf(path: Path, value: Any) -> None:
    if isinstance(value, str):
        if _FORBIDDEN.search(value):
            raise FhirError(pointer(path), _("el texto tiene caracteres no válidos"), "value")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise FhirError(pointer(path), _("se esperaba un número finito"), "value")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise FhirError(pointer(path), _("el número pasa de 64 bits"), "value")
    elif not (value is None or isinstance(value, dict | list)):
        raise FhirError(pointer(path), _("no es JSON"), "structure")


@dataclass(frozen=True, slots=True)
class Element:
    """A JSON object of the message. ``look`` reads without taking; every other reader marks the leaves it returns.

    An absent member and a JSON null both read as ``None``. A member of another type raises :class:`FhirError`.
    """

    data: dict[str, Any] = field(repr=False)
    path: Path
    taken: set[Path] = field(repr=False, compare=False)

    def error(self, what: str, code: str, *tail: str | int) -> FhirError:
        """Make the error about this element, or about what ``tail`` names below it."""
        return FhirError(pointer((*self.path, *tail)), what, code)

    def take(self, *tail: str | int) -> None:
        """Mark a leaf below this element as taken."""
        self.taken.add((*self.path, *tail))

    def look(self, name: str) -> str | None:
        """Return a text without taking it; R4 has no empty texts."""
        value = self.data.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.error(_("se esperaba un texto"), "structure", name)
        if not value.strip():
            raise self.error(_("se esperaba un texto no vacío"), "value", name)
        return value

    def text(self, name: str) -> str | None:
        """Take a text."""
        value = self.look(name)
        if value is not None:
            self.take(name)
        return value

    def need(self, name: str) -> str:
        """Take a text that must be there."""
        value = self.text(name)
        if value is None:
            raise self.error(_("falta este dato obligatorio"), "required", name)
        return value

    def flag(self, name: str) -> bool | None:
        """Take a boolean."""
        value = self.data.get(name)
        if value is None:
            return None
        if not isinstance(value, bool):
            raise self.error(_("se esperaba true o false"), "structure", name)
        self.take(name)
        return value

    def texts(self, name: str) -> list[str]:
        """Take a list of texts; nulls stand for values given by extension only (R4 JSON representation)."""
        values = self._list(name)
        for place, value in enumerate(values):
            if value is None:
                continue
            if not isinstance(value, str) or not value.strip():
                raise self.error(_("se esperaba un texto no vacío"), "structure", name, place)
            self.take(name, place)
        return [value for value in values if value is not None]

    def child(self, name: str) -> Element | None:
        """Open an object."""
        value = self.data.get(name)
        return None if value is None else element(value, (*self.path, name), self.taken)

    def children(self, name: str) -> list[Element]:
        """Open the objects of a list."""
        return [element(value, (*self.path, name, place), self.taken) for place, value in enumerate(self._list(name))]

    def extension(self, url: str) -> Element | None:
        """Open the extension with this URL, taking the URL; refuse it when it is there twice."""
        found = [extension for extension in self.children("extension") if extension.look("url") == url]
        if len(found) > 1:
            raise found[1].error(_("esta extensión está repetida"), "multiple-matches", "url")
        for extension in found:
            extension.take("url")
        return found[0] if found else None

    def _list(self, name: str) -> list[Any]:
        value = self.data.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.error(_("se esperaba una lista"), "structure", name)
        return value


def element(value: Any, path: Path, taken: set[Path]) -> Element:
    """Open an object to read it; refuse another type, and modifier extensions.

    R4 (extensibility, *modifierExtension*): who does not understand one must not process the element it modifies.
    """
    if not isinstance(value, dict):
        raise FhirError(pointer(path), _("se esperaba un objeto"), "structure")
    opened = Element(value, path, taken)
    if value.get("modifierExtension"):
        raise opened.error(_("cambia el sentido del mensaje y no se entiende aquí"), "extension", "modifierExtension")
    return opened
