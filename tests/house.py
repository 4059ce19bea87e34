"""A whole house for a test: database, simulated institutions, gateways and workers, each a real process."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from adapters.simulator.population import SimPerson
from adapters.simulator.population import generate as simulate
from gateway import embedded
from gateway.cli.context import Context, open_context
from gateway.cli.db import bring_up
from gateway.cli.demo.clients import Caller, callers, key_file, register
from gateway.cli.demo.processes import Institution, Processes, free_port
from gateway.cli.population import register_population
from gateway.identity.keys import ECKey
from gateway.identity.models import Issuer
from gateway.settings import Settings, load_settings
from gateway.vault import write_secret

PERSONS, SEED = 300, 7
INSTITUTIONS = ("identificaciones", "identificaciones-soap", "mds", "mspbs", "minna")
SECRETS = ("identificaciones_password", "mds_password", "mspbs_api_key", "minna_password")
DEADLINE_S = 60.0


class Balancer(httpx.AsyncHTTPTransport):
    """Sends each request to the next of several gateways, as what stands in front of them does."""

    def __init__(self, ports: list[int]) -> None:
        super().__init__()
        self._ports = itertools.cycle(ports)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(port=next(self._ports))
        return await super().handle_async_request(request)


class House:
    """The running processes of one data folder, and the ways a test uses them.

    With ``twins`` there are two gateways and two workers, ``serve2`` and ``worker2`` beside the first ones.
    """

    def __init__(self, settings: Settings, *, persons: int = PERSONS, twins: bool = False) -> None:
        self.settings, self.persons = settings, persons
        self.processes = Processes(settings.data_dir / "logs")
        self.people: list[SimPerson] = [member for home in simulate(persons, SEED) for member in home.members]
        self.names = ("serve", "serve2", "worker", "worker2") if twins else ("serve", "worker")
        self.institutions: dict[str, Institution] = {}
        self.issuer = Issuer(f"http://127.0.0.1:{free_port()}")
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.ports = {name: free_port() for name in self.names if name != "serve" and name.startswith("serve")}
        self.ports["serve"] = int(self.issuer.url.rsplit(":", 1)[1])
        self.http = httpx.AsyncClient(timeout=20)
        self.balanced = httpx.AsyncClient(timeout=20, transport=Balancer(sorted(self.ports.values())))
        self.callers: dict[str, Caller] = {}

    def start_institutions(self, names: tuple[str, ...] = INSTITUTIONS) -> None:
        """Start institutions and write where they are."""
        for name in names:
            state = self.settings.data_dir / f"{name}.sqlite"
            arguments = ["--persons", str(self.persons), "--seed", str(SEED), "--state", str(state)]
            self.processes.start_institution(name, arguments)
        self.institutions = {name: self.processes.institution(name) for name in names}
        connections = {
            item.name: {"address": item.address} | ({"host_key": item.host_key} if item.host_key else {})
            for item in self.institutions.values()
        }
        self.settings.connections_file.write_text(yaml.safe_dump(connections), encoding="utf-8")
        for name in SECRETS:
            write_secret(self.settings.producer_secrets_dir / name, b"simulated-password")

    def start(self, name: str) -> None:
        """Start a gateway (``serve``) or a worker."""
        environment = {
            "SIIS_DATA_DIR": str(self.settings.data_dir),
            "SIIS_ISSUER": self.issuer.url,
            "SIIS_PORT": str(self.ports.get(name, 0)),
            "SIIS_POLL_INTERVAL_S": "0.3",
            "SIIS_RETRY_FIRST_S": "0.5",
        }
        if self.settings.manifests is not None:
            environment["SIIS_MANIFESTS"] = str(self.settings.manifests)
        self.running[name] = self.processes.start(name, ["gateway.cli", name.rstrip("2")], environment)

    def kill(self, name: str) -> None:
        """Kill a process without any warning (SIGKILL)."""
        process = self.running[name]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    async def ready(self, word: str = "ok") -> None:
        """Wait until the gateway says so."""

        async def asked() -> bool:
            try:
                answer = await self.http.get(f"{self.issuer.url}/health/ready")
            except httpx.TransportError:
                return False
            return bool(answer.json()["status"] == word)

        await until(asked)

    async def connect_callback(self) -> None:
        """Tell the health ministry's system where to call back."""
        path = key_file(self.settings.data_dir, "demo-mspbs")
        kid = ECKey.import_key(path.read_bytes()).thumbprint()
        target = {"gateway": self.issuer.url, "client_id": "demo-mspbs", "key_file": str(path), "kid": kid}
        answer = await self.http.post(f"{self.institutions['mspbs'].control}/_control/callback", json=target)
        answer.raise_for_status()

    async def switch(self, name: str, **values: Any) -> None:
        """Make an institution misbehave."""
        answer = await self.http.post(f"{self.institutions[name].control}/_control/switches", json=values)
        answer.raise_for_status()

    async def effects(self, name: str) -> dict[str, int]:
        """Return how often an institution acted on each referral, by its own book."""
        answer = await self.http.get(f"{self.institutions[name].control}/_control/ledger")
        answer.raise_for_status()
        received: dict[str, int] = answer.json()["received"]
        return received

    def crash_database(self) -> None:
        """End the database at once, as a lost machine would, and start it again: it recovers from its log."""
        pid_file = self.settings.data_dir / "pg" / "postmaster.pid"
        pid = int(pid_file.read_text(encoding="utf-8").split()[0])
        os.kill(pid, signal.SIGQUIT)
        deadline = time.monotonic() + DEADLINE_S
        while pid_file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        while True:
            # Recovery takes its time on a busy machine; the program that starts it waits for ten seconds only.
            try:
                embedded.start(self.settings.data_dir)
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    raise
            else:
                return

    @asynccontextmanager
    async def context(self) -> AsyncIterator[Context]:
        """Open the database beside the running processes."""
        async with open_context(self.settings) as context:
            yield context

    async def close(self) -> None:
        """End everything."""
        await self.http.aclose()
        await self.balanced.aclose()
        await asyncio.to_thread(self.processes.end)
        await asyncio.to_thread(embedded.stop, self.settings.data_dir)


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = DEADLINE_S) -> None:
    """Ask again until a condition holds; fails the test when it never does."""
    deadline = time.monotonic() + within_s
    while not await condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the condition never held")
        await asyncio.sleep(0.05)


async def build(folder: Path, *, persons: int = PERSONS, twins: bool = False, manifests: Path | None = None) -> House:
    """Build a house with everything running in a folder; ``manifests`` come beside those shipped."""
    house = House(load_settings(data_dir=folder, manifests=manifests), persons=persons, twins=twins)
    try:
        await _build(house)
    except BaseException:
        await house.close()
        raise
    return house


async def _build(house: House) -> None:
    house.start_institutions()
    await asyncio.to_thread(bring_up, house.settings, demonstration=True)
    async with house.context() as context:
        population = simulate(house.persons, SEED)
        await register_population(context, population, house.persons, SEED, lambda _done: None)
        await register(context)
    for name in house.names:
        house.start(name)
    house.callers = callers(house.http, house.issuer, house.settings.data_dir)
    await house.ready()
    await house.connect_callback()
