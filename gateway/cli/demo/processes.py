"""Starts and ends the processes of the demonstration: institutions, gateway and worker, each a real one."""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_GRACE_S = 15.0


class DidNotStart(RuntimeError):
    """A process ended or stayed silent instead of getting ready; ``log`` is where it wrote why."""

    def __init__(self, name: str, log: Path) -> None:
        super().__init__(name)
        self.name, self.log = name, log


@dataclass(frozen=True, slots=True)
class Institution:
    """A running simulated institution: addresses of its service and of its switches."""

    name: str
    address: str
    control: str
    host_key: str | None


class Processes:
    """The processes started so far; ended in reverse order."""

    def __init__(self, log_dir: Path) -> None:
        log_dir.mkdir(parents=True, exist_ok=True)
        self._log_dir = log_dir
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, tuple[list[str], Mapping[str, str]]] = {}

    def start(self, name: str, arguments: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start ``python -m …`` with its errors in a log file; one of the same name must have ended."""
        self._close(name)
        self._started[name] = (arguments, environment)
        with self.log_of(name).open("ab") as log:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        self._running[name] = process
        return process

    def start_institution(self, name: str, arguments: list[str]) -> None:
        """Start a simulated institution; :meth:`institution` waits for it."""
        self.start(name, ["adapters.simulator", name, *arguments], {})

    def institution(self, name: str, within_s: float = 30.0) -> Institution:
        """Return a started institution once it has printed that it is ready; raises :class:`DidNotStart`."""
        line = self._first_line(name, within_s)
        try:
            ready: dict[str, Any] = json.loads(line)
            return Institution(name, ready["address"], ready["control"], ready.get("host_key"))
        except (ValueError, KeyError):
            raise DidNotStart(name, self.log_of(name)) from None

    def log_of(self, name: str) -> Path:
        """Return the file that holds what a process wrote to its standard error."""
        return self._log_dir / f"{name}.log"

    def restart(self, name: str) -> None:
        """Start a process that ended again, as it was."""
        self.start(name, *self._started[name])

    def died(self) -> str | None:
        """Return the name of a process that ended by itself, or None."""
        return next((name for name, process in self._running.items() if process.poll() is not None), None)

    def end(self) -> None:
        """End every process: asked first, killed after a grace."""
        for process in reversed(self._running.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_S
        for process in reversed(self._running.values()):
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for name in list(self._running):
            self._close(name)

    def _close(self, name: str) -> None:
        process = self._running.pop(name, None)
        if process is not None and process.stdout is not None:
            process.stdout.close()

    def _first_line(self, name: str, within_s: float) -> bytes:
        stream = self._running[name].stdout
        if stream is None or not select.select([stream], [], [], within_s)[0]:
            raise DidNotStart(name, self.log_of(name))
        return stream.readline()


def free_port() -> int:
    """Return a port of the loopback interface that is free now.

    It is below those that the system gives away by itself (RFC 6335 section 6: dynamic ports; on Linux from 32768), so
    that nobody is given it before the process it is meant for has started.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
