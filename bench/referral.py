"""Referrals accepted per second and delivered per second, each beside the bare work underneath it.

Accepted: token, decision, referral, event, entry and job in one committed transaction; the baseline is one committed
row per transaction over as many connections; measured after two seconds of warming up. Delivered: decision, entry
before the send, REST recipient, result recorded; the baseline is bare POSTs to the same recipient. Usage:
``python -m bench.referral [SECONDS]``; needs wrk. One JSON line.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
import yaml
from psycopg_pool import AsyncConnectionPool

from adapters.http import client_for
from adapters.simulator.population import generate as simulate
from bench.common import PROGRAM_CORE, machine, require, running, wait_for, wrk
from bench.disclosure import PERSONS, SEED
from gateway import embedded
from gateway.cli.context import open_context
from gateway.cli.db import bring_up
from gateway.cli.demo.clients import key_file, register
from gateway.cli.demo.processes import Processes, free_port
from gateway.cli.population import register_population
from gateway.cli.token import request_token
from gateway.identity.models import Issuer
from gateway.settings import Settings, load_settings
from gateway.vault import write_secret

CONNECTIONS = 64
_WARM_UP_S = 2
_POST = """
local people = {{ {people} }}
local at = {first}
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {token}"
request = function()
  at = at + 1
  wrk.headers["Idempotency-Key"] = "{token_id}-" .. at
  return wrk.format(nil, nil, nil, '{{"subject":{{"system":"cedula","value":"' .. people[at % #people + 1] .. '"}},'
    .. '"service":"health-control","reason":{{"code":"protection-gap"}},'
    .. '"additional":true,"purpose":"service-access-determination","basis":"official-authority"}}')
end
"""


def main(seconds: int) -> None:
    require("wrk", "taskset")
    told: dict[str, Any] = {"benchmark": "referral", "connections": CONNECTIONS, "machine": machine()}
    with tempfile.TemporaryDirectory(prefix="siis-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        settings = load_settings(data_dir=folder / "data")
        processes = Processes(folder / "logs")
        try:
            told.update(_measure(folder, settings, processes, seconds))
        finally:
            processes.end()
            embedded.stop(settings.data_dir)
    print(json.dumps(told))


def _measure(folder: Path, settings: Settings, processes: Processes, seconds: int) -> dict[str, Any]:
    processes.start_institution("mspbs", ["--persons", "1"])
    recipient = processes.institution("mspbs").address
    issuer = Issuer(f"http://127.0.0.1:{free_port()}")
    asyncio.run(_prepare(settings, recipient))
    url = embedded.start(settings.data_dir).url(embedded.APPLICATION)
    port = issuer.url.rsplit(":", 1)[1]
    environment = {"SIIS_DATA_DIR": str(settings.data_dir), "SIIS_ISSUER": issuer.url, "SIIS_PORT": port}
    # One client sends all of them here.
    environment["SIIS_CLIENT_RATE"] = "100000"
    command = [sys.executable, "-m", "gateway.cli"]
    with running([*command, "serve"], core=PROGRAM_CORE, environment=environment):
        wait_for(f"{issuer.url}/health/ready")
        token = asyncio.run(_token(issuer, settings))
        people = (member for home in simulate(PERSONS, SEED) for member in home.members)
        listed = ",".join(f'"{member.cedula}"' for member in people if member.cedula)
        address, named = f"{issuer.url}/api/v1/referrals", {"people": listed, "token": token, "token_id": token[-16:]}
        # Of a process that runs for months the first seconds say nothing; other keys, so nothing is repeated.
        wrk(address, _POST.format(first=0, **named), folder, connections=CONNECTIONS, seconds=_WARM_UP_S)
        script = _POST.format(first=1_000_000, **named)
        accepted = wrk(address, script, folder, connections=CONNECTIONS, seconds=seconds)
    waiting = _waiting(url)
    started = time.monotonic()
    with running([*command, "worker"], core=PROGRAM_CORE, environment=environment):
        while _transmitted(url) == 0:
            time.sleep(0.02)
        first, started = _transmitted(url), time.monotonic()
        deadline = started + seconds
        while _waiting(url) and time.monotonic() < deadline:
            time.sleep(0.1)
        delivered = (_transmitted(url) - first) / (time.monotonic() - started)
    return {
        "accepted": accepted,
        "accepted_baseline_one_row_commits_per_second": round(asyncio.run(_bare_commits(url, seconds))),
        "waiting_before_delivery": waiting,
        "delivered_per_second": round(delivered),
        "delivered_baseline_bare_posts_per_second": round(asyncio.run(_bare_posts(recipient, seconds))),
    }


async def _prepare(settings: Settings, recipient: str) -> None:
    await asyncio.to_thread(bring_up, settings, demonstration=True)
    async with open_context(settings) as context:
        await register_population(context, simulate(PERSONS, SEED), PERSONS, SEED, lambda _done: None)
        await register(context)
    settings.connections_file.write_text(yaml.safe_dump({"mspbs": {"address": recipient}}), encoding="utf-8")
    write_secret(settings.producer_secrets_dir / "mspbs_api_key", b"simulated-password")


async def _token(issuer: Issuer, settings: Settings) -> str:
    async with client_for(5.0) as client:
        private = key_file(settings.data_dir, "demo-utgs").read_bytes()
        return await request_token(client, issuer, "demo-utgs", private)


def _count(url: str, delivery: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM siis.referral WHERE delivery = %s", (delivery,)).fetchone()
    return 0 if row is None else int(row[0])


def _waiting(url: str) -> int:
    return _count(url, "pending")


def _transmitted(url: str) -> int:
    return _count(url, "transmitted")


async def _bare_commits(url: str, seconds: int) -> float:
    async with AsyncConnectionPool(url, min_size=16, max_size=16, open=False) as pool:
        await pool.wait()
        stop, done = time.monotonic() + seconds, 0

        async def commit(worker: int) -> None:
            nonlocal done
            while time.monotonic() < stop:
                async with pool.connection() as connection:
                    statement = "INSERT INTO siis.poll_cursor (adapter, cursor) VALUES (%s, '')"
                    await connection.execute(statement, (f"bench-{worker}-{done}-{time.monotonic_ns()}",))
                done += 1

        await asyncio.gather(*(commit(worker) for worker in range(CONNECTIONS)))
        return done / seconds


async def _bare_posts(recipient: str, seconds: int) -> float:
    headers = {"X-Api-Key": "simulated-password", "Idempotency-Key": "bench"}
    stop, done = time.monotonic() + seconds, 0
    async with client_for(5.0) as client:

        async def post() -> None:
            nonlocal done
            while time.monotonic() < stop:
                await client.post(f"{recipient}/api/derivaciones", json={"id_referencia": "x"}, headers=headers)
                done += 1

        await asyncio.gather(*(post() for _worker in range(16)))
    return done / seconds


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
