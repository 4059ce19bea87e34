"""Decides where a service description's imports are found: beside it, in catalogue folders, in the shipped one.

Never on the network: a web address in an import is only a name to look up. No document with a DOCTYPE is read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from lxml import etree

from schemas.text import _

WSDL = "{http://schemas.xmlsoap.org/wsdl/}"
MIME = "{http://schemas.xmlsoap.org/wsdl/mime/}"
XSD = "{http://www.w3.org/2001/XMLSchema}"
SOAP_11 = "{http://schemas.xmlsoap.org/wsdl/soap/}"
SOAP_12 = "{http://schemas.xmlsoap.org/wsdl/soap12/}"
_BODIES = (f"{SOAP_11}body", f"{SOAP_12}body")
_HEADERS = (f"{SOAP_11}header", f"{SOAP_12}header")
_MAX_BYTES = 16 * 1024 * 1024
_XML = "http://www.w3.org/XML/1998/namespace"
_REFERENCES = ("element", "type", "ref", "base", "itemType", "substitutionGroup")


class Refused(ValueError):
    """A document cannot be read: a stable word for the kind of trouble, and what it is, with the line where known."""

    def __init__(self, kind: str, what: str, line: int | None = None) -> None:
        super().__init__(what)
        self.kind, self.what, self.line = kind, what, line


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a description: a stable word for its kind, file and line, and the text a person reads."""

    kind: str
    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Import:
    """What a document asks for: ``verb`` is import or include (of a schema) or wsdl; ``address`` is absolute."""

    verb: str
    namespace: str | None
    location: str | None
    address: str
    beside: Path | None = None
    line: int = 0
    by: etree._Element | None = None

    @property
    def name(self) -> str:
        """The file name at the end of the location."""
        return unquote(urlsplit(self.address).path.rstrip("/").rpartition("/")[2])

    def names(self) -> set[str]:
        """The names the asking document uses of the namespace asked for."""
        used: set[str] = set()
        for node in self.by.iter(f"{WSDL}part", f"{XSD}*") if self.by is not None else ():
            for attribute in _REFERENCES:
                prefix, _colon, local = node.get(attribute, "").strip().rpartition(":")
                if local and node.nsmap.get(prefix or None) == self.namespace:
                    used.add(local)
        return used


@dataclass(frozen=True, slots=True)
class Source:
    """A document that was read: its file's name, its bytes as zeep gets them, its root and what it asks for."""

    name: str
    raw: bytes
    root: etree._Element
    imports: tuple[Import, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    path: Path
    is_schema: bool
    namespace: str | None


class Documents:
    """What zeep loads a description through: its own folder, then the folders given, then the shipped catalogue."""

    def __init__(self, file: Path, folders: Iterable[Path] = ()) -> None:
        self.file = Path(os.path.realpath(file))
        # Of its own folder not what lies deeper: a description may lie anywhere, also where much else does.
        self._catalogues = [_Catalogue(self.file.parent, "*"), *map(_Catalogue, folders), _SHIPPED]
        self._wanted: dict[str, Import] = {}
        self._read: dict[str, Source] = {}

    def load(self, url: str) -> bytes:
        """Give zeep the document at an address; raises :class:`Refused`."""
        return self.open(url).raw

    def open(self, address: str) -> Source:
        """Read the document of an address, once; raises :class:`Refused` naming what is missing or wrong."""
        if address not in self._read:
            self._read[address] = self._open(address)
        return self._read[address]

    def walk(self) -> tuple[list[Source], list[Problem]]:
        """Read the description and all it imports: the documents, and every import that cannot be followed.

        Raises :class:`Refused` for the description itself.
        """
        sources, problems = [self.open(str(self.file))], []
        known = {str(self.file)}
        for source in sources:
            for wanted in source.imports:
                if wanted.location is None:
                    continue
                where = f"{source.name}:{wanted.line}"
                try:
                    found = self.open(wanted.address)
                except Refused as refused:
                    what = _("importa {name}: {why}").format(name=wanted.location, why=refused.what)
                    problems.append(Problem(refused.kind, where, what))
                    continue
                if wanted.address not in known:
                    known.add(wanted.address)
                    sources.append(found)
                if (wrong := _mismatch(wanted, found.root)) is not None:
                    problems.append(Problem("wrong-import", where, wrong))
        return sources, problems

    def _open(self, address: str) -> Source:
        if address == str(self.file):
            path = self.file
        else:
            # zeep itself asks for some well-known schemas that nobody imported, by their namespace.
            wanted = self._wanted.get(address) or Import("import", address, address, address)
            path = self._find(wanted)
        raw = _bytes_of(path)
        root = parse(raw)
        if _mend(root) | self._complete(root):
            raw = etree.tostring(root, encoding="utf-8", xml_declaration=True)
        imports = tuple(_imports(root, address, path.parent))
        for asked in imports:
            self._wanted.setdefault(asked.address, asked)
        return Source(path.name, raw, root, imports)

    def _find(self, wanted: Import) -> Path:
        if "://" not in wanted.address and Path(wanted.address).exists():
            return Path(wanted.address)
        if wanted.beside is not None and _fits(wanted.beside, wanted):
            return wanted.beside
        for catalogue in self._catalogues:
            found = catalogue.find(wanted)
            if found is not None:
                return found
        raise Refused("missing-import", self._advice(wanted))

    def _complete(self, root: etree._Element) -> bool:
        """Give imports that name only a namespace the catalogue's schema for it; zeep would skip them.

        So too where ``xml:lang`` is used without an import: that prefix needs no declaration, and many forget this one.
        """
        for schema in root.iter(f"{XSD}schema"):
            if any(node.get("ref", "").startswith("xml:") for node in schema.iter(f"{XSD}attribute")) and not any(
                node.get("namespace") == _XML for node in schema.iterchildren(f"{XSD}import")
            ):
                schema.insert(0, etree.Element(f"{XSD}import", namespace=_XML))
        own = {schema.get("targetNamespace") for schema in root.iter(f"{XSD}schema")} | {XSD.strip("{}")}
        changed = False
        for node in root.iter(f"{XSD}import"):
            namespace = node.get("namespace")
            if not namespace or namespace in own or node.get("schemaLocation"):
                continue
            wanted = Import("import", namespace, None, "", by=root)
            found = next((path for catalogue in self._catalogues if (path := catalogue.find(wanted))), None)
            if found is not None:
                node.set("schemaLocation", str(found.resolve()))
                changed = True
        return changed

    def _advice(self, wanted: Import) -> str:
        same = [path.name for catalogue in self._catalogues for path in catalogue.of_namespace(wanted.namespace)]
        what = _("falta el archivo {name}")
        if wanted.namespace is not None:
            what = _("falta el archivo {name} del espacio de nombres {namespace}")
        if names := sorted(wanted.names()) if wanted.verb == "import" else []:
            what += _(", el que declara {names}")
        if same:
            what += _("; de ese espacio solo se encontraron {same}")
        what += _(": póngalo con ese nombre junto al WSDL o en una carpeta dada con --catalogue")
        return what.format(
            name=wanted.name or wanted.address,
            namespace=wanted.namespace,
            names=", ".join(names[:6]),
            same=", ".join(same[:12]),
        )


class _Catalogue:
    """A folder of schemas and descriptions, looked up by target namespace and file name."""

    def __init__(self, folder: Path, pattern: str = "**/*") -> None:
        self._folder, self._pattern = folder, pattern

    @cached_property
    def _entries(self) -> list[_Entry]:
        files = sorted(self._folder.glob(self._pattern))
        found = (_entry(path) for path in files if path.suffix.lower() in (".xsd", ".wsdl"))
        return [entry for entry in found if entry is not None]

    def of_namespace(self, namespace: str | None) -> list[Path]:
        """Return the schemas of a namespace."""
        return [entry.path for entry in self._entries if entry.is_schema and entry.namespace == namespace]

    def find(self, wanted: Import) -> Path | None:
        """Return the document wanted: by namespace and name, else the only one that can be meant."""
        name = wanted.name.lower()
        named = [entry for entry in self._entries if entry.path.name.lower() == name]
        if wanted.verb == "include":
            # A schema without namespace takes that of the one that includes it (XSD 1.0 clause 4.2.1).
            return next((entry.path for entry in named if entry.namespace in (wanted.namespace, None)), None)
        if wanted.namespace is None:
            return named[0].path if named else None
        exact = [entry.path for entry in named if entry.namespace == wanted.namespace]
        if exact or wanted.verb == "wsdl":
            return exact[0] if exact else None
        same = self.of_namespace(wanted.namespace)
        if len(same) > 1 and (names := wanted.names()):
            same = [path for path in same if names <= _declared(path)]
        return same[0] if len(same) == 1 else None


_SHIPPED = _Catalogue(Path(__file__).parent / "catalogue")


def read_wsdl(documents: Documents) -> Any:
    """Read a description with zeep, strictly; raises what zeep raises (its errors are many) and :class:`Refused`."""
    # zeep takes long to import, and most of what is refused is refused without it.
    from zeep import Settings
    from zeep.wsdl import Document

    # zeep's "forbid_external" would refuse a web address before the catalogue is asked, and "force_https" makes
    # one of a file's.
    settings = Settings(strict=True, forbid_dtd=True, forbid_entities=True, forbid_external=False, force_https=False)
    return Document(str(documents.file), cast(Any, documents), settings=settings)


def parse(raw: bytes) -> etree._Element:
    """Parse a document; raises :class:`Refused` for what is not XML and for any DOCTYPE (no entity is expanded)."""
    parser = etree.XMLParser(
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(raw, parser)
    except etree.XMLSyntaxError as error:
        if cast(Any, error).code == etree.ErrorTypes.ERR_NO_MEMORY:
            raise MemoryError from None
        undeclared = cast(Any, error).code == etree.ErrorTypes.NS_ERR_UNDEFINED_NAMESPACE
        kind = "undeclared-prefix" if undeclared else "not-xml"
        what = _("usa un prefijo sin declarar: {why}") if undeclared else _("no es XML válido: {why}")
        raise Refused(kind, what.format(why=error.msg), error.lineno) from None
    if root.getroottree().docinfo.internalDTD is not None:
        what = _("tiene un DOCTYPE, que puede traer entidades o archivos ajenos: quítelo")
        raise Refused("doctype", what, 1)
    return root


def _mend(root: etree._Element) -> bool:
    """Put SOAP bodies where zeep looks for them: outside MIME parts, and with ``part`` for a single ``parts`` name."""
    changed = False
    for related in root.iter(f"{MIME}multipartRelated"):
        message = related.getparent()
        for child in related.findall(f"{MIME}part/*"):
            if message is not None and child.tag in (*_BODIES, *_HEADERS):
                message.append(child)
                changed = True
    for body in root.iter(*_BODIES):
        names = body.get("parts", "").split()
        if len(names) == 1:
            body.set("part", names[0])
            changed = True
    return changed


def line_of(node: etree._Element) -> int:
    """Return the line a node starts on, 0 for one that was not in the file."""
    return cast(Any, node).sourceline or 0


def _bytes_of(path: Path) -> bytes:
    try:
        about = path.stat()
        # Also nothing that would never end: devices, pipes, the kernel's own files (which state no size).
        if not stat.S_ISREG(about.st_mode):
            raise Refused("unreadable", _("no es un archivo"))
        if not about.st_size:
            raise Refused("unreadable", _("está vacío"))
        if about.st_size > _MAX_BYTES:
            raise Refused("limit", _("pasa de {n} MB").format(n=_MAX_BYTES >> 20))
        return path.read_bytes()
    except FileNotFoundError:
        raise Refused("unreadable", _("no existe")) from None
    except (OSError, ValueError) as error:
        if isinstance(error, Refused):
            raise
        raise Refused("unreadable", _("no se puede leer: {why}").format(why=error)) from None


def _imports(root: etree._Element, address: str, folder: Path) -> Iterator[Import]:
    for node in root.iter(f"{XSD}import", f"{XSD}include", f"{XSD}redefine", f"{WSDL}import"):
        from zeep.loader import absolute_location

        verb = "wsdl" if node.tag == f"{WSDL}import" else "import" if node.tag == f"{XSD}import" else "include"
        location = node.get("location" if verb == "wsdl" else "schemaLocation")
        schema = node.getparent()
        namespace = schema.get("targetNamespace") if verb == "include" and schema is not None else node.get("namespace")
        line = line_of(node)
        if not location:
            yield Import(verb, namespace, None, "", line=line, by=root)
            continue
        beside = None if "://" in location else folder / unquote(location)
        absolute = cast(Any, absolute_location)(location, address)
        yield Import(verb, namespace, location, absolute, beside, line, root)


def _entry(path: Path) -> _Entry | None:
    """Read what a file declares itself to be; None for one that could not be used."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            start = etree.iterparse(file, events=("start",), resolve_entities=False, load_dtd=False, no_network=True)
            _event, root = next(start)
            if root.getroottree().docinfo.internalDTD is None:
                return _Entry(path, root.tag == f"{XSD}schema", root.get("targetNamespace"))
    except (OSError, etree.XMLSyntaxError, StopIteration):
        pass
    return None


def _fits(path: Path, wanted: Import) -> bool:
    entry = _entry(path)
    if entry is None:
        return False
    return entry.namespace == wanted.namespace or (wanted.verb == "include" and entry.namespace is None)


def _mismatch(wanted: Import, root: etree._Element) -> str | None:
    """Say why a document that was found is not what the import says, or None."""
    if wanted.verb == "wsdl":
        return None
    if root.tag != f"{XSD}schema":
        return _("importa {name}, que no es un esquema XSD").format(name=wanted.location)
    target = root.get("targetNamespace")
    if target is None or target == wanted.namespace or (wanted.verb == "import" and not wanted.namespace):
        return None
    what = _(
        "importa {name} como espacio de nombres {namespace}, pero ese archivo es de {target}: corrija uno de los dos"
    )
    return what.format(name=wanted.location, namespace=wanted.namespace or "—", target=target)


def _declared(path: Path) -> set[str]:
    try:
        return {str(node.get("name")) for node in parse(_bytes_of(path)) if isinstance(node.tag, str)}
    except Refused:
        return set()
