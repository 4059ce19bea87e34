"""What the benchmarks share: the machine, a load generator in its own process, and servers pinned to a core."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schemas.ids import uuid7
from schemas.permit import Permit, issue

CORES = os.cpu_count() or 1
# The program under test has a core of its own where there are two; load, producer and database share the other.
PROGRAM_CORE, OTHER_CORE = (CORES - 1, 0)


def machine() -> dict[str, Any]:
    """Return what stands beside every figure."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": model or platform.machine(),
        "cores": CORES,
        "python": platform.python_version(),
        "system": platform.platform(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def permit_for(dataset: str) -> Permit:
    """Return a permit to ask the identity service, for benchmarks of an adapter without the rest of the house."""
    return issue(
        decision_id=uuid7(),
        action="disclosure.fetch",
        requester="UTGS",
        holder="PN-IDENT",
        dataset=dataset,
        subject=None,
        released=frozenset(),
        purpose="service-provision",
        issued_at=datetime.now(UTC),
    )


def require(*programs: str) -> None:
    """End with a clear text when a program that the benchmark drives is not installed."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)} (Debian packages of the same names)")


@contextmanager
def running(arguments: list[str], *, core: int, environment: Mapping[str, str] | None = None) -> Iterator[int]:
    """Run a program pinned to a core; it gets SIGTERM at the end. Gives the process id."""
    command = ["taskset", "-c", str(core), *arguments] if shutil.which("taskset") else arguments
    process = subprocess.Popen(command, env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(url: str, within_s: float = 60.0) -> None:
    """Wait until an address answers with any status."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=1)  # noqa: S310
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    sys.exit(f"no answer from {url}")


_LUA_DONE = """
done = function(summary, latency, requests)
  io.write(string.format('RESULT {"requests":%d,"seconds":%.3f,"p50_ms":%.2f,"p99_ms":%.2f,"errors":%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.timeout))
end
"""


def wrk(url: str, script: str, folder: Path, *, connections: int = 64, seconds: int = 5) -> dict[str, Any]:
    """Load an address over keep-alive connections; return requests/s, percentiles in ms and errors (not 2xx/3xx)."""
    path = folder / "load.lua"
    path.write_text(script + _LUA_DONE, encoding="utf-8")
    command = ["taskset", "-c", str(OTHER_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    output = subprocess.run([*command, "-s", str(path), url], capture_output=True, text=True, check=True).stdout
    found = re.search(r"RESULT (\{.*\})", output)
    if found is None:
        sys.exit(f"the load generator said nothing usable:\n{output}")
    result: dict[str, Any] = json.loads(found[1])
    result["per_second"] = round(result.pop("requests") / result.pop("seconds"))
    return result


def cpu_seconds(pid: int) -> float:
    """Return the processor time a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
