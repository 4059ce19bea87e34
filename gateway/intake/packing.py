"""Decides how a row of a register is stored: a blind index of its subject and its encrypted facts, ready for COPY."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from adapters.masking import shape
from adapters.models import RejectedRow, Row
from schemas.crypto import RowCipher
from schemas.errors import InvalidIdentifier

# PostgreSQL, "Binary Format" of COPY: signature, flags and extension; at the end a field count of -1.
COPY = b"COPY siis.register_row (file_id, row, subject, content) FROM STDIN (FORMAT BINARY)"
COPY_BEGIN, COPY_END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
_FILE = struct.Struct(">hi16si")
_REST = struct.Struct(">ii16si")


@dataclass(frozen=True, slots=True)
class Packed:
    """Some rows ready for COPY: their bytes, how many, those refused, and the number of the last one."""

    content: bytes
    rows: int
    rejects: Sequence[RejectedRow]
    last: int


class Packer:
    """Stores the rows of one file."""

    def __init__(
        self,
        file_id: UUID,
        fields: Sequence[str],
        subject_field: str,
        normalise: Callable[[str], str],
        index: Callable[[str], bytes],
        cipher: RowCipher | None,
    ) -> None:
        """``normalise`` raises InvalidIdentifier; without a ``cipher`` the facts stand in clear."""
        self._fields, self._subject_field = tuple(fields), subject_field
        self._normalise, self._index, self._cipher = normalise, index, cipher
        self._begin = _FILE.pack(4, 16, file_id.bytes, 4)

    def pack(self, batch: Sequence[Row | RejectedRow]) -> Packed:
        """Pack a batch, which is not empty; a row whose subject cannot be found by anybody is refused."""
        numbers: list[int] = []
        subjects: list[bytes] = []
        contents: list[bytes] = []
        rejects: list[RejectedRow] = []
        fields, subject_field, normalise, index = self._fields, self._subject_field, self._normalise, self._index
        for row in batch:
            if isinstance(row, RejectedRow):
                rejects.append(row)
                continue
            facts = row.facts
            subject = str(facts[subject_field])
            try:
                subjects.append(index(normalise(subject)))
            except InvalidIdentifier:
                rejects.append(RejectedRow(row.row, subject_field, "not a usable identifier", shape(subject)))
                continue
            numbers.append(row.row)
            values = list(map(facts.get, fields))
            if row.raw_codes:
                values.append(row.raw_codes)
            contents.append(orjson.dumps(values))
        if self._cipher is not None:
            contents = self._cipher.seal(numbers, contents)
        begin, pack = self._begin, _REST.pack
        parts = [
            part
            for number, subject, content in zip(numbers, subjects, contents, strict=True)
            for part in (begin, pack(number, 16, subject, len(content)), content)
        ]
        return Packed(b"".join(parts), len(numbers), rejects, batch[-1].row)


def unpack(content: bytes, fields: Sequence[str]) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Read a row's facts (those it has) and raw codes back from its content in clear."""
    values = orjson.loads(content)
    facts = {name: value for name, value in zip(fields, values, strict=False) if value is not None}
    return facts, values[len(fields)] if len(values) > len(fields) else {}
