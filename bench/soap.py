"""SOAP fetches a second of one adapter on one core, beside what zeep alone takes to build and parse the same messages.

Usage: ``python -m bench.soap [ROUNDS]``. The producer answers one fixed record from a process on another core. One JSON
line, medians of the rounds: calls a second at 16 in flight; microseconds of a message built and read, ours and zeep's.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lxml import etree

from adapters.models import Adapter, Found, Identifier
from adapters.registry import SHIPPED, load_adapters
from adapters.soap.attachments import open_answer
from adapters.soap.catalogue import Documents, read_wsdl
from adapters.soap.contract import load_contract
from adapters.soap.message import SOAP_11, Fault, content_of
from bench.common import OTHER_CORE, PROGRAM_CORE, machine, permit_for, running
from gateway.cli.demo.processes import free_port

IN_FLIGHT, CALLS, MESSAGES, PAGE = 16, 6000, 2000, 500
_PERSONS, _MDS = "http://identificaciones.ws.sii.senatics.gov.py/", "http://derivaciones.ws.mds.gov.py/"
_RECORD = (
    "<apellido>GONZÁLEZ ÑANDUTI</apellido><cedula>4123456</cedula><estadoCivil>S</estadoCivil>"
    "<fechNacim>1984-05-01T00:00:00-04:00</fechNacim><icActa>12</icActa><icFeccar>01/06/1984</icFeccar>"
    "<icFolio>7</icFolio><icOfnac>ASUNCION</icOfnac><icTomo>3</icTomo><nacionalidadBean>PARAGUAYA</nacionalidadBean>"
    "<nombres>MARÍA ARAMI</nombres><sexo>F</sexo>"
)
_ITEM = (
    "<contrarreferencia><idMensaje>M-1</idMensaje><idReferencia>019a2b3c-4d5e-7f60-8a1b-2c3d4e5f6071</idReferencia>"
    "<evento>RECHAZADA</evento><fecha>2026-11-23</fecha><motivo>SIN_CUPO</motivo><detalle>Sin cupo</detalle>"
    "</contrarreferencia>"
)


def _envelope(operation: str, namespace: str, content: str) -> bytes:
    name = f"n:{operation}Response"
    body = f'<{name} xmlns:n="{namespace}" xmlns="{namespace if namespace == _MDS else ""}">{content}</{name}>'
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    return f'{head}<S:Envelope xmlns:S="{SOAP_11}"><S:Body>{body}</S:Body></S:Envelope>'.encode()


ANSWER = _envelope("findPersonaByCedula", _PERSONS, f"<return>{_RECORD}</return>")
_PAGE = _envelope("consultarContrarreferencias", _MDS, f"{_ITEM * PAGE}<cursor>1</cursor><hayMas>false</hayMas>")


class _Producer(asyncio.Protocol):
    """Answers every request with the same record, whatever it asks."""

    _head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: {len(ANSWER)}\r\n\r\n".encode()
    )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._held = transport, b""

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"</soap-env:Envelope>")) >= 0:
            self._held = self._held[end + len(b"</soap-env:Envelope>") :]
            self._transport.write(self._head + ANSWER)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Producer, "127.0.0.1", port)
    await server.serve_forever()


def _connected(folder: Path, port: int) -> Adapter:
    name = "identificaciones-soap"
    (folder / "m").mkdir()
    (folder / "m" / "wsdl").symlink_to(SHIPPED / "wsdl")
    text = (SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")
    (folder / "m" / f"{name}.yaml").write_text(text, encoding="utf-8")
    (folder / "identificaciones_password").write_text("bench", encoding="utf-8")
    connections = folder / "connections.yaml"
    connections.write_text(json.dumps({name: {"address": f"http://127.0.0.1:{port}"}}), encoding="utf-8")
    return load_adapters([folder / "m"], connections, folder).named(name)


async def _calls(port: int) -> float:
    """Return calls a second of the whole adapter, permit to facts."""
    permit = permit_for("birth-entry")
    with tempfile.TemporaryDirectory() as folder:
        adapter = _connected(Path(folder), port)
        left = CALLS

        async def caller() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                outcome = await adapter.fetch(permit, "birth-entry", Identifier("cedula", "4123456"))
                assert isinstance(outcome, Found), outcome

        await adapter.fetch(permit, "birth-entry", Identifier("cedula", "4123456"))
        started = time.perf_counter()
        await asyncio.gather(*(caller() for _each in range(IN_FLIGHT)))
        took = time.perf_counter() - started
        await adapter.close()
    return CALLS / took


def _microseconds(run: Callable[[], object], times: int) -> float:
    started = time.perf_counter()
    for _each in range(times):
        run()
    return (time.perf_counter() - started) / times * 1e6


def _messages(file: str, name: str, values: dict[str, Any], answer: bytes, times: int) -> tuple[float, float]:
    """Return microseconds of a request built and an answer read: ours, zeep's."""
    operation = load_contract(SHIPPED / "wsdl" / file).operation(name)
    [binding] = read_wsdl(Documents(SHIPPED / "wsdl" / file)).bindings.values()
    theirs = binding.get(name)

    def ours() -> object:
        operation.build(values)
        content = content_of(open_answer(answer, "text/xml; charset=utf-8")[0], operation.soap)
        assert not isinstance(content, Fault)
        return operation.read(content)

    def zeeps() -> object:
        etree.tostring(theirs.create(**values).content)
        return theirs.process_reply(etree.fromstring(answer))

    ours(), zeeps()
    return _microseconds(ours, times), _microseconds(zeeps, max(times // 4, 1))


def measure(rounds: int = 5) -> dict[str, Any]:
    """Return the figures; the calling process is pinned to a core."""
    os.sched_setaffinity(0, {PROGRAM_CORE})
    found: dict[str, list[float]] = {"calls": [], "ours": [], "zeep": [], "ours_page": [], "zeep_page": []}
    port = free_port()
    with running([sys.executable, "-m", "bench.soap", "serve", str(port)], core=OTHER_CORE):
        _wait(port)
        for _round in range(rounds):
            found["calls"].append(asyncio.run(_calls(port)))
            one = _messages("PersonaWS.wsdl", "findPersonaByCedula", {"nroCedula": "4123456"}, ANSWER, MESSAGES)
            page = _messages("DerivacionesWS.wsdl", "consultarContrarreferencias", {"desde": "1"}, _PAGE, 20)
            for name, value in zip(("ours", "zeep", "ours_page", "zeep_page"), (*one, *page), strict=True):
                found[name].append(value)
    middle = {name: statistics.median(values) for name, values in found.items()}
    return {
        "calls_per_second": round(middle["calls"]),
        "in_flight": IN_FLIGHT,
        "call_us": round(1e6 / middle["calls"]),
        "messages_us": {"ours": round(middle["ours"]), "zeep": round(middle["zeep"])},
        f"page_of_{PAGE}_us": {"ours": round(middle["ours_page"]), "zeep": round(middle["zeep_page"])},
        "call_over_zeeps_messages": round(1e6 / middle["calls"] / middle["zeep"], 2),
    }


def _wait(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit("the producer did not start")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(_serve(int(sys.argv[2])))
    else:
        at_start = machine()
        print(json.dumps({**at_start, "soap": measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5)}))
