"""What every test may use: the samples; and no test leaves this machine."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real inputs; a test that needs it is skipped where it is absent."""
    folder = Path(os.environ.get("SIIS_SAMPLES", _ROOT.parent / "shared" / "samples"))
    if not folder.is_dir():
        pytest.skip(f"samples not found at {folder}: set SIIS_SAMPLES")
    return folder


@pytest.fixture(scope="session")
def folders() -> Iterator[Callable[[str], Path]]:
    """Make folders that another system user may enter, for database servers started by root.

    Not below pytest's own temporary folder: another test run that starts would close that one to everybody else.
    """
    made: list[Path] = []

    def make(name: str) -> Path:
        path = Path(tempfile.mkdtemp(prefix=f"siis-{name}-"))
        path.chmod(0o755)
        made.append(path)
        return path

    yield make
    for path in made:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _log_databases_end() -> Iterator[None]:
    yield
    # Most tests need no database of the log, and do not read its tables.
    if module := sys.modules.get("tests.integration.audit_database"):
        module.end()


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections that would leave this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            host = address[0]
            if host not in ("localhost", "::1") and not host.startswith("127."):
                raise OSError(f"tests may not connect to {host}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
