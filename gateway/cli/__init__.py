"""The command line ``siis``: texts in Spanish, English with ``--lang en`` or ``SIIS_LANG=en``."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line; the language is chosen first, because help texts are made when commands are declared."""
    from schemas.text import LANGUAGES, set_language

    chosen = os.environ.get("SIIS_LANG", "es")
    arguments = sys.argv[1:]
    for place, argument in enumerate(arguments):
        if argument == "--lang" and place + 1 < len(arguments):
            chosen = arguments[place + 1]
        elif argument.startswith("--lang="):
            chosen = argument.removeprefix("--lang=")
    if chosen not in LANGUAGES:
        print(f"--lang: {' | '.join(LANGUAGES)}", file=sys.stderr)
        raise SystemExit(2)
    set_language(chosen)
    from gateway.cli.app import run

    run()
