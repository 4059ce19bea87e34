"""The part of :mod:`bench.files` that loads: the same file taken as a register, encrypted, indexed, by COPY."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from bench.population import peak_mib
from gateway import embedded
from gateway.settings import load_settings

_NAME = "bench"


def prepare(folder: Path) -> None:
    """Make a database with the agreements of the demonstration."""
    from gateway.cli.db import bring_up

    bring_up(load_settings(data_dir=folder), demonstration=True)


def load(path: Path, folder: Path, request: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Take the file as a register into the database of a folder; return the figures."""
    return asyncio.run(_load(path, folder, request, fields))


async def _load(path: Path, folder: Path, request: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    from adapters.files.adapter import FileAdapter
    from adapters.manifest import load_manifest
    from consent.policy import PolicyStore
    from gateway.cli.context import open_context
    from gateway.intake.registers import RegisterIntake

    manifest = folder / "manifest.yaml"
    manifest.write_text(json.dumps(_manifest(request, fields)), encoding="utf-8")
    adapter = FileAdapter.of_files(load_manifest(manifest), [path])
    async with open_context(load_settings(data_dir=folder)) as context:
        policies = PolicyStore(context.database.engine)
        async with context.database.connection() as connection:
            await policies.load(connection)
        intake = RegisterIntake(
            database=context.database,
            vault=context.vault,
            audit=context.audit,
            policies=policies,
            rejects_dir=folder / "rejects",
        )
        before, own, server = peak_mib(), time.process_time(), _server_seconds(folder)
        started = time.perf_counter()
        ended = await intake.take(adapter, "payroll")
        seconds = time.perf_counter() - started
        assert ended.outcome == "taken", ended
        return {
            "rows": ended.rows + ended.rejected,
            "bad_rows": ended.rejected,
            "seconds": seconds,
            "cpu_seconds": round(time.process_time() - own, 2),
            "database_cpu_seconds": round(_server_seconds(folder) - server, 2),
            "peak_rss_mib": peak_mib(),
            "start_rss_mib": before,
        }


def _manifest(request: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the columns out under the names of a dataset that an agreement covers; what they mean is nothing here."""
    from schemas.codes import code_list

    names = code_list("datasets")["payroll"]["fields"]
    return {
        "name": _NAME,
        "institution": "SFP",
        "kind": "file",
        "auth": {"type": "none"},
        "limits": {"budget_s": 5, "max_body": 2**31},
        "bulk": {
            "payroll": {
                "request": dict(request),
                "subject": {"system": "cedula", "field": "cedula"},
                "fields": dict(zip(names, fields.values(), strict=True)),
            }
        },
    }


def _server_seconds(folder: Path) -> float:
    server = embedded.start(folder)
    tree = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
    return sum(sum(process.cpu_times()[:4]) for process in tree)


def loaded(path: Path, folder: Path) -> dict[str, Any]:
    """Prepare and load, each in a process of its own; end the database."""
    folder.chmod(0o755)
    try:
        for what in ("prepare", "load"):
            command = [sys.executable, "-m", "bench.files", what, str(path), str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    finally:
        embedded.stop(folder)
    return found
