"""C2SP tlog-witness over a real socket: every status, and that what is cosigned verifies and is stored."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import httpx
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.checkpoint import Signer
from audit.verify import check_cosignature, open_checkpoint, parse_key, parse_note, parse_policy
from audit.witness import REQUEST_BYTES, Witness, add_log, signature_line
from tests.integration.audit_database import AuditDatabase, fresh_audit_database
from tests.witnessing import NOON, Clock, SmallLog, a_witness, vkey_of, witness_server


@dataclass
class Running:
    address: str
    witness: Witness
    database: AuditDatabase
    log: SmallLog
    clock: Clock
    http: httpx.AsyncClient

    async def post(self, body: bytes) -> httpx.Response:
        return await self.http.post(f"{self.address}/add-checkpoint", content=body)

    async def stored(self) -> tuple[int, str | None]:
        async with self.database.admin.connect() as conn:
            row = (await conn.exec_driver_sql("SELECT size, note FROM audit.witnessed")).one()
            return row.size, row.note


@pytest_asyncio.fixture
async def running() -> AsyncIterator[Running]:
    """A witness that knows one log and has cosigned nothing."""
    log, witness, clock = SmallLog.new(), a_witness(), Clock()
    async with fresh_audit_database() as database, httpx.AsyncClient() as http:
        async with database.app.begin() as conn:
            await add_log(conn, log.verifier_key, NOON)
        async with witness_server(database, witness, clock) as address:
            yield Running(address, witness, database, log, clock, http)


async def cosigned(running: Running, old: int, size: int) -> int:
    """Have a size cosigned and return the time in the cosignature."""
    answer = await running.post(running.log.request(old, size))
    assert answer.status_code == 200, answer.text
    text, _ours = parse_note(running.log.note(size))
    _text, [(name, data)] = parse_note(f"{text}\n{answer.text}")
    assert name == running.witness.name
    assert (await running.stored())[0] == size
    return check_cosignature(parse_key(vkey_of(running.witness)), text, data)


async def test_a_log_that_grows_is_cosigned_step_by_step_and_any_verifier_accepts_it(running: Running) -> None:
    for old, size in [(0, 5), (5, 5), (5, 8), (8, 300)]:
        assert await cosigned(running, old, size) == int(NOON.timestamp())
    answer = await running.post(running.log.request(300, 300))
    policy = parse_policy(
        f"log {running.log.verifier_key}\nwitness w {vkey_of(running.witness)} {running.address}\nquorum w\n"
    )
    signed = open_checkpoint(running.log.note(300) + answer.text, policy)
    assert (signed.checkpoint.size, set(signed.witnesses)) == (300, {"w"})


async def test_the_empty_log_is_cosigned_too(running: Running) -> None:
    await cosigned(running, 0, 0)
    await cosigned(running, 0, 3)


async def test_another_old_size_gets_409_with_the_known_one_in_its_own_media_type(running: Running) -> None:
    await cosigned(running, 0, 5)
    for old, size in [(0, 8), (4, 8), (7, 8), (0, 4), (0, 5)]:
        answer = await running.post(running.log.request(old, size))
        assert (answer.status_code, answer.text) == (409, "5\n")
        assert answer.headers["content-type"] == "text/x.tlog.size"
    assert (await running.stored())[0] == 5


async def test_the_same_size_with_another_root_gets_409(running: Running) -> None:
    await cosigned(running, 0, 5)
    answer = await running.post(replace(running.log, branch="false").request(5, 5))
    assert (answer.status_code, answer.text) == (409, "5\n")


def forked(log: SmallLog) -> bytes:
    """A larger log that is not the one cosigned, with the proof of its own."""
    return replace(log, branch="false", fork_at=3).request(5, 9)


def without_proof(log: SmallLog) -> bytes:
    return b"old 5\n\n" + log.note(9).encode()


def with_proof_of_nothing(log: SmallLog) -> bytes:
    return log.request(5, 5).replace(b"\n\n", b"\n" + base64.b64encode(bytes(32)) + b"\n\n", 1)


@pytest.mark.parametrize("bad", [forked, without_proof, with_proof_of_nothing])
async def test_a_proof_that_does_not_hold_gets_422_and_changes_nothing(
    running: Running, bad: Callable[[SmallLog], bytes]
) -> None:
    await cosigned(running, 0, 5)
    before = await running.stored()
    assert (await running.post(bad(running.log))).status_code == 422
    assert await running.stored() == before


async def test_a_proof_from_nothing_must_be_empty(running: Running) -> None:
    body = running.log.request(0, 5).replace(b"\n\n", b"\n" + base64.b64encode(bytes(32)) + b"\n\n", 1)
    assert (await running.post(body)).status_code == 422


async def test_an_unknown_log_gets_404_and_a_known_one_that_another_key_signed_403(running: Running) -> None:
    stranger = SmallLog.new("other.example/log")
    assert (await running.post(stranger.request(0, 5))).status_code == 404
    impostor = SmallLog(Signer(running.log.signer.origin, Ed25519PrivateKey.generate()))
    assert (await running.post(impostor.request(0, 5))).status_code == 403
    text, _signatures = parse_note(running.log.note(5))
    # Its name and key id with a false signature, and a witness's line alone, are no signature of the log.
    true_line = running.log.note(5).rpartition("\n\n")[2]
    falsified = running.log.note(5).replace(true_line[-10:-6], "AAAA")
    assert (await running.post(b"old 0\n\n" + falsified.encode())).status_code == 403
    alone = f"{text}\n{signature_line(running.witness, text, 1)}\n"
    assert (await running.post(b"old 0\n\n" + alone.encode())).status_code == 403
    assert await running.stored() == (0, None)


async def test_signatures_of_unknown_keys_are_ignored(running: Running) -> None:
    text, _signatures = parse_note(running.log.note(5))
    body = running.log.request(0, 5) + f"{signature_line(a_witness('other.example/w'), text, 1)}\n".encode()
    assert (await running.post(body)).status_code == 200


HASH = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "change",
    [
        lambda body: b"",
        lambda body: b"old 0\n",
        lambda body: body.replace(b"old 0", b"old 00"),
        lambda body: body.replace(b"old 0", b"old -1"),
        lambda body: body.replace(b"old 0", b"old  0"),
        lambda body: body.replace(b"old 0", b"new 0"),
        lambda body: body.replace(b"old 0", b"old 9"),
        lambda body: body.replace(b"old 0\n", f"old 0\n{HASH[:-4]}\n".encode()),
        lambda body: body.replace(b"old 0\n", b"old 0\n!\n"),
        lambda body: body.replace(b"old 0\n", f"old 0\n{HASH} \n".encode()),
        lambda body: body.replace(b"old 0\n", f"old 0\n{HASH}\n".encode() + f"{HASH}\n".encode() * 63),
        lambda body: body.replace(b"\n\n", b"\n", 1),
        lambda body: body.replace(b"\n", b"\r\n"),
        lambda body: body[:-1],
        lambda body: body + b"\xff\n",
        lambda body: body.replace(b"\n5\n", b"\n05\n"),
        lambda body: body.replace(b"\n5\n", b"\n99999999999999999999\n"),
    ],
)
async def test_what_is_not_the_format_gets_400(running: Running, change: Callable[[bytes], bytes]) -> None:
    assert (await running.post(change(running.log.request(0, 5)))).status_code == 400
    assert await running.stored() == (0, None)


async def test_a_request_that_is_too_large_gets_413_with_and_without_its_length(running: Running) -> None:
    large = running.log.request(0, 5) + b"x" * REQUEST_BYTES
    assert (await running.post(large)).status_code == 413

    async def in_pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(large), 65_536):
            yield large[start : start + 65_536]

    answer = await running.http.post(f"{running.address}/add-checkpoint", content=in_pieces())
    assert answer.status_code == 413


async def test_other_methods_and_paths_are_not_served(running: Running) -> None:
    assert (await running.http.get(f"{running.address}/add-checkpoint")).status_code == 405
    assert (await running.http.get(f"{running.address}/")).status_code == 404


async def test_the_time_of_cosignatures_never_goes_back(running: Running) -> None:
    first = await cosigned(running, 0, 5)
    running.clock.at = NOON.replace(hour=11)
    assert await cosigned(running, 5, 7) == first
    running.clock.at = NOON.replace(hour=13)
    assert await cosigned(running, 7, 7) == first + 3600
