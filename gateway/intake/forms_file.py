"""Takes a table of forms or of reports: the good ones in, a transaction for each, the others named in a rejects file.

A row is a member of a household; the rows of one form follow each other under one number, and a form is taken whole or
not at all. A form that was taken before is passed over, so an import that was killed is simply begun again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from adapters.files.formats import Format, compile_format, read_blocks
from adapters.files.writing import RejectsFile
from adapters.masking import shape
from adapters.models import RejectedRow
from gateway import errors
from gateway.intake.forms import Forms
from gateway.intake.forms_facts import FactReports
from gateway.intake.forms_wording import mistake
from schemas.errors import SchemaError
from schemas.validation import validate

_FORM_COLUMNS = ("number", "observed_on", "department", "district", "locality")
_FACT_COLUMNS = ("identifier", "service", "received", "observed_on")
# Said once for a form; a later row of it repeats them or leaves them empty.
_OF_THE_FORM = (
    *("kind", "observed_on", "department", "district", "locality", "address", "notes"),
    *("household", "household_characteristics", "household_services", "priorities", "community_services"),
)
_OF_A_MEMBER = ("given_names", "surnames", "birth_date", "sex", "relation", "deceased_on")
_YES, _NO = frozenset({"si", "sí", "yes", "true"}), frozenset({"no", "false"})


@dataclass(slots=True)
class Imported:
    """How an import ended: forms or reports taken, known before, and rows rejected."""

    taken: int = 0
    known: int = 0
    rejected: int = 0


class _Row(NamedTuple):
    number: int
    cells: Mapping[str, str]

    def get(self, column: str) -> str:
        return self.cells.get(column, "").strip()


class _BadCell(Exception):
    """A cell that is no value of its column: row, column, rule."""

    def __init__(self, row: _Row, column: str, rule: str) -> None:
        super().__init__(rule)
        self.row, self.column, self.rule = row, column, rule


async def import_forms(desk: Forms, source: Path, institution: str, rejects: RejectsFile) -> Imported:
    """Take the forms of a table (CSV or XLSX); raises WrongFile where it is none, or lacks a column that must be."""
    done, ended = Imported(), set[str]()
    for number, rows in _forms(source, done, rejects):
        if number in ended:
            _reject(done, rejects, [_rejected(rows[0], "number", "rows-apart")], rows)
            continue
        ended.add(number)
        try:
            message = _message(number, rows)
            validate(f"form-{message['kind']}", message)
            await desk.record(None, message, institution=institution)
        except _BadCell as bad:
            _reject(done, rejects, [_rejected(bad.row, bad.column, bad.rule)], rows)
        except (SchemaError, errors.Refusal) as error:
            if isinstance(error, errors.Conflict):
                done.known += 1
            else:
                _reject(done, rejects, [_located(where, what, rows) for where, what in _broken(error)], rows)
        else:
            done.taken += 1
    return done


async def import_facts(desk: FactReports, source: Path, institution: str, rejects: RejectsFile) -> Imported:
    """Take the reports of a table, a row each; raises WrongFile as :func:`import_forms` does."""
    done = Imported()
    for row in _rows(source, _FACT_COLUMNS, done, rejects):
        try:
            message = _report(row)
            validate("fact-report", message)
            await desk.report(None, message, institution=institution)
        except _BadCell as bad:
            _reject(done, rejects, [_rejected(row, bad.column, bad.rule)], [row])
        except (SchemaError, errors.Refusal) as error:
            _reject(done, rejects, [_told(row, _column(where), what) for where, what in _broken(error)], [row])
        else:
            done.taken += 1
    return done


def _forms(source: Path, done: Imported, rejects: RejectsFile) -> Iterator[tuple[str, list[_Row]]]:
    rows = _rows(source, _FORM_COLUMNS, done, rejects)
    for number, group in groupby(rows, key=lambda row: row.get("number")):
        found = list(group)
        if number:
            yield number, found
        else:
            _reject(done, rejects, [_rejected(row, "number", "missing") for row in found], [])


def _rows(source: Path, columns: Sequence[str], done: Imported, rejects: RejectsFile) -> Iterator[_Row]:
    for block in read_blocks(source, _format(source, columns)):
        rejects.write(block.rejects)
        done.rejected += len(block.rejects)
        for number, cells in zip(block.numbers, block.rows, strict=True):
            yield _Row(number, dict(zip(block.header, cells, strict=True)))


def _format(source: Path, columns: Sequence[str]) -> Format:
    if source.suffix.lower() == ".xlsx":
        return compile_format({"format": "xlsx", "columns": columns})
    with source.open("rb") as file:
        header = file.readline(4096)
    # No column of ours has either in its name.
    return compile_format({"delimiter": ";" if b";" in header else ",", "columns": columns})


def _message(number: str, rows: Sequence[_Row]) -> dict[str, Any]:
    first = rows[0]
    for row in rows[1:]:
        for column in _OF_THE_FORM:
            if row.get(column) not in ("", first.get(column)):
                raise _BadCell(row, column, "rows-disagree")
    kind = first.get("kind") or "full"
    if kind not in ("full", "simplified", "community"):
        raise _BadCell(first, "kind", "unknown-code")
    message: dict[str, Any] = {
        "kind": kind,
        "number": number,
        "observed_on": first.get("observed_on"),
        "place": _given(first, ("department", "district", "locality", "address")),
        **_given(first, ("notes",)),
    }
    if kind == "community":
        if len(rows) > 1:
            raise _BadCell(rows[1], "number", "one-row-alone")
        message["priorities"] = first.get("priorities").split()
        services = _answers(first, "community_services")
        return message | ({"services": services} if services else {})
    home = {"characteristics": _answers(first, "household_characteristics")}
    home["services"] = _answers(first, "household_services")
    household: dict[str, Any] = {name: said for name, said in home.items() if said}
    if first.get("household"):
        household["id"] = first.get("household")
    members = [_member(row) for row in rows]
    return message | {"members": members} | ({"household": household} if household else {})


def _member(row: _Row) -> dict[str, Any]:
    member: dict[str, Any] = _given(row, _OF_A_MEMBER)
    if row.get("identifier"):
        member["identifier"] = {"system": row.get("system") or "cedula", "value": row.get("identifier")}
    if row.get("moved"):
        member["moved"] = _yes(row, "moved", row.get("moved"))
    for name in ("characteristics", "services"):
        if said := _answers(row, name):
            member[name] = said
    return member


def _report(row: _Row) -> dict[str, Any]:
    return {
        "subject": {"system": row.get("system") or "cedula", "value": row.get("identifier")},
        "facts": [
            {
                "service": row.get("service"),
                "received": _yes(row, "received", row.get("received")),
                "observed_on": row.get("observed_on"),
            }
        ],
    }


def _given(row: _Row, columns: Sequence[str]) -> dict[str, str]:
    return {column: row.get(column) for column in columns if row.get(column)}


def _answers(row: _Row, column: str) -> dict[str, bool]:
    """Read ``code=si code=no``."""
    said = {}
    for item in row.get(column).split():
        code, equals, answer = item.partition("=")
        if not equals or not code:
            raise _BadCell(row, column, "neither-yes-nor-no")
        said[code] = _yes(row, column, answer)
    return said


def _yes(row: _Row, column: str, text: str) -> bool:
    if text.casefold() in _YES:
        return True
    if text.casefold() in _NO:
        return False
    raise _BadCell(row, column, "neither-yes-nor-no")


def _broken(error: Exception) -> list[tuple[str, str]]:
    """Return where, and which rule in words, for everything that a refusal says."""
    if isinstance(error, SchemaError):
        return [(violation.pointer, violation.message) for violation in error.violations]
    if isinstance(error, errors.Invalid):
        return [(each.pointer, each.detail) for each in error.mistakes]
    if isinstance(error, errors.NotFound):
        return [("/subject/value", mistake("unknown-person", "").detail)]
    if isinstance(error, errors.BadRequest):
        return [(error.pointer or "", error.detail or error.code)]
    raise error


def _located(pointer: str, what: str, rows: Sequence[_Row]) -> RejectedRow:
    """Return the row and column of the file that a place of the form's message came from."""
    parts = pointer.split("/")[1:]
    row = rows[int(parts[1])] if len(parts) > 1 and parts[0] == "members" else rows[0]
    return _told(row, _column(pointer), what)


def _column(pointer: str) -> str:
    match pointer.split("/")[1:]:
        case ["subject", *_] | ["members", _, "identifier", *_]:
            return "identifier"
        case ["members" | "facts", _, name, *_] | ["place", name, *_]:
            return name
        case ["household", "id"]:
            return "household"
        case ["household", name, *_]:
            return f"household_{name}"
        case ["services", *_]:
            return "community_services"
        case ["members", *_]:
            return ""
        case [name, *_]:
            return name
    return ""


def _rejected(row: _Row, column: str, rule: str) -> RejectedRow:
    return _told(row, column, mistake(rule, "").detail)


def _told(row: _Row, column: str, what: str) -> RejectedRow:
    return RejectedRow(row.number, column, what, shape(row.get(column)))


def _reject(done: Imported, rejects: RejectsFile, found: Sequence[RejectedRow], rows: Sequence[_Row]) -> None:
    """Write down what is wrong, and the other rows of the form, which are left out with it."""
    bad = {each.row for each in found}
    others = [_rejected(row, "", "form-left-out") for row in rows if row.number not in bad]
    rejects.write(sorted((*found, *others), key=lambda each: each.row))
    done.rejected += len(bad) + len(others)
