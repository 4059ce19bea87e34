"""A witness killed without warning, again and again, has stored whatever it signed and never signs another story."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import psycopg

from audit.verify import check_cosignature, parse_key, parse_note
from gateway import embedded
from gateway.cli.demo.processes import free_port
from tests.house import until
from tests.witnessing import SmallLog

KILLS = 3
NAME = "testigo.example/siis"


class Institution:
    """Another institution's machine: a data folder and the command line, nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SIIS_")}
        self.environment = {
            **kept,
            "SIIS_DATA_DIR": str(folder),
            "SIIS_WITNESS_NAME": NAME,
            "SIIS_PORT": str(self.port),
        }

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "gateway.cli", "witness", *words]

    def run(self, *words: str) -> str:
        done = subprocess.run(
            self.command(*words), env=self.environment, capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    async def started(self, http: httpx.AsyncClient) -> subprocess.Popen[bytes]:
        process = await asyncio.to_thread(subprocess.Popen, self.command("serve"), env=self.environment)

        async def answers() -> bool:
            try:
                return (await http.get(f"{self.address}/add-checkpoint")).status_code == 405
            except httpx.TransportError:
                return False

        await until(answers)
        return process


async def test_a_killed_witness_never_signs_two_stories(folders: Callable[[str], Path]) -> None:
    institution, log = Institution(folders("witness")), SmallLog.new()
    branches = [log, replace(log, branch="false", fork_at=1)]
    # Commands that find it running do not leave it behind with their output open.
    url = embedded.start(institution.folder).url(embedded.APPLICATION)
    key = parse_key(institution.run("key").strip())
    assert institution.run("key").strip().startswith(f"{NAME}+")
    mode = stat.S_IMODE((institution.folder / "keys" / "witness.pem").stat().st_mode)
    assert (key.name, mode) == (NAME, 0o600)
    institution.run("log", "add", log.verifier_key)
    received: list[tuple[int, SmallLog]] = []

    async def hammer(http: httpx.AsyncClient, branch: SmallLog, first: int) -> None:
        """Ask for ever larger sizes of a branch until the witness is dead."""
        old = 0
        for size in range(first, first + 10_000):
            try:
                answer = await http.post(f"{institution.address}/add-checkpoint", content=branch.request(old, size))
            except httpx.TransportError:
                return
            if answer.status_code == 200:
                text, _signatures = parse_note(branch.note(size))
                _text, [(_name, data)] = parse_note(f"{text}\n{answer.text}")
                check_cosignature(key, text, data)
                received.append((size, branch))
                arrived.set()
            if answer.status_code in (200, 409):
                old = size if answer.status_code == 200 else int(answer.text)

    try:
        for _kill in range(KILLS):
            arrived, before = asyncio.Event(), len(received)
            async with httpx.AsyncClient(timeout=30) as http:
                process = await institution.started(http)
                largest = max((size for size, _branch in received), default=0)
                async with asyncio.TaskGroup() as tasks:
                    for branch in branches:
                        tasks.create_task(hammer(http, branch, largest + 1))
                        tasks.create_task(hammer(http, branch, largest + 1))
                    await arrived.wait()
                    process.send_signal(signal.SIGKILL)
                    process.wait()
            assert len(received) > before
            with psycopg.connect(url) as connection:
                [(stored,)] = connection.execute("SELECT size FROM audit.witnessed").fetchall()
            assert stored >= max(size for size, _branch in received)
        [known] = json.loads(institution.run("log", "list", "--json"))
        assert (known["origin"], known["size"]) == (log.signer.origin, stored)
        # Up to the fork both tell the same story.
        signed = {branch.branch for size, branch in received if size > branches[1].fork_at}
        assert len(signed) == 1, "two stories were signed"
    finally:
        embedded.stop(institution.folder)
