"""What an adapter adds to the call it makes: a REST fetch beside the same request by raw httpx, one after the other.

The producer is a loopback server in a process of its own, which answers a person of about a kilobyte at once.
Usage: ``uv run python -m bench.adapters [ROUNDS] [CALLS]``. One JSON line: for each way, the median over the rounds of
a round's median, in milliseconds. Added is measured over httpx as it comes, and over httpx on our transport.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from adapters.http import client_for
from adapters.models import Found, Identifier
from adapters.registry import SHIPPED, load_adapters
from bench.common import OTHER_CORE, PROGRAM_CORE, machine, permit_for, running, wait_for
from gateway.cli.demo.processes import free_port

_PATH = "/frontend-identificaciones/api/persona/obtenerPersonaPorCedula/4123456"
_PERSON = {
    "cedula": "4123456",
    "nombres": "MARÍA ARAMI",
    "apellido": "GONZÁLEZ ÑANDUTI",
    "sexo": "F",
    "fechNacim": "1984-05-01T00:00:00-04:00",
    "estadoCivil": "S",
    "nacionalidadBean": "PARAGUAYA",
    "profesionBean": "x" * 480,
}


def main(rounds: int, calls: int) -> None:
    port = free_port()
    told: dict[str, Any] = {"benchmark": "adapters", "rounds": rounds, "calls": calls, "machine": machine()}
    os.sched_setaffinity(0, {PROGRAM_CORE})
    with running([sys.executable, "-m", "bench.adapters", "serve", str(port)], core=OTHER_CORE):
        wait_for(f"http://127.0.0.1:{port}/security")
        told["rest"] = asyncio.run(_rest(f"http://127.0.0.1:{port}", rounds, calls))
    print(json.dumps(told))


async def _rest(address: str, rounds: int, calls: int) -> dict[str, float]:
    headers = {"Authorization": "Bearer bench", "Accept": "application/json"}
    permit = permit_for("identity")
    with tempfile.TemporaryDirectory(prefix="siis-bench-") as name:
        folder = Path(name)
        (folder / "connections.yaml").write_text(json.dumps({"identificaciones": {"address": address}}))
        (folder / "identificaciones_password").write_text("bench")
        adapters = load_adapters([SHIPPED], folder / "connections.yaml", folder)
        adapter = adapters.named("identificaciones")
        async with httpx.AsyncClient() as raw, client_for(5.0) as ours:

            async def by_httpx() -> None:
                assert (await raw.get(address + _PATH, headers=headers)).status_code == 200

            async def by_our_transport() -> None:
                assert (await ours.get(address + _PATH, headers=headers)).status_code == 200

            async def by_adapter() -> None:
                assert isinstance(await adapter.fetch(permit, "identity", Identifier("cedula", "4123456")), Found)

            ways = {"httpx": by_httpx, "httpx_our_transport": by_our_transport, "fetch": by_adapter}
            found: dict[str, list[float]] = {way: [] for way in ways}
            for way in ways.values():
                await _median_ms(way, 200)
            for _round in range(rounds):
                for way, call in ways.items():
                    found[way].append(await _median_ms(call, calls))
        await adapters.close()
    told = {f"{way}_ms": round(statistics.median(times), 3) for way, times in found.items()}
    pairs = {way: zip(found["fetch"], found[way], strict=True) for way in ("httpx", "httpx_our_transport")}
    added = {f"added_to_{way}_ms": round(statistics.median(a - b for a, b in pairs[way]), 3) for way in pairs}
    return {**told, **added}


async def _median_ms(call: Callable[[], Awaitable[None]], calls: int) -> float:
    gc.collect()
    times = []
    for _call in range(calls):
        started = time.perf_counter()
        await call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000


class _Producer(asyncio.Protocol):
    """Answers every request on a connection at once; no more of HTTP than that takes."""

    def __init__(self) -> None:
        session = json.dumps({"success": True, "token": "bench"}).encode()
        person = json.dumps({"obtenerPersonaPorNroCedulaResponse": {"return": _PERSON}}, ensure_ascii=False).encode()
        self._session, self._person = _http(session), _http(person)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._person if data.startswith(b"GET /frontend") else self._session)


def _http(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _serve(port: int) -> None:
    listening = await asyncio.get_running_loop().create_server(_Producer, "127.0.0.1", port)
    await listening.serve_forever()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(_serve(int(sys.argv[2])))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 7, int(sys.argv[2]) if len(sys.argv) > 2 else 1000)
