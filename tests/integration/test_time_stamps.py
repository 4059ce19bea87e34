"""Time stamps of checkpoints (RFC 3161) from a real authority on this machine: openssl behind a small HTTP server."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import pytest_asyncio
from audit_examples import EPOCHS, an_entry, integrate, scalar

from audit.service import AuditLog
from gateway.database import Database
from gateway.settings import SettingsError
from gateway.witnesses.time_stamp import TimeStamps, read_roots
from tests.integration.audit_database import AuditDatabase, fresh_audit_database
from tests.witnessing import Clock, database_of

_CONFIG = """
[ req ]
distinguished_name = name
prompt = no
[ name ]
CN = Autoridad
[ root ]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign
[ stamping ]
extendedKeyUsage = critical,timeStamping
keyUsage = critical,digitalSignature
[ tsa ]
default_tsa = one
[ one ]
serial = serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
ess_cert_id_alg = sha256
"""


class Authority:
    """A root and a stamping certificate made by openssl; ``spoil`` changes its answers."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, 0
        self.spoil: Callable[[bytes], bytes] = bytes
        (folder / "tsa.cnf").write_text(_CONFIG)
        (folder / "serial").write_text("01\n")
        root = "req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.pem -days 3650 -extensions root"
        self.run(f"{root} -config tsa.cnf -subj /CN=Raiz")
        self.run("req -newkey rsa:2048 -nodes -keyout tsa.key -out tsa.csr -config tsa.cnf -subj /CN=Sellos")
        signed = "x509 -req -in tsa.csr -CA root.pem -CAkey root.key -CAcreateserial -out tsa.pem -days 3650"
        self.run(f"{signed} -extfile tsa.cnf -extensions stamping")

    def run(self, command: str) -> None:
        subprocess.run(["openssl", *command.split()], cwd=self.folder, check=True, capture_output=True)

    def reply(self, query: bytes) -> bytes:
        self.asked += 1
        (self.folder / "query").write_bytes(query)
        self.run("ts -reply -config tsa.cnf -section one -queryfile query -signer tsa.pem -inkey tsa.key -out reply")
        return self.spoil((self.folder / "reply").read_bytes())


@contextmanager
def serving(authority: Authority) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = authority.reply(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            # Whoever asked may have read enough.
            with suppress(ConnectionError):
                self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/tsa"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Stamped:
    made: AuditDatabase
    database: Database
    authority: Authority
    url: str
    clock: Clock

    def stamps(self, roots: Path | None = None) -> TimeStamps:
        path = roots or self.authority.folder / "root.pem"
        return TimeStamps(self.database, self.url, read_roots(path), now=self.clock)

    async def kept(self) -> int:
        return int(await scalar(self.made.admin, "SELECT count(*) FROM audit.time_stamp"))

    async def grow(self) -> None:
        log = AuditLog(self.database.engine, EPOCHS, "gateway")
        await log.append(an_entry())
        await log.close()
        await integrate(self.made.app)


@pytest_asyncio.fixture
async def stamped(tmp_path: Path) -> AsyncIterator[Stamped]:
    authority = Authority(tmp_path)
    async with fresh_audit_database() as made:
        database = database_of(made)
        try:
            with serving(authority) as url:
                # The authority's clock is the machine's.
                yield Stamped(made, database, authority, url, Clock(datetime.now(UTC)))
        finally:
            await database.close()


async def test_the_newest_checkpoint_is_stamped_once_an_hour_and_openssl_verifies_it(stamped: Stamped) -> None:
    stamps = stamped.stamps()
    assert not await stamps.stamp_if_due()
    await stamped.grow()
    assert await stamps.stamp_if_due()
    assert not await stamps.stamp_if_due()
    assert (await stamped.kept(), stamped.authority.asked) == (1, 1)
    folder = stamped.authority.folder
    (folder / "stamp").write_bytes(await scalar(stamped.made.admin, "SELECT response FROM audit.time_stamp"))
    (folder / "note").write_text(await scalar(stamped.made.admin, "SELECT note FROM audit.checkpoint"))
    stamped.authority.run("ts -verify -in stamp -data note -CAfile root.pem")
    await stamped.grow()
    stamped.clock.at += timedelta(minutes=59)
    assert not await stamps.stamp_if_due()


async def test_what_does_not_verify_is_not_kept_and_asked_again(stamped: Stamped) -> None:
    await stamped.grow()
    stamps, first = stamped.stamps(), b""

    def earlier(_reply: bytes) -> bytes:
        return first

    stamped.authority.spoil = lambda reply: reply[:-40] + bytes(40)
    assert not await stamps.stamp_if_due()
    stamped.authority.spoil = lambda _reply: b"<html>"
    assert not await stamps.stamp_if_due()
    stamped.authority.spoil = lambda _reply: bytes(10_000_000)
    assert not await stamps.stamp_if_due()
    # A true reply to another question: of the right message, with another nonce.
    (stamped.authority.folder / "note").write_text(
        await scalar(stamped.made.admin, "SELECT note FROM audit.checkpoint")
    )
    stamped.authority.spoil = bytes
    stamped.authority.run("ts -query -data note -sha256 -cert -out other")
    first = stamped.authority.reply((stamped.authority.folder / "other").read_bytes())
    stamped.authority.spoil = earlier
    assert not await stamps.stamp_if_due()
    stamped.authority.spoil = bytes
    assert await stamped.kept() == 0
    assert await stamps.stamp_if_due()


async def test_an_authority_under_another_root_or_with_another_clock_is_not_believed(
    stamped: Stamped, tmp_path_factory: pytest.TempPathFactory
) -> None:
    await stamped.grow()
    other = Authority(tmp_path_factory.mktemp("other"))
    assert not await stamped.stamps(other.folder / "root.pem").stamp_if_due()
    stamped.clock.at += timedelta(hours=1)
    assert not await stamped.stamps().stamp_if_due()
    assert await stamped.kept() == 0


async def test_an_authority_that_is_away_is_noted(stamped: Stamped) -> None:
    await stamped.grow()
    stamps = TimeStamps(
        stamped.database, "http://127.0.0.1:1/tsa", read_roots(stamped.authority.folder / "root.pem"), now=stamped.clock
    )
    assert not await stamps.stamp_if_due()


def test_roots_that_cannot_be_read_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / "roots.pem").write_text("no")
    for name in ("roots.pem", "absent.pem"):
        with pytest.raises(SettingsError):
            read_roots(tmp_path / name)
