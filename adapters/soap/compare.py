"""Holds what zeep loads of a service description against what its bindings declare; nothing is lost without a word."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lxml import etree
from zeep.exceptions import Error as ZeepError
from zeep.wsdl.bindings import Soap11Binding, Soap12Binding

from adapters.soap.catalogue import Documents, Problem, Source, read_wsdl
from adapters.soap.contract import Contract
from adapters.soap.declared import BoundOperation, Content, Declared, Port
from adapters.soap.schema import Unusable
from schemas.text import _

_VERSIONS = {Soap11Binding: "1.1", Soap12Binding: "1.2"}
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


@dataclass(slots=True)
class Compared:
    """What zeep loaded, what of it is amiss, and whether an operation can be called with nothing lost."""

    usable: bool = False
    operations: list[dict[str, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def compare(documents: Documents, declared: Declared, sources: list[Source]) -> Compared:
    """Load a description whose imports were all found; never raises for what is in it."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            document = read_wsdl(documents)
            contract = Contract(documents, document)
        except _REFUSALS as error:
            return Compared(problems=declared.problems or [_explained(error, sources[0].name)])
    return _compared(document, contract, declared, sources[0], [str(warning.message) for warning in warned])


def _compared(document: Any, contract: Contract, declared: Declared, root: Source, warned: list[str]) -> Compared:
    """Hold what zeep loaded against what the bindings declare."""
    found, lost, barred, callable_ = Compared(), [], [], 0
    for port in declared.ports:
        service = document.services.get(port.service)
        loaded = service.ports.get(port.name) if service is not None and port.file == root.name else None
        if loaded is None:
            continue
        binding, names = declared.bindings[port.binding], set()
        for operation in binding.operations:
            own = loaded.binding.all().get(operation.name)
            place = {"service": port.service, "port": port.name, "name": operation.name}
            if own is None or operation.name in names:
                what = _("la operación {name} se pierde al cargarlo").format(name=_full(port, operation))
                lost.append(Problem("lost-operation", operation.where, what))
                continue
            names.add(operation.name)
            found.operations.append({**place, "soap": _VERSIONS[type(loaded.binding)]})
            lost.extend(_lost_messages(port, operation, own))
            reason = _why_not(contract, own)
            if reason is None:
                callable_ += 1
            else:
                what = _("no se puede llamar a {name}: {why}").format(name=_full(port, operation), why=reason)
                barred.append(Problem("not-callable", operation.where, what))
    if not found.operations and not lost:
        lost.append(Problem("no-operations", root.name, _none(declared, root)))
    if warned and not declared.problems and not lost:
        lost = [Problem("lost-message", root.name, text) for text in warned]
    found.problems = [*declared.problems, *lost, *barred]
    # An element whose type is misspelt loads as one that may hold anything.
    found.usable = bool(callable_) and not lost and all(problem.kind != "bad-schema" for problem in declared.problems)
    return found


def _lost_messages(port: Port, operation: BoundOperation, loaded: Any) -> Iterator[Problem]:
    for way, text in (("input", _("la petición")), ("output", _("la respuesta"))):
        expected, got = getattr(operation, way), loaded_content(getattr(loaded, way))
        if expected == got:
            continue
        less = [name.rpartition("}")[2] for name in (*expected.body, *expected.headers)]
        more = [name.rpartition("}")[2] for name in (*got.body, *got.headers)]
        what = _("{message} de {name} se pierde en parte: declara {less}, se carga {more}").format(
            message=text, name=_full(port, operation), less=", ".join(less) or "—", more=", ".join(more) or "—"
        )
        yield Problem("lost-message", operation.where, what)


def loaded_content(message: Any) -> Content:
    """Return what a message of zeep's carries, in the terms of :class:`~adapters.soap.declared.Content`."""
    if message is None:
        return Content()
    headers = message.header.type.elements if message.header is not None else []
    body: Iterable[str] = ()
    if message.body is not None:
        # Several parts, or an rpc wrapper: what counts is inside.
        wraps = message._is_body_wrapped or type(message).__name__ == "RpcMessage"
        body = _names(message.body.type.elements) if wraps else [message.body.qname.text]
    return Content(tuple(body), tuple(_names(headers)))


def _names(elements: Iterable[tuple[str, Any]]) -> list[str]:
    return [element.qname.text for _name, element in elements]


def _why_not(contract: Contract, operation: Any) -> str | None:
    try:
        contract.compile(operation)
    except Unusable as error:
        return str(error)
    return None


def _none(declared: Declared, root: Source) -> str:
    others = sorted({port.file for port in declared.ports if port.file != root.name})
    if others:
        return _("los servicios están en {files}: examine ese archivo").format(files=", ".join(others))
    if declared.bindings:
        return _("ningún servicio tiene un puerto que lleve a un binding de SOAP sobre HTTP")
    return _("no tiene operaciones de SOAP sobre HTTP: es solo una parte, o de otro protocolo")


def _explained(error: BaseException, name: str) -> Problem:
    """Say in our words why zeep refuses a description in which nothing was found to lead nowhere."""
    if isinstance(error, RecursionError):
        return Problem("bad-schema", name, _("los esquemas se anidan demasiado, o sin fin"))
    what = _("no se puede cargar: {why}").format(why=f"{type(error).__name__}: {error}")
    return Problem("bad-schema", name, what)


def _full(port: Port, operation: BoundOperation) -> str:
    return f"{port.service}/{port.name}/{operation.name}"
