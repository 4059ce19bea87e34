"""Decides how a table is written: RFC 4180, no cell that a spreadsheet would run, and the list of what was refused."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from adapters.files.wording import say
from adapters.models import RejectedRow
from schemas.text import _

# What a spreadsheet takes for a formula (OWASP, "CSV Injection"), also after the white space it skips.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def neutral(cell: str) -> str:
    """Put an apostrophe before what a spreadsheet would run."""
    return f"'{cell}" if cell.lstrip(" ").startswith(_FORMULA) else cell


def write_row(columns: Sequence[str], values: Mapping[str, Any], spec: Mapping[str, Any]) -> bytes:
    """Write a header and one row in the manifest's delimiter (a comma without one) and encoding (UTF-8 without one).

    Raises UnicodeEncodeError for text the encoding cannot hold.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=spec.get("delimiter", ","), lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerow([neutral(str(values.get(column, ""))) for column in columns])
    return text.getvalue().encode(spec.get("encoding", "utf-8"))


class RejectsFile:
    """The rows of a file that were refused, for whoever sent it: row, column, shape of the value, reason.

    CSV in UTF-8 with CR LF (RFC 4180). What was written and not committed is cut off when the file is opened again.
    """

    def __init__(self, path: Path, committed: int = 0) -> None:
        """Open the file and cut it at ``committed``, the offset that :meth:`sync` last gave; 0 begins it anew.

        Raises ValueError where the file is shorter than that.
        """
        self._file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")  # noqa: SIM115 - closed by close()
        if self._file.seek(0, os.SEEK_END) < committed:
            self._file.close()
            raise ValueError("the rejects file is shorter than what was committed")
        self._file.truncate(committed)
        self._file.seek(committed)
        if not committed:
            self._put([(_("fila"), _("columna"), _("valor"), _("motivo"))])

    def write(self, rejects: Iterable[RejectedRow]) -> None:
        """Add rejected rows; nothing of a value leaves but the shape its reject carries."""
        self._put((str(reject.row), reject.column, reject.masked, say(reject.what)) for reject in rejects)

    def sync(self) -> int:
        """Bring all that was written to the disk; return the offset behind it."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> RejectsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, rows: Iterable[Sequence[str]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\r\n").writerows([neutral(cell) for cell in row] for row in rows)
        self._file.write(text.getvalue().encode("utf-8", "replace"))
