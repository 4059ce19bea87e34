"""Reads a WSDL file once and gives its operations: build a request, read an answer.

zeep reads the WSDL and builds and checks requests. Answers are walked by its types here: zeep itself, strict or not,
takes any namespace, makes ``None`` of an impossible value (which it logs), and reads an unknown boolean as false.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from lxml import etree
from zeep import Settings
from zeep.exceptions import Error as ZeepError
from zeep.wsdl import Document
from zeep.wsdl.bindings import Soap11Binding
from zeep.xsd import AnySimpleType, ComplexType, Element, Sequence
from zeep.xsd.types import builtins

from adapters.errors import ContractBroken
from adapters.reading import Unsayable
from schemas.text import _

_NIL = "{http://www.w3.org/2001/XMLSchema-instance}nil"
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_Reader = Callable[[etree._Element], Any]
_Children = deque[etree._Element]


class Unusable(ValueError):
    """A WSDL cannot be used; the text says what of it and why."""


class _Files:
    """What zeep loads documents through: files only, whatever an import asks for."""

    def load(self, url: str) -> bytes:
        if "://" in url:
            raise Unusable(_("importa {url}, que no es un archivo").format(url=url))
        return Path(url).read_bytes()


class Operation:
    """One operation of a SOAP 1.1 document/literal binding."""

    def __init__(self, operation: Any) -> None:
        self._operation = operation
        self._element: Element = operation.output.body
        self._read = _reader(self._element.type, self._element.name, {})
        request = operation.input.body.type
        self.parameters = {element.name: element.min_occurs > 0 for _name, element in request.elements}
        self.action = f'"{operation.soapaction or ""}"'

    def build(self, values: Mapping[str, Any]) -> bytes:
        """Build the envelope of a request; raise :class:`~adapters.reading.Unsayable` for what the WSDL refuses."""
        try:
            envelope = self._operation.create(**values).content
        except ZeepError as error:
            raise Unsayable(f"the WSDL refuses it at {'.'.join(getattr(error, 'path', None) or ['?'])}") from None
        except (TypeError, ValueError, LookupError, AttributeError):
            # What zeep lets through bare: an unknown element, a control character, a value of another type.
            raise Unsayable("the WSDL refuses it") from None
        return etree.tostring(envelope, xml_declaration=True, encoding="UTF-8")

    def read(self, element: etree._Element) -> Any:
        """Read the element in an answer's Body: texts, whole numbers, booleans, lists for what may repeat.

        Raises ContractBroken unless it is the WSDL's, by qualified name, order, number and type.
        """
        if element.tag != self._element.qname.text:
            raise ContractBroken(f"the answer is not {self._element.name} of the contract's namespace")
        return self._read(element)


def load_operations(file: Path) -> dict[str, Operation]:
    """Read a WSDL file, without network; raise :class:`Unusable` naming what is wrong."""
    settings = Settings(strict=True, forbid_dtd=True, forbid_entities=True, forbid_external=True)
    try:
        document: Any = Document(str(file.resolve()), cast(Any, _Files()), settings=settings)
    except OSError as error:
        raise Unusable(_("no se puede leer {file}").format(file=Path(error.filename or file).name)) from None
    except (ZeepError, etree.LxmlError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise Unusable(_("no es un WSDL que se pueda usar: {why}").format(why=error)) from None
    operations: dict[str, Operation] = {}
    for binding in document.bindings.values():
        if not isinstance(binding, Soap11Binding):
            continue
        for operation in cast(Any, binding).all().values():
            if operation.style != "document" or operation.output is None or operation.output.body is None:
                raise Unusable(_("la operación {name} no es document/literal").format(name=operation.name))
            operations[operation.name] = Operation(operation)
    if not operations:
        raise Unusable(_("no tiene operaciones de SOAP 1.1"))
    return operations


def _reader(xsd_type: Any, name: str, known: dict[int, _Reader]) -> _Reader:
    """Compile the reader of a type; ``known`` lets a type hold itself."""
    found = known.get(id(xsd_type))
    if found is not None:
        return found
    if isinstance(xsd_type, AnySimpleType):
        return _simple(xsd_type, name)
    if not isinstance(xsd_type, ComplexType):
        raise Unusable(_("{name}: no se sabe leer este tipo").format(name=name))

    def read(element: etree._Element) -> dict[str, Any] | None:
        if element.get(_NIL) in ("true", "1"):
            return None
        content: dict[str, Any] = {}
        children: _Children = deque(element)
        for part in parts:
            part(children, content)
        if children:
            raise ContractBroken(f"{name}: an element that is not in the contract, or not in its place")
        return content

    known[id(xsd_type)] = read
    parts = [_part(element, known) for element in _elements(xsd_type, name)]
    return read


def _elements(xsd_type: Any, name: str) -> Iterator[Element]:
    """Give the elements of a type that is a plain sequence; anything richer is refused when the WSDL is read."""
    for _key, particle in xsd_type.elements_nested:
        members = particle if isinstance(particle, Sequence) and particle.max_occurs == 1 else [particle]
        for member in members:
            if not isinstance(member, Element):
                raise Unusable(_("{name}: solo se leen secuencias de elementos").format(name=name))
            yield member


def _part(element: Element, known: dict[int, _Reader]) -> Callable[[_Children, dict[str, Any]], None]:
    tag, name = element.qname.text, str(element.name)
    least, most = element.min_occurs, None if element.max_occurs == "unbounded" else int(element.max_occurs)
    read = _reader(element.type, name, known)

    def one(children: _Children, content: dict[str, Any]) -> None:
        if children and children[0].tag == tag:
            content[name] = read(children.popleft())
        elif least:
            raise ContractBroken(f"{name}: missing, or not in its place")

    def several(children: _Children, content: dict[str, Any]) -> None:
        items = content[name] = []
        while children and children[0].tag == tag and (most is None or len(items) < most):
            items.append(read(children.popleft()))
        if len(items) < least:
            raise ContractBroken(f"{name}: missing, or not in its place")

    return one if most == 1 else several


def _simple(xsd_type: Any, name: str) -> _Reader:
    def text(element: etree._Element) -> str | None:
        if len(element):
            raise ContractBroken(f"{name}: elements where a value belongs")
        return None if element.get(_NIL) in ("true", "1") else element.text or ""

    def boolean(element: etree._Element) -> bool | None:
        value = text(element)
        if value is None:
            return None
        try:
            return _BOOLEANS[value.strip()]
        except KeyError:
            raise ContractBroken(f"{name}: not a boolean") from None

    def integer(element: etree._Element) -> int | None:
        value = text(element)
        if value is None:
            return None
        digits = value.strip().removeprefix("-").removeprefix("+")
        if not (digits.isascii() and digits.isdecimal() and len(digits) < 20):
            raise ContractBroken(f"{name}: not a whole number")
        return int(value)

    if isinstance(xsd_type, builtins.Boolean):
        return boolean
    # Dates stay texts: the manifest's converters check them one by one, so one bad date does not refuse a page.
    return integer if isinstance(xsd_type, builtins.Integer) else text
