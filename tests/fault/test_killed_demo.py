"""Killing the gateway and the worker in the middle of the demonstration loses nothing either."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest

from gateway import embedded


def child(demo: psutil.Process, name: str) -> psutil.Process | None:
    return next((process for process in demo.children() if process.cmdline()[-2:] == ["gateway.cli", name]), None)


def acknowledged(folder: Path) -> int:
    server = embedded.status(folder / ".siis")
    if server is None:
        return 0
    try:
        with psycopg.connect(server.url(embedded.SUPERUSER)) as connection:
            row = connection.execute("SELECT count(*) FROM siis.idempotency").fetchone()
    except psycopg.Error:
        return 0
    return 0 if row is None else int(row[0])


def test_the_demonstration_survives_kill_9_of_gateway_and_worker(folders: Callable[[str], Path]) -> None:
    tmp_path = folders("killed")
    command = [sys.executable, "-m", "gateway.cli", "demo", "--exit", "--json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        tree = psutil.Process(demo.pid)
        deadline = time.monotonic() + 120
        while acknowledged(tmp_path) < 10:
            if demo.poll() is not None or time.monotonic() > deadline:
                pytest.fail("the demonstration acknowledged nothing")
            time.sleep(0.02)
        for name in ("worker", "serve"):
            victim = child(tree, name)
            assert victim is not None
            victim.kill()
        output, problems = demo.communicate(timeout=200)
    assert demo.returncode == 0, problems[-3000:]
    told = json.loads(output.splitlines()[-1])
    assert told["lost"] == 0
    assert told["referrals"]["open"] == 0
    assert told["audit"]["ok"]
