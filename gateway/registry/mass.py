"""Computes the protection status of everybody at once: facts read from PostgreSQL, the rule in DuckDB, results back.

It reads one snapshot and writes only what changed, so that work goes on meanwhile: a unit of which something arrived
since then keeps its newer status. Memory is bounded; what does not fit lies in a folder that only we may read.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.catalogue.models import Service
from gateway.clock import local_day
from gateway.registry.mass_reading import read
from gateway.registry.mass_rules import Rules, quoted
from gateway.registry.mass_writing import Busy, Rows, changed, write

if TYPE_CHECKING:
    import duckdb

__all__ = ["Busy", "Outcome", "Unfinished", "classify_all"]

MEMORY_MIB = 2400
#: Units computed together, and connections that write them.
_UNITS, _WRITERS = 200_000, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a computation of everybody did: units looked at, those changed, and the seconds its parts took.

    ``reading_s``: until the facts lie in DuckDB; ``rules_s``: from there to what was found of everybody, while nothing
    is written; the rest of ``total_s`` is comparing and writing. ``snapshot``: which transactions it saw
    (``pg_snapshot`` as text).
    """

    units: int
    changed: int
    snapshot: str
    reading_s: float
    rules_s: float
    total_s: float


class Unfinished(Exception):
    """The computation was cut off: no room for it in memory or on disk. What was written by then is right."""


def classify_all(
    url: str,
    services: Mapping[str, Service],
    *,
    folder: Path,
    at: datetime,
    because: str,
    memory_mib: int = MEMORY_MIB,
    threads: int = 2,
    units: int = _UNITS,
) -> Outcome:
    """Compute everybody's status for the day of ``at`` and keep what changed; ``url`` is the database (libpq).

    ``folder`` takes the temporary files; ``units``: how many are computed and written together. Raises psycopg.Error,
    OSError, :class:`Unfinished` or :class:`Busy`; what was written by then stays and is right.
    """
    # Only here: it is large, and no other work of a process needs it.
    import duckdb

    try:
        with _private_folder(folder) as private, duckdb.connect() as work:
            work.execute(f"SET memory_limit = '{memory_mib}MiB'")
            work.execute(f"SET threads = {threads}")
            work.execute(f"SET temp_directory = {quoted(str(private / 'spill'))}")
            work.execute("SET preserve_insertion_order = false")
            return _classified(url, services, private, work, at, because, units)
    except duckdb.Error as error:
        raise Unfinished(type(error).__name__) from error


def _classified(
    url: str,
    services: Mapping[str, Service],
    private: Path,
    work: duckdb.DuckDBPyConnection,
    at: datetime,
    because: str,
    units: int,
) -> Outcome:
    started = time.monotonic()
    snapshot = read(url, work, services, private)
    reading_s = time.monotonic() - started
    rules = Rules(services, local_day(at))
    rules_s, seen, written = 0.0, 0, 0
    # The rule has all the processors; a chunk is written while the rows of the next one are made.
    with ThreadPoolExecutor(_WRITERS) as writers:
        made: list[Rows] = []
        for kind, first, last in _chunks(work, units):
            since = time.monotonic()
            for statement in rules.statements(kind, first, last):
                work.execute(statement)
            rules_s += time.monotonic() - since
            seen += last - first + 1
            writing = writers.map(partial(write, url), made)
            made = changed(work, at, because, _WRITERS)
            written += sum(writing)
        written += sum(writers.map(partial(write, url), made))
    total_s = time.monotonic() - started
    return Outcome(
        units=seen, changed=written, snapshot=snapshot, reading_s=reading_s, rules_s=rules_s, total_s=total_s
    )


@contextmanager
def _private_folder(folder: Path) -> Iterator[Path]:
    """Make a folder for files that hold facts of persons, readable by nobody else, and remove it at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    # DuckDB makes its files as the process's mask says; whoever makes others meanwhile gets narrower ones.
    before = os.umask(0o077)
    try:
        with tempfile.TemporaryDirectory(prefix="classify-", dir=folder) as made:
            yield Path(made)
    finally:
        os.umask(before)


def _chunks(work: duckdb.DuckDBPyConnection, units: int) -> Iterator[tuple[str, int, int]]:
    """Yield one chunk after the other, each a range of numbers of one kind, both ends included."""
    for kind in ("person", "household", "community"):
        first, last = work.execute(f"SELECT min(no), max(no) FROM {kind}").fetchone() or (None, None)  # noqa: S608
        if first is not None:
            for start in range(first, last + 1, units):
                yield kind, start, min(start + units - 1, last)
