"""Turns the rows of a file into the dataset's fields, column by column: as :meth:`FieldTable.read` would, but fast.

What most cells become was seen before (codes, days, places), so a column remembers it while that pays. A row with
anything wrong is read once more by the field table itself, which says what.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

from jmespath.exceptions import JMESPathError

from adapters.converters import WHOLE_COLUMN, Converter, Unfit
from adapters.files.formats import Block, Format, read_blocks
from adapters.mapping import Expression, Field, FieldTable
from adapters.masking import shape
from adapters.models import RejectedRow, Row

#: Cells a column remembers at most; with more, looking them up is no faster than making them.
_REMEMBERED = 1 << 13
#: What a cell that does not fit becomes, in the shape of what a translated one does: a value and its raw code.
_BAD: tuple[Any, str | None] = (None, None)


def read_rows(
    source: Path | bytes, format: Format, table: FieldTable, after: int = 0
) -> Iterator[list[Row | RejectedRow]]:
    """Give the rows behind number ``after`` in batches and in order, each one read, or rejected for its first problem.

    Raises :class:`~adapters.files.errors.WrongFile` where the file as a whole is not what was agreed.
    """
    reader: RowReader | None = None
    for block in read_blocks(source, format, after):
        if reader is None or reader.header != block.header:
            reader = RowReader(table, block.header)
        yield reader.read(block)


class RowReader:
    """A field table over the columns of one header."""

    def __init__(self, table: FieldTable, header: tuple[str, ...]) -> None:
        self.header = header
        self._columns = [_Column(field, header) for field in table.fields]
        self._build = _builder(table.names, [column.name for column in self._columns if column.coded])

    def read(self, block: Block) -> list[Row | RejectedRow]:
        """Read a block; every row is in the result once, in order."""
        if not block.rows:
            return list(block.rejects)
        cells = list(zip(*block.rows, strict=True))
        bad: dict[int, _Column] = {}
        values: list[Sequence[Any]] = []
        codes: list[Sequence[str | None]] = []
        for column in self._columns:
            made, raw = column.read(block, cells, bad)
            values.append(made)
            if column.coded:
                codes.append(raw)
        read = self._build(block.numbers, *values, *codes)
        self._leave_out(read, values, codes)
        for place, column in bad.items():
            read[place] = column.refusal(block.numbers[place], block.rows[place])
        for reject in block.rejects:
            insort(read, reject, key=attrgetter("row"))
        return read

    def _leave_out(self, read: list[Any], values: list[Sequence[Any]], codes: list[Sequence[str | None]]) -> None:
        """Take absent fields and codes out of the rows."""
        raw = iter(codes)
        for column, made in zip(self._columns, values, strict=True):
            code = next(raw) if column.coded else ()
            if column.sure:
                continue
            for place, value in enumerate(made):
                if value is None:
                    del read[place].facts[column.name]
            for place, text in enumerate(code):
                if text is None:
                    del read[place].raw_codes[column.name]


def _builder(names: Sequence[str], coded: Sequence[str]) -> Callable[..., list[Any]]:
    """Make a function from row numbers, columns of values and columns of raw codes to rows.

    It is generated because a dictionary written out costs half of one put together, and there is one for every row.
    """
    facts = ", ".join(f"{name!r}: v{place}" for place, name in enumerate(names))
    codes = ", ".join(f"{name!r}: c{place}" for place, name in enumerate(coded))
    variables = ", ".join(
        ["n", *(f"v{place}" for place in range(len(names))), *(f"c{place}" for place in range(len(coded)))]
    )
    source = f"lambda *columns: [Row(n, {{{facts}}}, {{{codes}}}) for {variables} in zip(*columns, strict=True)]"
    made: Callable[..., list[Any]] = eval(source, {"Row": Row, "zip": zip})  # noqa: S307 - names are quoted by repr
    return made


class _Column:
    """One field over the cells of a block.

    ``sure``: no good row lacks it. ``coded``: it has raw codes beside its values.
    """

    def __init__(self, field: Field, header: tuple[str, ...]) -> None:
        self.name = field.name
        self.sure = field.source is None or (field.required and field.default is None)
        self.coded = field.codes is not None
        self._field = field
        self._header = header
        self._places: tuple[int, ...] = ()
        if field.members is not None and set(field.members.names) <= set(header):
            self._places = tuple(map(header.index, field.members.names))
        # What no cell can be refused for is done faster than remembered.
        plain = not self.coded and all(step in WHOLE_COLUMN for step in field.steps)
        self._memory = None if plain else _Memory(field)

    def read(
        self, block: Block, cells: Sequence[Sequence[str]], bad: dict[int, _Column]
    ) -> tuple[Sequence[Any], Sequence[str | None]]:
        """Return what every row holds and its raw codes; note the rows where it does not fit and nothing did before."""
        if self._field.source is None:
            return [self._field.const] * len(block.rows), ()
        found: tuple[Sequence[Any], Sequence[str | None]]
        wrong: list[int] = []
        if not self._places:
            found = self._one_by_one(self._searched(block, wrong), wrong)
        else:
            column = cells[self._places[0]]
            if len(self._places) > 1 and self._field.members is not None:
                parts = zip(*(cells[place] for place in self._places), strict=True)
                column = list(map(self._field.members.glue.join, parts))
            if self._memory is not None:
                found = self._remembered(self._memory, column, wrong)
            elif self.coded:
                found = self._one_by_one(column, wrong)
            else:
                found = self._direct(column, wrong), ()
        for place in wrong:
            bad.setdefault(place, self)
        return found

    def refusal(self, number: int, cells: Sequence[str]) -> RejectedRow:
        """Say what is wrong with a row, by the name the column has in the file."""
        document = dict(zip(self._header, cells, strict=True))
        [(_name, what)] = FieldTable([self._field]).read(document).problems
        names = () if self._field.members is None else self._field.members.names
        found = [name for name in names if name in document]
        return RejectedRow(
            number, " ".join(found) or self.name, what, shape(" ".join(map(document.__getitem__, found)))
        )

    def _remembered(
        self, memory: _Memory, column: Sequence[str], wrong: list[int]
    ) -> tuple[Sequence[Any], Sequence[str | None]]:
        made = list(map(memory.__getitem__, column))
        if memory.bad:
            wrong += [place for place, value in enumerate(made) if value is _BAD]
            memory.bad = False
        memory.asked += len(column)
        if len(memory) >= _REMEMBERED and 2 * memory.missed > memory.asked:
            self._memory = None
        if not memory.pairs:
            # Where it cannot be absent, the raw code is the cell itself.
            return made, column
        values, codes = zip(*made, strict=True)
        return values, codes

    def _direct(self, column: Sequence[str], wrong: list[int]) -> Sequence[Any]:
        made: Sequence[Any] = column
        for step in self._field.steps:
            made = WHOLE_COLUMN[step](made) if step in WHOLE_COLUMN else _through(step, made, wrong)
        if "" not in made:
            return made
        if self._field.required and self._field.default is None:
            wrong += [place for place, value in enumerate(made) if value == ""]
        return [self._field.default if value == "" else value for value in made]

    def _one_by_one(self, column: Sequence[Any], wrong: list[int]) -> tuple[list[Any], list[str | None]]:
        values: list[Any] = []
        codes: list[str | None] = []
        for place, cell in enumerate(column):
            try:
                value, code = self._field.convert(cell)
            except Unfit:
                value, code = _BAD
                wrong.append(place)
            if value is None and self._field.required:
                wrong.append(place)
            values.append(value)
            codes.append(code)
        return values, codes

    def _searched(self, block: Block, wrong: list[int]) -> Sequence[Any]:
        """Look the field up in every row as JMESPath has it."""
        found: list[Any] = []
        source = cast(Expression, self._field.source)
        for place, cells in enumerate(block.rows):
            try:
                found.append(source(dict(zip(self._header, cells, strict=True))))
            except JMESPathError:
                found.append(None)
                wrong.append(place)
        return found


def _through(step: Converter, column: Sequence[str], wrong: list[int]) -> Sequence[Any]:
    """Put every cell through a converter that may refuse it; blank ones stay as they are, refused ones become blank."""
    work = (lambda cell: step(cell) if cell else cell) if "" in column else step
    cells = iter(column)
    made: list[Any] = []
    while True:
        try:
            # What was made before a refusal stays, and the cells go on behind it.
            made.extend(map(work, cells))
        except Unfit:
            wrong.append(len(made))
            made.append("")
        else:
            return made


class _Memory(dict[str, Any]):
    """What the cells of a column became, a pair with the raw code where ``pairs``; a bad one is never remembered."""

    def __init__(self, field: Field) -> None:
        super().__init__()
        self._field = field
        self.pairs = field.codes is not None and not (field.required and field.default is None)
        self.asked = self.missed = 0
        self.bad = False

    def __missing__(self, cell: str) -> Any:
        self.missed += 1
        try:
            made = self._field.convert(cell)
        except Unfit:
            self.bad = True
            return _BAD
        if made[0] is None and self._field.required:
            self.bad = True
            return _BAD
        kept = made if self.pairs else made[0]
        if len(self) < _REMEMBERED:
            self[cell] = kept
        return kept
