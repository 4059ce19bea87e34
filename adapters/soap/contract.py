"""Reads a service description once and gives its operations, each compiled when somebody asks for it.

zeep loads the description and builds and checks requests. Answers are read by the schemas themselves (reader.py):
zeep, strict or not, takes any namespace, makes ``None`` of an impossible value, and knows no enumerations.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lxml import etree
from zeep.exceptions import Error as ZeepError
from zeep.wsdl.bindings import Soap11Binding, Soap12Binding

from adapters.errors import ContractBroken
from adapters.soap.catalogue import WSDL, Documents, Refused, read_wsdl
from adapters.soap.message import SOAP_11, SOAP_12
from adapters.soap.particles import Read
from adapters.soap.reader import Readers
from adapters.soap.request import RequestWriter
from adapters.soap.schema import Schemas, Unusable
from schemas.text import _

if TYPE_CHECKING:
    # The examination of a description reads this module with little memory; the client reserves a gigabyte.
    from adapters.http import Headers

_BINDINGS = {
    SOAP_11: (Soap11Binding, "{http://schemas.xmlsoap.org/wsdl/soap/}"),
    SOAP_12: (Soap12Binding, "{http://schemas.xmlsoap.org/wsdl/soap12/}"),
}
_ANYWHERE = "{*}"
_MIME = "{http://schemas.xmlsoap.org/wsdl/mime/}"
# What zeep raises for descriptions it cannot take: its own errors, and many bare ones.
_REFUSALS = (
    ZeepError,
    etree.LxmlError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    AssertionError,
)


class Operation:
    """One operation: builds requests, reads answers.

    ``soap`` is the namespace of its SOAP version; ``answer`` the qualified name of the element in an answer's Body.
    """

    def __init__(self, soap: str, action: str, writer: RequestWriter, answer: str, read: Read) -> None:
        self.soap, self.writer, self.answer, self._read = soap, writer, answer, read
        self.build, self.service_code = writer.build, writer.name
        if soap == SOAP_11:
            # SOAP 1.1 clause 6.1.1: a quoted address, also an empty one.
            self.headers: Headers = (("Content-Type", "text/xml; charset=utf-8"), ("SOAPAction", f'"{action}"'))
        else:
            # RFC 3902: the action is a parameter.
            more = f'; action="{action}"' if action else ""
            self.headers = (("Content-Type", f"application/soap+xml; charset=utf-8{more}"),)

    def read(self, element: etree._Element) -> Any:
        """Read the element in an answer's Body into texts, numbers, objects and lists (content.py).

        Raises ContractBroken unless it is the contract's, by qualified name, order, number and type.
        """
        name = etree.QName(element)
        if element.tag != self.answer and self.answer != f"{_ANYWHERE}{name.localname}":
            raise ContractBroken(f"the answer is not {self.answer.rpartition('}')[2]} of the contract's namespace")
        try:
            return self._read(element)
        except RecursionError:
            raise ContractBroken("the answer is nested too deeply") from None


class Contract:
    """A service description that was loaded."""

    def __init__(self, documents: Documents, document: Any) -> None:
        self._document = document
        self._schemas = Schemas(documents)
        self._readers = Readers(self._schemas)
        self._compiled: dict[tuple[str, str | None], Operation] = {}

    def operation(self, name: str, port: str | None = None) -> Operation:
        """Return an operation of a port, or of the only port that has it, SOAP 1.1 before 1.2.

        Raises :class:`Unusable` for one that is not there, not to be told from another, or that cannot be called.
        """
        key = (name, port)
        if key not in self._compiled:
            self._compiled[key] = self.compile(self._find(name, port))
        return self._compiled[key]

    def compile(self, operation: Any) -> Operation:
        """Compile an operation as zeep loaded it; raise :class:`Unusable` saying why it cannot be called."""
        try:
            return self._compile(operation)
        except RecursionError:
            raise Unusable(_("sus tipos se contienen sin fin")) from None
        except Unusable:
            raise
        except (ValueError, LookupError, TypeError, AttributeError):
            raise Unusable(_("sus mensajes son de una forma que no se puede leer")) from None

    def _find(self, name: str, port: str | None) -> Any:
        ports = dict(self._ports())
        if port is not None:
            if port not in ports:
                raise Unusable(_("no tiene el puerto {port}; tiene: {names}").format(port=port, names=", ".join(ports)))
            ports = {port: ports[port]}
        for kind, _prefix in _BINDINGS.values():
            having = {
                each: binding
                for each, binding in ports.items()
                if isinstance(binding, kind) and name in binding._operations
            }
            if len({id(binding) for binding in having.values()}) > 1:
                raise Unusable(
                    _("varios puertos tienen esta operación: diga port: {names}").format(names=", ".join(having))
                )
            for binding in having.values():
                return binding._operations[name]
        raise Unusable(_("el WSDL no tiene esta operación"))

    def _ports(self) -> Iterator[tuple[str, Any]]:
        """Give the SOAP bindings by port; where there is no service, by their own names."""
        ports = [port for service in self._document.services.values() for port in service.ports.values()]
        named = [(port.name, port.binding) for port in ports]
        kinds = tuple(kind for kind, _prefix in _BINDINGS.values())
        for name, binding in named or [(each.name.localname, each) for each in self._document.bindings.values()]:
            if isinstance(binding, kinds):
                yield name, binding

    def _compile(self, operation: Any) -> Operation:
        soap, prefix = next(
            (soap, prefix) for soap, (kind, prefix) in _BINDINGS.items() if isinstance(operation.binding, kind)
        )
        node = self._node(operation)
        bodies = list(node.iter(f"{prefix}body"))
        if any(body.get("use") == "encoded" for body in bodies):
            raise Unusable(
                _("es SOAP-encoded, que WS-I Basic Profile excluye; pida a la institución una versión literal")
            )
        asked, answered = node.find(f"{WSDL}input"), node.find(f"{WSDL}output")
        if answered is None or operation.abstract.output_message is None:
            raise Unusable(_("es de una sola vía: no contesta nada"))
        if asked is not None and asked.find(f"{_MIME}multipartRelated") is not None:
            raise Unusable(_("su petición lleva adjuntos"))
        writer = RequestWriter(operation)
        body = next(answered.iter(f"{prefix}body"), None)
        parts = _parts(operation, answered, body, prefix)
        if operation.style == "rpc":
            # WS-I BP 1.1 R2717 and R2729; where the binding gives no namespace, none is asked for.
            namespace = body.get("namespace") if body is not None else None
            name = f"{operation.name}Response"
            answer = f"{{{namespace}}}{name}" if namespace else f"{_ANYWHERE}{name}"
            kinds = [(part, _type_name(part, found)) for part, found in parts]
            read = self._readers.of_parts(name, kinds)
            return Operation(soap, operation.soapaction or "", writer, answer, read)
        if len(parts) != 1 or parts[0][1].element is None:
            raise Unusable(_("su respuesta no es un solo elemento"))
        answer = str(parts[0][1].element.qname.text)
        return Operation(soap, operation.soapaction or "", writer, answer, self._readers.of_element(answer))

    def _node(self, operation: Any) -> etree._Element:
        """Return the operation in its binding: zeep keeps neither use nor namespace."""
        binding = operation.binding.name
        for root in self._schemas.definitions:
            if (root.get("targetNamespace") or None) != (binding.namespace or None):
                continue
            for node in root.findall(f"{WSDL}binding"):
                for each in node.findall(f"{WSDL}operation"):
                    if node.get("name") == binding.localname and each.get("name") == operation.name:
                        return each
        raise Unusable(_("el WSDL no tiene esta operación"))


def load_contract(file: Path) -> Contract:
    """Read a description, without network; raise :class:`Unusable` naming what is wrong."""
    documents = Documents(file)
    try:
        # zeep warns of messages that it drops; an operation that lost one is refused when it is asked for.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            document = read_wsdl(documents)
        return Contract(documents, document)
    except Refused as refused:
        if refused.kind == "unreadable":
            raise Unusable(_("no se puede leer {file}: {why}").format(file=file.name, why=refused.what)) from None
        raise Unusable(_("no es un WSDL que se pueda usar: {why}").format(why=refused.what)) from None
    except _REFUSALS as error:
        raise Unusable(_("no es un WSDL que se pueda usar: {why}").format(why=error)) from None


def _parts(operation: Any, answered: etree._Element, body: etree._Element | None, prefix: str) -> list[tuple[str, Any]]:
    """Return the parts of an answer that stand in its Body: not those of headers and attachments."""
    message = operation.abstract.output_message
    listed = None if body is None or body.get("parts") is None else str(body.get("parts")).split()
    elsewhere = {node.get("part") for node in answered.iter(f"{_MIME}content")}
    for node in answered.iter(f"{prefix}header"):
        if str(node.get("message")).rpartition(":")[2] == message.name.localname:
            elsewhere.add(node.get("part"))
    return [
        (name, part)
        for name, part in message.parts.items()
        if (name in listed if listed is not None else name not in elsewhere)
    ]


def _type_name(name: str, part: Any) -> str:
    if part.type is None or part.type.qname is None:
        raise Unusable(_("la parte {name} de su respuesta no tiene un tipo").format(name=name))
    return str(part.type.qname.text)
