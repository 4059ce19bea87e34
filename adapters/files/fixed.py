"""Decides what the cells of a fixed-width line are: columns by their width in characters, padding taken off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adapters.files.delimited import RawRows, split_lines
from adapters.files.lines import TextBlock


class FixedReader:
    """Reads blocks of text into rows."""

    def __init__(self, widths: Sequence[int]) -> None:
        ends = [sum(widths[: place + 1]) for place in range(len(widths))]
        self._slices = [slice(end - width, end) for width, end in zip(widths, ends, strict=True)]

    def rows(self, blocks: Iterator[TextBlock], skip: int) -> Iterator[RawRows]:
        """Read the blocks, ``skip`` lines passed over at the beginning.

        A line may end early inside its last column only, and go on in blanks only.
        """
        begin_last, end = self._slices[-1].start, self._slices[-1].stop
        for block in blocks:
            found = RawRows(unreadable=block.unreadable)
            lines = split_lines(block.text)
            for line in lines[skip:]:
                line = line.rstrip("\r\n")
                if not line or line.isspace():
                    found.rows.append([])
                elif len(line) < begin_last or line[end:].strip():
                    found.spoil("a line of another length")
                else:
                    found.rows.append([line[part].strip() for part in self._slices])
            skip = max(0, skip - len(lines))
            if block.cut:
                found.spoil("a line too long")
            yield found
