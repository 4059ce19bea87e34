"""A producer that is a database: tables of the example in SQLite, changed as an administrator might, locked or gone."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from adapters.conformance.documents import EXTRA
from adapters.conformance.trials import Place, Trial
from adapters.conformance.verbs import MALFORMED, Bulk, Expected, Fetch, Read, Verb
from adapters.connections import Connection
from adapters.manifest import Manifest
from adapters.models import Found, Malformed, NotFound, Unavailable
from schemas.text import _

Tables = Mapping[str, Sequence[Mapping[str, Any]]]
Change = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
_BROKEN = MALFORMED | Unavailable
# Stands in a row that is not there, of a table whose columns are.
_NOTHING = object()


class Database:
    """A database of one file. ``how``: serve, lock (another writes and does not end), noise (no database), absent."""

    def __init__(self, tables: Tables, how: str = "serve") -> None:
        self._tables, self._how = tables, how

    def complaint(self) -> str | None:
        """Reading leaves nothing behind."""
        return None

    @asynccontextmanager
    async def opened(self, place: Place) -> AsyncIterator[Connection]:
        """Make the file."""
        file = place.folder / "sistema.db"
        if self._how == "noise":
            file.write_bytes(b"\x00\xff no es una base de datos" * 100)
        elif self._how != "absent":
            _make(file, self._tables)
        address = place.at(f"sqlite:///{file}")
        if self._how != "lock":
            yield address
            return
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield address


def database_trials(manifest: Manifest, verb: Verb) -> Iterator[Trial]:
    """Give the trials of a verb over a database."""
    [answer] = verb.good.answers
    tables, good = answer.content, verb.expected(verb.good)

    def case(name: str, group: str, changed: Tables, expected: Expected, detail: str = "", **more: Any) -> Trial:
        return Trial(name, group, Database(changed), expected, detail, **more)

    for example in verb.examples.values():
        yield case(example.name, "contract", example.answers[0].content, verb.expected(example))
    yield case("nothing", "contract", _emptied(tables), Expected((NotFound,)))
    yield case("duplicate", "contract", tables, good, second=Expected((NotFound,)) if isinstance(verb, Bulk) else good)
    if isinstance(verb, Fetch):
        yield case("nobody", "contract", tables, Expected((NotFound,)), other=True)
    for how, hangs in (("lock", True), ("noise", False), ("absent", False)):
        yield Trial(how, "transport", Database(tables, how), _BROKEN, hangs=hangs)
    if isinstance(verb, Fetch):
        many = _each(tables, lambda rows: rows * (manifest.limits.rows + 1))
        yield case("huge", "content", many, MALFORMED)
    yield case("extra-field", "form", _each(tables, lambda rows: [{**row, EXTRA: "x"} for row in rows]), good)
    turned = _each(tables, lambda rows: [dict(reversed(row.items())) for row in rows])
    yield case("reordered", "form", turned, good)
    for table, rows in tables.items():
        for column in rows[0]:
            place = f"{table}.{column}"
            less = {**tables, table: [{name: row[name] for name in row if name != column} for row in rows]}
            null, blob = ({**tables, table: [{**row, column: value} for row in rows]} for value in (None, b"\xff\x00"))
            yield case("missing-field", "form", less, good | Malformed | Unavailable, place)
            yield case("null", "form", null, _whole(verb), place)
            yield case("other-type", "form", blob, _whole(verb), place)


def _make(file: Path, tables: Tables) -> None:
    with closing(sqlite3.connect(file)) as database:
        for name, rows in tables.items():
            columns = ", ".join(f'"{column}"' for column in rows[0])
            database.execute(f'CREATE TABLE "{name}" ({columns})')
            places = ", ".join("?" for _column in rows[0])
            values = [tuple(row.values()) for row in rows if any(value is not _NOTHING for value in row.values())]
            database.executemany(f'INSERT INTO "{name}" VALUES ({places})', values)  # noqa: S608 - the example's names
        database.commit()


def _each(tables: Tables, change: Change) -> Tables:
    return {name: change([dict(row) for row in rows]) for name, rows in tables.items()}


def _emptied(tables: Tables) -> Tables:
    return _each(tables, lambda rows: [dict.fromkeys(rows[0], _NOTHING)])


def _whole(verb: Verb) -> Expected:
    """Expect the example with less in it, every required field there; or that nobody matches; or a refusal."""
    kind = Read if isinstance(verb, Bulk) else Found
    return Expected((kind, NotFound, Malformed), lambda outcome: _part(verb, outcome))


def _part(verb: Verb, outcome: Found | Read) -> str | None:
    wanted = verb.good.content["rows"] if isinstance(outcome, Read) else [verb.good.content["facts"]]
    found = [row.facts for row in outcome.rows] if isinstance(outcome, Read) else [outcome.facts]
    required = {name for name, _columns in verb.required()}
    for facts in found:
        if not required <= facts.keys():
            return _("falta un campo obligatorio en lo encontrado")
        if not any(facts.items() <= whole.items() for whole in wanted):
            return _("otros datos")
    return None
