"""Disclosures per second on the full path, beside an unsecured FastAPI proxy and nginx on the same producer.

Full path: token, decision, REST producer on loopback, intent and entry committed to disk before the answer leaves.
Usage: ``uv run --extra bench python -m bench.disclosure [ROUNDS] [SECONDS]``; needs nginx and wrk. One JSON line: for
each of the three, the median of its rounds, taken in turn.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

from adapters.http import client_for
from adapters.simulator.population import generate as simulate
from bench.common import OTHER_CORE, PROGRAM_CORE, cpu_seconds, machine, require, running, wait_for, wrk
from gateway import embedded
from gateway.cli.context import open_context
from gateway.cli.db import bring_up
from gateway.cli.demo.clients import key_file, register
from gateway.cli.demo.processes import free_port
from gateway.cli.population import register_population
from gateway.cli.token import request_token
from gateway.identity.models import Issuer
from gateway.settings import Settings, load_settings
from gateway.vault import write_secret

PERSONS, SEED, CONNECTIONS = 2000, 3, 64
FIELDS = ["cedula", "given_names", "surnames", "birth_date", "sex"]

# The answer of the identity service, about a kilobyte with its headers, for whatever cédula is asked.
_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream producer {{ server 127.0.0.1:{producer}; keepalive 128; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{producer};
    default_type application/json;
    location = /security {{ return 200 '{{"token":"bench-{padding}","success":true}}'; }}
    location ~ ^/frontend-identificaciones/api/persona/obtenerPersonaPorCedula/(.+)$ {{
      return 200 '{{"obtenerPersonaPorNroCedulaResponse":{{"return":{{"cedula":"$1","nombres":"MARÍA ARAMI",
        "apellido":"GONZÁLEZ ÑANDUTI","sexo":"F","fechNacim":"1984-05-01T00:00:00-04:00","estadoCivil":"S",
        "nacionalidadBean":"PARAGUAYA","profesionBean":"{padding}"}}}}}}';
    }}
  }}
  server {{
    listen 127.0.0.1:{reverse};
    location / {{ proxy_pass http://producer; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""

_POST = """
local people = {{ {people} }}
local at = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {token}"
request = function()
  at = at % #people + 1
  return wrk.format(nil, nil, nil, '{{"subject":{{"system":"cedula","value":"' .. people[at] .. '"}},'
    .. '"dataset":"identity","fields":{fields},"purpose":"service-access-determination",'
    .. '"basis":"official-authority"}}')
end
"""
_GET = """
local people = {{ {people} }}
local at = 0
request = function()
  at = at % #people + 1
  return wrk.format("GET", "/frontend-identificaciones/api/persona/obtenerPersonaPorCedula/" .. people[at])
end
"""


def main(rounds: int, seconds: int) -> None:
    require("nginx", "wrk", "taskset")
    told: dict[str, Any] = {"benchmark": "disclosure", "connections": CONNECTIONS, "machine": machine()}
    with tempfile.TemporaryDirectory(prefix="siis-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        settings = load_settings(data_dir=folder / "data")
        try:
            told.update(_measure(folder, settings, rounds, seconds))
        finally:
            embedded.stop(settings.data_dir)
    print(json.dumps(told))


def _measure(folder: Path, settings: Settings, rounds: int, seconds: int) -> dict[str, Any]:
    producer, reverse, proxy, port = (free_port() for _number in range(4))
    configuration = _NGINX.format(folder=folder, producer=producer, reverse=reverse, padding="x" * 480)
    (folder / "nginx.conf").write_text(configuration, encoding="utf-8")
    issuer = Issuer(f"http://127.0.0.1:{port}")
    asyncio.run(_prepare(settings, f"http://127.0.0.1:{producer}"))
    environment = {"SIIS_DATA_DIR": str(settings.data_dir), "SIIS_ISSUER": issuer.url, "SIIS_PORT": str(port)}
    # One client asks for all of them here.
    environment["SIIS_CLIENT_RATE"] = "100000"
    nginx = ["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    serve = [sys.executable, "-m", "gateway.cli", "serve"]
    fastapi = [sys.executable, "-m", "bench.proxy", str(proxy), f"http://127.0.0.1:{producer}"]
    with (
        running(nginx, core=OTHER_CORE),
        running(serve, core=PROGRAM_CORE, environment=environment) as serve_pid,
        running(fastapi, core=PROGRAM_CORE) as proxy_pid,
    ):
        for url in (f"{issuer.url}/health/ready", f"http://127.0.0.1:{proxy}/", f"http://127.0.0.1:{reverse}/security"):
            wait_for(url)
        token = asyncio.run(_token(issuer, settings))
        people = ",".join(f'"{cedula}"' for cedula in _cedulas())
        post = _POST.format(people=people, token=token, fields=json.dumps(FIELDS))
        loads = {
            "full_path": (f"{issuer.url}/api/v1/disclosures", post, serve_pid),
            "fastapi_aiohttp_proxy": (f"http://127.0.0.1:{proxy}/proxy", post, proxy_pid),
            "nginx_proxy": (f"http://127.0.0.1:{reverse}/", _GET.format(people=people), None),
        }
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in loads}
        for url, script, _pid in loads.values():
            wrk(url, script, folder, connections=CONNECTIONS, seconds=1)
        for _round in range(rounds):
            for name, (url, script, pid) in loads.items():
                before = cpu_seconds(pid) if pid else 0.0
                started = time.monotonic()
                found = wrk(url, script, folder, connections=CONNECTIONS, seconds=seconds)
                if pid:
                    answered = found["per_second"] * (time.monotonic() - started)
                    found["cpu_us"] = round((cpu_seconds(pid) - before) / answered * 1e6)
                results[name].append(found)
    median = {name: _median(found) for name, found in results.items()}
    pairs = zip(results["full_path"], results["fastapi_aiohttp_proxy"], strict=True)
    ratio = statistics.median(ours["per_second"] / theirs["per_second"] for ours, theirs in pairs)
    return {**median, "ratio_to_fastapi_aiohttp": round(ratio, 3), "rounds": rounds, "seconds": seconds}


def _median(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: statistics.median(item[key] for item in found) for key in found[0]}


async def _prepare(settings: Settings, producer: str) -> None:
    await asyncio.to_thread(bring_up, settings, demonstration=True)
    async with open_context(settings) as context:
        await register_population(context, simulate(PERSONS, SEED), PERSONS, SEED, lambda _done: None)
        await register(context)
    connections = {"identificaciones": {"address": producer}}
    settings.connections_file.write_text(yaml.safe_dump(connections), encoding="utf-8")
    write_secret(settings.producer_secrets_dir / "identificaciones_password", b"bench")


async def _token(issuer: Issuer, settings: Settings) -> str:
    async with client_for(5.0) as client:
        try:
            return await request_token(client, issuer, "demo-mds", key_file(settings.data_dir, "demo-mds").read_bytes())
        except httpx.HTTPStatusError as error:
            sys.exit(f"no token: {error.response.text}")


def _cedulas() -> list[str]:
    people = (member for home in simulate(PERSONS, SEED) for member in home.members)
    return [member.cedula for member in people if member.cedula is not None]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, int(sys.argv[2]) if len(sys.argv) > 2 else 4)
