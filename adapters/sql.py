"""Asks a producer's database: one reviewed SELECT with parameters, read-only, bounded in time, rows and threads.

A driver blocks its thread, so each producer has threads of its own, no more than the calls it may have under way; one
that does not answer holds nobody else, and what was given up is cut off so that its thread comes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import httpx
import orjson
from sqlalchemy import CursorResult, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from adapters.base import ProducerAdapter, Secrets
from adapters.connections import Connection
from adapters.errors import CallFailed, ContractBroken
from adapters.manifest import Bulk, Dataset, Manifest
from adapters.models import FetchOutcome, NotFound, Register, Rejected
from adapters.reading import Unsayable, fetched, write
from adapters.resilience import Call, Guard
from adapters.spool import Spool
from adapters.sqlengine import SCHEMES, Line, Target, failure, open_engine, plain, target_of
from adapters.sqlquery import parameters, unfit
from schemas.text import _

T = TypeVar("T")
_Record = dict[str, Any]
_BATCH = 1000


class SqlAdapter(ProducerAdapter):
    """A database."""

    schemes = SCHEMES

    @classmethod
    def check(cls, manifest: Manifest) -> None:
        """Refuse a query that is more than one SELECT, or whose parameters are not those declared."""
        for name, dataset in manifest.datasets.items():
            _check(manifest, ("datasets", name), dataset)
        for name, bulk in manifest.bulk.items():
            _check(manifest, ("bulk", name), bulk)

    @classmethod
    def connect(
        cls,
        manifest: Manifest,
        guard: Guard,
        connection: Connection,
        secret: Secrets,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> SqlAdapter:
        """Make the adapter; refuse an address it cannot be, and one whose driver is not installed."""
        username = password = None
        if manifest.auth["type"] == "password":
            username, password = manifest.auth["username"], secret("auth", "secret")
        try:
            return cls(manifest, guard, target_of(manifest.name, connection, username, password))
        except ImportError as error:
            why = _("falta el controlador, extra de instalación mysql, oracle o mssql: {why}").format(why=error)
            connection.source.refuse([manifest.name, "address"], why)

    def __init__(self, manifest: Manifest, guard: Guard, target: Target) -> None:
        super().__init__(manifest, guard)
        limits = manifest.limits
        self._target = target
        self._engine = open_engine(target, limits.budget_s, limits.concurrency)
        self._threads = ThreadPoolExecutor(limits.concurrency, f"sql-{manifest.name}")
        self._lines: set[Line] = set()
        self._closed = False

    async def close(self) -> None:
        """Cut off what is under way, and close the connections."""
        self._closed = True
        for line in list(self._lines):
            line.cut()
        await asyncio.to_thread(self._threads.shutdown)
        self._engine.dispose()

    def _encode(self, request: Mapping[str, Any], values: dict[str, Any]) -> bytes:
        return orjson.dumps(values)

    async def _fetch(
        self, call: Call, *, spec: Dataset, value: str, query: Mapping[str, Any], content: bytes
    ) -> FetchOutcome:
        given = {**orjson.loads(content), "identifier": value}
        batch = min(self.manifest.limits.rows + 1, _BATCH)
        rows = await self._run(call, self._engine, spec.request["query"], given, batch, self._read)
        raw = orjson.dumps(rows)
        call.took(raw)
        if len(raw) > self.manifest.limits.max_body:
            raise ContractBroken(f"the answer is longer than {self.manifest.limits.max_body} bytes")
        if not rows:
            return NotFound(call.provenance())
        return fetched(spec, {**rows[0], "rows": rows}, value, call)

    async def _bulk(self, call: Call, *, spec: Bulk, taken: Collection[bytes]) -> Register | NotFound | Rejected:
        """Read a register through a cursor of the database onto disk; memory holds a thousand rows."""
        # Its statement may take as long as the whole register, so it has a connection of its own.
        engine = open_engine(self._target, call.left_s)
        spool = Spool(spec)
        try:
            await self._run(call, engine, spec.request["query"], write(spec.body, {}), _BATCH, partial(_keep, spool))
            return spool.outcome(call, taken)
        except BaseException:
            spool.discard()
            raise

    def _read(self, result: CursorResult[Any]) -> list[_Record]:
        most = self.manifest.limits.rows
        rows: list[_Record] = []
        for batch in _records(result):
            rows += batch
            if len(rows) > most:
                raise ContractBroken(f"more than {most} rows")
        return rows

    async def _run(
        self,
        call: Call,
        engine: Engine,
        query: str,
        given: Mapping[str, Any],
        batch: int,
        take: Callable[[CursorResult[Any]], T],
    ) -> T:
        """Run a query in a thread, where ``take`` reads its result; a parameter not in ``given`` is NULL."""
        if self._closed:
            raise CallFailed("closed", again=False)
        line = Line()
        self._lines.add(line)
        call.sent = True
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, _work, line, engine, query, given, batch, take
            )
        except asyncio.CancelledError:
            line.cut()
            raise
        finally:
            self._lines.discard(line)


def _work(
    line: Line,
    engine: Engine,
    query: str,
    given: Mapping[str, Any],
    batch: int,
    take: Callable[[CursorResult[Any]], T],
) -> T:
    """Run a query on a connection that can be cut off; raise CallFailed or ContractBroken."""
    values = {name: given.get(name) for name in parameters(query)}
    try:
        with line.opening(), engine.connect() as connection:
            line.hold(connection.connection.dbapi_connection)
            try:
                # Through a cursor of the database: the driver would else read the whole answer before its first row.
                with connection.execution_options(yield_per=batch).execute(text(query), values) as result:
                    taken = take(result)
                connection.rollback()
            except (SQLAlchemyError, ContractBroken):
                # It may be in the middle of an answer: a new one costs less than finding out.
                connection.invalidate()
                raise
            finally:
                # In the pool it is no longer this one's.
                line.let_go()
            return taken
    except SQLAlchemyError as error:
        raise failure(error) from None
    finally:
        line.let_go()


def _records(result: CursorResult[Any]) -> Iterator[list[_Record]]:
    names = list(result.keys())
    if len(set(names)) != len(names):
        raise ContractBroken("two columns of one name")
    for batch in result.partitions():
        yield [dict(zip(names, map(plain, row), strict=True)) for row in batch]


def _keep(spool: Spool, result: CursorResult[Any]) -> None:
    for batch in _records(result):
        spool.add(batch)


def _check(manifest: Manifest, where: tuple[str, ...], spec: Dataset | Bulk) -> None:
    refuse, place = manifest.source.refuse, [*where, "request", "query"]
    query = spec.request["query"]
    wrong = unfit(query)
    if wrong is not None:
        refuse(place, wrong)
    used, declared = parameters(query), frozenset(spec.body.names)
    known = declared if isinstance(spec, Bulk) else declared | {"identifier"}
    for name in sorted(used - known):
        refuse(place, _("parámetro sin declarar: {name}").format(name=name))
    for name in sorted(declared - used):
        refuse([*where, "body", name], _("la consulta no tiene este parámetro"))
    if isinstance(spec, Bulk):
        try:
            write(spec.body, {})
        except Unsayable as error:
            refuse([*where, "body"], _("un registro completo se pide sin datos de nadie: {why}").format(why=error))
    elif not used:
        refuse(place, _("una consulta sobre una persona necesita al menos un parámetro"))
