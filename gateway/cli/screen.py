"""Where commands print, and how: whole values, and nothing that a caller wrote can steer the reader's terminal."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

from schemas.text import printable

_WIDTH_OF_FILES = 180


def screen(*, stderr: bool = False) -> Console:
    """Return a console; output that goes to a file or another program is not cut to eighty columns."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _WIDTH_OF_FILES)


def cell(text: str) -> Text:
    """Return a text for a table as it is: brackets in it are no markup."""
    return Text(printable(text))


def json_line(value: Any) -> str:
    """Return JSON in one line, control characters escaped (RFC 8259 lets the C1 ones stand)."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in text)
