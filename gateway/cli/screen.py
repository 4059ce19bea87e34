"""Where commands print: as wide as the terminal, and wide enough for whole values where there is none."""

from __future__ import annotations

import sys

from rich.console import Console

_WIDTH_OF_FILES = 180


def screen(*, stderr: bool = False) -> Console:
    """Return a console; output that goes to a file or another program is not cut to eighty columns."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _WIDTH_OF_FILES)
