"""The envelope: what counts as a message Bundle of FHIR R4, and which resource a reference means inside it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.standards.fhir.errors import FhirError
from gateway.standards.fhir.tree import Element, Path, element
from schemas.canonical import sha256
from schemas.text import _

MAX_ENTRIES: Final = 200

_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_RELATIVE = re.compile(r"([A-Za-z]+)/[A-Za-z0-9\-.]{1,64}\Z")
_RESTFUL = re.compile(r"(https?://\S+/)([A-Za-z]+)/[A-Za-z0-9\-.]{1,64}\Z")
_VERSIONED = re.compile(r"(.+)/_history/([A-Za-z0-9\-.]{1,64})\Z")


def content_key(raw: bytes) -> str:
    """Return the SHA-256 of the received bytes in lower-case hex: the idempotency key of a FHIR message."""
    return sha256(raw).hex()


@dataclass(frozen=True, slots=True)
class Resolved:
    """A resource of the message and the URL it goes by: its entry's ``fullUrl``, plus ``#id`` when contained."""

    url: str
    resource: Element


@dataclass(frozen=True, slots=True)
class Message:
    """A checked message Bundle: the root, its MessageHeader, and its entries by ``fullUrl``."""

    root: Element
    header: Element
    urls: tuple[str | None, ...]
    entries: dict[str, int]
    _contained: dict[int, dict[str, int]] = field(default_factory=dict)

    def resolve(self, reference: Element) -> Resolved | None:
        """Return the resource that a Reference means, or ``None`` when it is not in the message; nothing is fetched.

        R4 ``bundle.html`` "Resolving references in Bundles": ``#id`` is contained in the resource that refers;
        ``Type/id`` hangs on the RESTful base of the referring entry's ``fullUrl``; a version is compared with
        ``meta.versionId``; everything else is compared with ``fullUrl`` as it stands.
        """
        literal = reference.look("reference")
        if literal is None:
            return None
        entry = _entry_of(reference.path)
        if literal.startswith("#"):
            place = self._contained_in(entry).get(literal[1:])
            if place is None:
                return None
            return Resolved(self.absolute(reference) or literal, self._open(entry, "contained", place))
        url = self.absolute(reference) or literal
        versioned = _VERSIONED.match(url)
        if versioned is not None:
            url = versioned[1]
        at = self.entries.get(url)
        if at is None:
            return None
        found = self._open(at)
        if versioned is not None:
            meta = found.child("meta")
            if meta is None or meta.look("versionId") != versioned[2]:
                return None
        return Resolved(url, found)

    def absolute(self, reference: Element) -> str | None:
        """Return the absolute form of a Reference's URL; as it stands where R4 gives it no base."""
        literal = reference.look("reference")
        if literal is None or _ABSOLUTE.match(literal):
            return literal
        own = self.urls[_entry_of(reference.path)]
        if literal.startswith("#"):
            return literal if own is None else own + literal
        versioned = _VERSIONED.match(literal)
        base = _RESTFUL.match(own or "")
        if base is not None and _RELATIVE.match(versioned[1] if versioned else literal):
            return base[1] + literal
        return literal

    def _contained_in(self, entry: int) -> dict[str, int]:
        if entry not in self._contained:
            ids = [resource.look("id") for resource in self._open(entry).children("contained")]
            self._contained[entry] = {own: place for place, own in enumerate(ids) if own is not None}
        return self._contained[entry]

    def _open(self, entry: int, *tail: str | int) -> Element:
        path: Path = ("entry", entry, "resource", *tail)
        value: Any = self.root.data
        for step in path:
            value = value[step]
        return _resource(value, path, self.root.taken)


def type_named(url: str) -> str | None:
    """Return the resource type a RESTful URL, absolute or relative, names; ``None`` for any other URL."""
    versioned = _VERSIONED.match(url)
    plain = versioned[1] if versioned else url
    if restful := _RESTFUL.match(plain):
        return restful[2]
    relative = _RELATIVE.match(plain)
    return relative[1] if relative else None


def open_message(document: dict[str, Any]) -> Message:
    """Check the envelope (R4 invariants bdl-5, bdl-7, bdl-8, bdl-12) and open the MessageHeader.

    The same ``fullUrl`` twice is refused even with different versions: a message has one state of each resource.
    """
    expected = _("se esperaba un Bundle de tipo message cuya primera entrada es un MessageHeader")
    if not isinstance(document, dict):
        raise FhirError("", expected, "structure")
    root = Element(document, (), set())
    if document.get("resourceType") != "Bundle":
        raise root.error(expected, "structure", "resourceType")
    if document.get("type") != "message":
        raise root.error(expected, "structure", "type")
    root.take("type")
    _resource(document, (), root.taken)
    entries = root.children("entry")
    if not entries:
        raise root.error(expected, "required", "entry")
    if len(entries) > MAX_ENTRIES:
        raise root.error(_("demasiadas entradas, el máximo es {n}").format(n=MAX_ENTRIES), "too-costly", "entry")
    by_url: dict[str, int] = {}
    for place, entry in enumerate(entries):
        resource = entry.child("resource")
        if resource is None or resource.look("resourceType") is None:
            raise entry.error(_("la entrada no trae un recurso"), "required", "resource")
        url = entry.look("fullUrl")
        if url is None:
            continue
        if "/_history/" in url:
            raise entry.error(_("un fullUrl no lleva versión"), "invariant", "fullUrl")
        if url in by_url:
            raise entry.error(_("este fullUrl está repetido"), "duplicate", "fullUrl")
        by_url[url] = place
    header = _resource(entries[0].data["resource"], ("entry", 0, "resource"), root.taken)
    if header.look("resourceType") != "MessageHeader":
        raise header.error(expected, "invariant", "resourceType")
    return Message(root, header, tuple(entry.look("fullUrl") for entry in entries), by_url)


def _resource(value: Any, path: Path, taken: set[Path]) -> Element:
    resource = element(value, path, taken)
    if resource.data.get("implicitRules") is not None:
        raise resource.error(_("cambia el sentido del recurso y no se entiende aquí"), "not-supported", "implicitRules")
    return resource


def _entry_of(path: Path) -> int:
    entry = path[1]
    if not isinstance(entry, int):
        raise TypeError("a reference is read from inside an entry")
    return entry
