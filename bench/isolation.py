"""What one producer that hangs for ever costs the calls to another, in one process: percentiles without and with it.

The producer that works is the loopback server of :mod:`bench.adapters`; the other takes connections, never answers.
Usage: ``uv run python -m bench.isolation [ROUNDS] [CALLS]``. One JSON line: per round, alone and beside, p50 and p99 in
milliseconds of calls from eight callers, and how many calls to the hanging producer were under way.
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
from pathlib import Path
from typing import Any

from adapters.models import Adapter, Found, Identifier
from adapters.registry import SHIPPED, Adapters, load_adapters
from bench.common import OTHER_CORE, PROGRAM_CORE, machine, permit_for, running, wait_for
from gateway.cli.demo.processes import free_port

_CALLERS, _STUCK = 8, 80
_CEDULA = Identifier("cedula", "4123456")


def main(rounds: int, calls: int) -> None:
    port = free_port()
    os.sched_setaffinity(0, {PROGRAM_CORE})
    with running([sys.executable, "-m", "bench.adapters", "serve", str(port)], core=OTHER_CORE):
        wait_for(f"http://127.0.0.1:{port}/security")
        told = asyncio.run(_measure(f"http://127.0.0.1:{port}", rounds, calls))
    print(json.dumps({"benchmark": "isolation", "calls": calls, "rounds": told, "machine": machine()}))


async def _measure(address: str, rounds: int, calls: int) -> list[dict[str, Any]]:
    # The kernel opens the connections; nobody ever reads from them.
    silent = socket.create_server(("127.0.0.1", 0), backlog=512)
    dead = f"http://127.0.0.1:{silent.getsockname()[1]}"
    with tempfile.TemporaryDirectory(prefix="siis-bench-") as name:
        folder = Path(name)
        connections = {"identificaciones": {"address": address}, "identificaciones-soap": {"address": dead}}
        (folder / "connections.yaml").write_text(json.dumps(connections))
        (folder / "identificaciones_password").write_text("bench")
        adapters = load_adapters([SHIPPED], folder / "connections.yaml", folder)
        try:
            await _calls(adapters.named("identificaciones"), calls)
            return [await _round(adapters, calls) for _ in range(rounds)]
        finally:
            await adapters.close()
            silent.close()


async def _round(adapters: Adapters, calls: int) -> dict[str, Any]:
    works, hangs = adapters.named("identificaciones"), adapters.named("identificaciones-soap")
    alone = await _calls(works, calls)
    stuck = [asyncio.create_task(_again_and_again(hangs)) for _ in range(_STUCK)]
    await asyncio.sleep(0.2)
    beside = await _calls(works, calls)
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)
    return {"alone": alone, "beside": beside, "hanging_callers": _STUCK}


async def _again_and_again(adapter: Adapter) -> None:
    while True:
        await _fetch(adapter)
        # Its breaker opens after a while; whoever is refused at once comes back like a person would.
        await asyncio.sleep(0.5)


async def _calls(adapter: Adapter, calls: int) -> dict[str, float]:
    times: list[float] = []

    async def caller() -> None:
        for _ in range(calls // _CALLERS):
            started = time.perf_counter()
            outcome = await _fetch(adapter)
            times.append(time.perf_counter() - started)
            assert isinstance(outcome, Found), outcome

    await asyncio.gather(*(caller() for _ in range(_CALLERS)))
    cuts = statistics.quantiles(times, n=100)
    return {"p50_ms": round(cuts[49] * 1000, 2), "p99_ms": round(cuts[98] * 1000, 2)}


async def _fetch(adapter: Adapter) -> Any:
    permit = permit_for("identity")
    return await adapter.fetch(permit, "identity", _CEDULA)


if __name__ == "__main__":
    main(*(int(text) for text in (*sys.argv[1:], "5", "4000")[:2]))
