"""Decides how each kind of database is connected to: read-only, with a time limit, and how a connection is cut off."""

from __future__ import annotations

import contextlib
import math
import os
import re
import socket
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from uuid import UUID

import psycopg
from sqlalchemy import URL, Engine, ExceptionContext, create_engine, event
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from adapters.connections import Connection, private
from adapters.errors import CallFailed, ContractBroken
from schemas.text import _

#: The driver of each kind of database; an address may name the kind alone.
_DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "sqlite": "sqlite",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "oracle": "oracle+oracledb",
    "mssql": "mssql+pyodbc",
}
SCHEMES = tuple(dict.fromkeys((*_DRIVERS, *_DRIVERS.values())))
# What a wrong table, column or file is to SQLite, which calls everything an operational error.
_SQLITE_CONTRACT = frozenset({"SQLITE_ERROR", "SQLITE_NOTADB", "SQLITE_CORRUPT"})
_NOT_UTF_8 = "Could not decode to UTF-8"
_RECYCLE_S = 300
_CONNECT_S = 10.0
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Target:
    """A database and who asks it; ``across`` a public network, so only in TLS that is checked."""

    url: URL
    across: bool


class Line:
    """The connection a thread uses, which another thread may cut off when nobody waits for its answer any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Any = None
        self._cut = False

    def hold(self, connection: Any) -> None:
        """Note the driver's connection; raise CallFailed where it is too late for one."""
        with self._lock:
            if self._cut:
                raise CallFailed("timeout", again=False)
            self._connection = connection
            if isinstance(connection, sqlite3.Connection):
                connection.set_progress_handler(lambda: self._cut, 10_000)

    def let_go(self) -> None:
        """The connection is no longer this one's."""
        with self._lock:
            if isinstance(self._connection, sqlite3.Connection):
                # It may be closed by now, after a failure.
                with contextlib.suppress(sqlite3.ProgrammingError):
                    self._connection.set_progress_handler(None, 0)
            self._connection = None

    def cut(self) -> None:
        """End what the thread does with it. The drivers not named here end it by a time limit of their own."""
        with self._lock:
            self._cut = True
            if isinstance(self._connection, psycopg.Connection):
                # A query that waits on a silent server wakes up only when its socket ends.
                with contextlib.suppress(OSError, psycopg.Error), _socket(self._connection) as line:
                    line.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def opening(self) -> Iterator[None]:
        """Hold connections that this thread opens inside the block from their first moment, if it is not too late."""
        self.hold(None)
        _here.line = self
        try:
            yield
        finally:
            _here.line = None


_here = threading.local()


def target_of(name: str, connection: Connection, username: str | None, password: str | None) -> Target:
    """Read the address of a manifest's connection.

    Raises :class:`~adapters.errors.ManifestError` for one without database, or across a public network where the
    driver's TLS is not known to be checked.
    """
    where, refuse = [name, "address"], connection.source.refuse
    parts = urlsplit(connection.address)
    driver = _DRIVERS.get(parts.scheme, parts.scheme)
    if driver == "sqlite":
        if not parts.path.startswith("//"):
            refuse(where, _("se esperaba sqlite:////carpeta/archivo"))
        file = f"file:{quote(unquote(parts.path[1:]))}"
        return Target(URL.create(driver, database=file, query={"mode": "ro", "uri": "true"}), across=False)
    database = unquote(parts.path[1:])
    if not database or "/" in database:
        refuse(
            where,
            _("se esperaba una dirección con el nombre de la base de datos: {scheme}://host/base").format(
                scheme=parts.scheme
            ),
        )
    across = not private(parts.hostname or "")
    if across and driver != "postgresql+psycopg":
        refuse(where, _("esta base de datos solo dentro de una red privada"))
    query = {}
    if driver == "oracle+oracledb":
        query, database = {"service_name": database}, ""
    elif driver == "mssql+pyodbc":
        query = {"driver": "ODBC Driver 18 for SQL Server", "ApplicationIntent": "ReadOnly"}
    url = URL.create(driver, username, password, parts.hostname, parts.port, database or None, query)
    return Target(url, across)


def open_engine(target: Target, within_s: float, connections: int | None = None) -> Engine:
    """Make an engine whose statements take at most ``within_s`` seconds and only read; nothing is opened yet.

    It keeps up to ``connections`` open; without a number none beyond its use.

    Raises ImportError where the driver is not installed. SQL Server has no read-only transactions: there the
    rights of the user are all that keeps a query from writing.
    """
    kept: dict[str, Any] = {"poolclass": NullPool}
    if connections is not None:
        kept = {"pool_size": connections, "max_overflow": 0, "pool_timeout": within_s, "pool_recycle": _RECYCLE_S}
    # Values never stand in the text of an error.
    engine = create_engine(target.url, connect_args=_arguments(target, within_s), hide_parameters=True, **kept)
    kind, limit_ms = target.url.get_backend_name(), max(round(within_s * 1000), 1)

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, _record: Any, args: Any, parameters: Any) -> Any:
        connection = dialect.connect(*args, **parameters)
        line: Line | None = getattr(_here, "line", None)
        try:
            if line is not None:
                line.hold(connection)
        except CallFailed:
            connection.close()
            raise
        return connection

    @event.listens_for(engine, "connect")
    def settle(connection: Any, _record: Any) -> None:
        if kind in ("mysql", "mariadb"):
            limit = f"max_execution_time = {limit_ms}" if kind == "mysql" else f"max_statement_time = {limit_ms / 1000}"
            with connection.cursor() as cursor:
                cursor.execute("SET SESSION TRANSACTION READ ONLY")
                cursor.execute(f"SET SESSION {limit}")
        elif kind == "oracle":
            connection.call_timeout = limit_ms
        elif kind == "mssql":
            connection.timeout = math.ceil(within_s)

    @event.listens_for(engine, "handle_error")
    def lost(context: ExceptionContext) -> None:
        # Of a connection that is lost, the cursor would stay open.
        cursor = getattr(context.execution_context, "cursor", None)
        if context.is_disconnect and isinstance(cursor, psycopg.Cursor):
            with contextlib.suppress(psycopg.Error):
                cursor.close()

    if kind == "oracle":

        @event.listens_for(engine, "begin")
        def begin(connection: Any) -> None:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")

    return engine


def _arguments(target: Target, within_s: float) -> dict[str, Any]:
    # Nobody can cut off a driver that is still connecting.
    seconds, limit_ms = math.ceil(min(within_s, _CONNECT_S)), max(round(within_s * 1000), 1)
    match target.url.get_backend_name():
        case "postgresql":
            tls = {"sslmode": "verify-full", "sslrootcert": "system"} if target.across else {"sslmode": "prefer"}
            options = f"-c default_transaction_read_only=on -c statement_timeout={limit_ms}"
            return {"connect_timeout": seconds, "options": options, "application_name": "siis-gateway", **tls}
        case "sqlite":
            return {"timeout": within_s, "check_same_thread": False}
        case "mysql" | "mariadb":
            waiting = math.ceil(within_s)
            return {"connect_timeout": seconds, "read_timeout": waiting, "write_timeout": waiting}
        case "oracle":
            return {"tcp_connect_timeout": seconds}
    return {"timeout": seconds}


def _socket(connection: psycopg.Connection[Any]) -> socket.socket:
    return socket.socket(fileno=os.dup(connection.pgconn.socket))


def failure(error: SQLAlchemyError) -> CallFailed | ContractBroken:
    """Say what an error of a database means; its text, which may hold values, is not repeated."""
    cause = getattr(error, "orig", None)
    state, name = getattr(cause, "sqlstate", None) or "", getattr(cause, "sqlite_errorname", None) or ""
    if state == "57014" or name == "SQLITE_INTERRUPT":
        return CallFailed("timeout", again=False)
    if state == "25006" or name.startswith("SQLITE_READONLY"):
        return ContractBroken("the query writes")
    if state == "42501" or state.startswith("28") or name in ("SQLITE_AUTH", "SQLITE_PERM"):
        return CallFailed("credentials refused", again=False)
    # The driver has no code for it.
    if isinstance(cause, sqlite3.OperationalError) and str(cause).startswith(_NOT_UTF_8):
        return ContractBroken("a text that is not UTF-8")
    if isinstance(error, OperationalError | InterfaceError) and name not in _SQLITE_CONTRACT:
        return CallFailed("the database does not answer")
    return ContractBroken(f"the database refuses the query: {state or name or type(error).__name__}")


def plain(value: Any) -> Any:
    """Return a value of a column as JSON has it: days and times in ISO 8601, decimals as text.

    Raises ContractBroken for bytes, endless numbers, whole ones of more than 64 bits, half of a surrogate pair, and
    types without a plain form.
    """
    match value:
        case None | bool():
            return value
        case str():
            if not value.isascii() and _SURROGATE.search(value):
                raise ContractBroken("a text that is not Unicode")
            return value
        case int():
            if not -(2**63) <= value < 2**63:
                raise ContractBroken("a whole number of more than 64 bits")
            return value
        case float() if math.isfinite(value):
            return value
        case Decimal() if value.is_finite():
            return format(value, "f")
        case datetime() | date() | time():
            return value.isoformat()
        case UUID():
            return str(value)
        case list():
            return [plain(item) for item in value]
        case dict():
            return {plain(str(name)): plain(item) for name, item in value.items()}
    raise ContractBroken("a column of a type that is not read")
