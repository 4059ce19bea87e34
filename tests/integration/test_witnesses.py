"""Witnesses: never two stories of one log, whoever asks and whatever breaks; a log that is cosigned each minute."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import httpx
import psycopg
import pytest
import pytest_asyncio
from audit_examples import EPOCHS, LOG, SIGNER, an_entry, check, integrate, run_sql, scalar
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from audit.proofs import signed_head
from audit.service import AuditLog
from audit.verify import format_key, open_checkpoint, parse_note, parse_policy
from audit.witness import OtherKey, Witness, add_log, cosign, signature_line
from gateway.database import Database
from gateway.witnesses import asking, service
from gateway.witnesses.asking import Answered
from gateway.witnesses.policy import policy_text, read_witnesses
from gateway.witnesses.quorum import LOST, Quorum, QuorumWatch
from gateway.witnesses.service import Witnessing
from tests.integration.audit_database import AuditDatabase, fresh_audit_database
from tests.witnessing import NOON, Clock, SmallLog, a_witness, database_of, serving, vkey_of, witness_server

pytestmark = pytest.mark.asyncio(loop_scope="module")
# What a witness knows of a log it has cosigned nothing of.
FORGET = "UPDATE audit.witnessed SET size = 0, root = sha256(''), note = NULL"
INTERVAL_S, LIMIT_S = 60.0, 4 * 3600.0


# One witness, many who ask


@pytest_asyncio.fixture(loop_scope="module")
async def empty() -> AsyncIterator[AuditDatabase]:
    async with fresh_audit_database() as made:
        yield made


async def test_of_many_forked_checkpoints_at_once_only_one_branch_is_ever_cosigned(empty: AuditDatabase) -> None:
    log, witness = SmallLog.new(), a_witness()
    async with empty.app.begin() as conn:
        await add_log(conn, log.verifier_key, NOON)
    branches = [log, replace(log, branch="false", fork_at=1), replace(log, branch="other", fork_at=2)]
    cosigned: list[tuple[int, str]] = []

    async def grow(http: httpx.AsyncClient, address: str, branch: SmallLog, size: int) -> None:
        """Ask for one checkpoint from wherever the witness is, as somebody who wants it signed at any price."""
        old = 0
        while old <= size:
            answer = await http.post(f"{address}/add-checkpoint", content=branch.request(old, size))
            if answer.status_code == 200:
                cosigned.append((size, branch.note(size)))
            if answer.status_code != 409 or int(answer.text) == old:
                return
            old = int(answer.text)

    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=60))
        servers = [await stack.enter_async_context(witness_server(empty, witness, Clock())) for _ in range(3)]
        await asyncio.gather(
            *(
                grow(http, servers[(size + number) % 3], branch, size)
                for size in range(3, 15)
                for number, branch in enumerate(branches)
            )
        )
    assert cosigned
    told = [[note == branch.note(size) for size, note in cosigned] for branch in branches]
    assert any(map(all, told)), "two branches were cosigned"


@dataclass
class WatchedKey:
    """A signing key that looks, over a connection of its own, what is stored at the moment it signs, and then dies."""

    url: str
    stored: list[int] = field(default_factory=list)

    def public_key(self) -> Any:
        return SIGNER.key.public_key()

    def sign(self, _message: bytes) -> bytes:
        with psycopg.connect(self.url) as conn:
            [(size,)] = conn.execute("SELECT size FROM audit.witnessed").fetchall()
        self.stored.append(size)
        raise MemoryError


async def test_nothing_is_signed_before_it_is_stored(empty: AuditDatabase) -> None:
    log, url = SmallLog.new(), database_of(empty).url
    async with empty.app.begin() as conn:
        await add_log(conn, log.verifier_key, NOON)
    key = WatchedKey(url)
    async with empty.app.connect() as conn:
        with pytest.raises(MemoryError):
            await cosign(conn, log.request(0, 5), Witness("w", key), Clock())  # type: ignore[arg-type]
    assert key.stored == [5]
    assert await scalar(empty.admin, "SELECT size FROM audit.witnessed") == 5


async def test_a_write_that_fails_leaves_neither_signature_nor_checkpoint(empty: AuditDatabase) -> None:
    log, witness = SmallLog.new(), a_witness()
    async with empty.app.begin() as conn:
        await add_log(conn, log.verifier_key, NOON)
    async with witness_server(empty, witness, Clock()) as address, httpx.AsyncClient(timeout=60) as http:
        url = f"{address}/add-checkpoint"
        assert (await http.post(url, content=log.request(0, 5))).status_code == 200
        # The store itself refuses, then the connection is cut while the request waits for the row.
        await run_sql(empty.admin, "ALTER TABLE audit.witnessed ADD CONSTRAINT no CHECK (size <> 7)")
        assert (await http.post(url, content=log.request(5, 7))).status_code == 503
        async with empty.admin.begin() as holder:
            await holder.exec_driver_sql("SELECT FROM audit.witnessed FOR UPDATE")
            waiting = asyncio.create_task(http.post(url, content=log.request(5, 8)))
            waits = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            while not (pids := (await holder.exec_driver_sql(waits)).scalars().all()):
                await holder.exec_driver_sql("SELECT pg_stat_clear_snapshot()")
            await holder.exec_driver_sql(f"SELECT pg_terminate_backend({pids[0]})")
            answer = await waiting
        assert (answer.status_code, "—" in answer.text) == (503, False)
        assert await scalar(empty.admin, "SELECT size FROM audit.witnessed") == 5
        assert (await http.post(url, content=log.request(5, 9))).status_code == 200


async def test_a_log_is_known_by_one_key(empty: AuditDatabase) -> None:
    log = SmallLog.new()
    async with empty.app.begin() as conn:
        assert await add_log(conn, log.verifier_key, NOON) == log.signer.origin
        assert await add_log(conn, log.verifier_key, NOON) == log.signer.origin
        with pytest.raises(OtherKey):
            await add_log(conn, SmallLog.new().verifier_key, NOON)


# Our log and its witnesses


@dataclass
class Watched:
    """A log with its witnesses: three honest ones, of whom two are a quorum, unless told otherwise."""

    log: AuditDatabase
    database: Database
    audit: AuditLog
    witnessing: Witnessing
    file: Any
    clock: Clock
    witnesses: list[Witness]
    stores: list[AuditDatabase]
    servers: list[AsyncExitStack]
    quorum: Quorum = field(default_factory=Quorum)

    async def grow(self, entries: int = 3, year: int = LOG) -> None:
        for number in range(entries):
            await self.audit.append(an_entry(number))
        await integrate(self.log.app, year=year)

    async def round(self) -> dict[tuple[str, int], str]:
        answers: list[Answered] = await self.witnessing.round()
        return {(answer.witness.name, answer.head.log): answer.outcome for answer in answers}

    async def look(self) -> QuorumWatch:
        watch = QuorumWatch(
            self.database,
            read_witnesses(self.file),
            self.quorum,
            interval_s=INTERVAL_S,
            limit_s=LIMIT_S,
            now=self.clock,
        )
        await watch.look()
        return watch

    async def changes(self) -> list[str]:
        query = "SELECT coalesce(string_agg(type, ' ' ORDER BY id), '') FROM audit.entry WHERE type LIKE 'witness.%%'"
        return str(await scalar(self.log.admin, query)).split()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stores() -> AsyncIterator[list[AuditDatabase]]:
    """The databases of three institutions that know our log, this year's and the next."""
    async with AsyncExitStack() as stack:
        made = [await stack.enter_async_context(fresh_audit_database()) for _ in range(3)]
        for store in made:
            async with store.app.begin() as conn:
                for year in (LOG, LOG + 1):
                    key = SIGNER.of(year).verifier
                    await add_log(conn, format_key(key.name, key.kind, key.key), NOON)
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def watched(tmp_path: Any, stores: list[AuditDatabase]) -> AsyncIterator[Watched]:
    async with AsyncExitStack() as stack:
        log = await stack.enter_async_context(fresh_audit_database())
        clock = Clock()
        witnesses = [a_witness(f"witness.example/w{number}") for number in (1, 2, 3)]
        servers, lines = [], []
        for number, (witness, store) in enumerate(zip(witnesses, stores, strict=True), 1):
            await run_sql(store.admin, FORGET)
            server = await stack.enter_async_context(AsyncExitStack())
            address = await server.enter_async_context(witness_server(store, witness, clock))
            servers.append(server)
            lines.append(f"witness w{number} {vkey_of(witness)} {address}/")
        file = tmp_path / "witnesses.txt"
        file.write_text("\n".join([*lines, "group two 2 w1 w2 w3", "quorum two", ""]))
        database = database_of(log)
        stack.push_async_callback(database.close)
        audit = AuditLog(database.engine, EPOCHS, "gateway")
        stack.push_async_callback(audit.close)
        witnessing = asks(database, audit, file, clock)
        yield Watched(log, database, audit, witnessing, file, clock, witnesses, stores, servers)


def asks(database: Database, audit: AuditLog, file: Any, clock: Clock, interval_s: float = INTERVAL_S) -> Witnessing:
    return Witnessing(
        database=database,
        audit=audit,
        witnesses=read_witnesses(file),
        time_stamps=None,
        interval_s=interval_s,
        now=clock,
    )


COSIGNED = {("w1", LOG): "cosigned", ("w2", LOG): "cosigned", ("w3", LOG): "cosigned"}


async def test_a_log_that_grows_is_cosigned_by_all_and_its_proofs_carry_their_lines(watched: Watched) -> None:
    assert await watched.round() == {}
    for entries in (1, 5, 300):
        await watched.grow(entries)
        assert await watched.round() == COSIGNED
    async with watched.database.connection() as conn:
        head = await signed_head(conn, LOG)
    assert head is not None
    policy = parse_policy(policy_text(SIGNER, [LOG], watched.file))
    assert set(open_checkpoint(head.note, policy).witnesses) == {"w1", "w2", "w3"}
    assert "http" not in policy_text(SIGNER, [LOG], watched.file)


async def test_a_log_that_does_not_grow_is_cosigned_anew_and_a_forgotten_size_is_learnt(watched: Watched) -> None:
    await watched.grow()
    await watched.round()
    watched.clock.at += timedelta(minutes=1)
    assert await watched.round() == COSIGNED
    assert await scalar(watched.log.admin, "SELECT min(at) FROM audit.cosignature") == watched.clock.at
    await run_sql(watched.log.admin, "DELETE FROM audit.cosignature")
    await watched.grow()
    assert await watched.round() == COSIGNED


async def test_the_last_checkpoint_of_a_closed_year_is_asked_about_until_a_quorum_has_it(watched: Watched) -> None:
    await watched.servers[0].aclose()
    await watched.servers[1].aclose()
    await watched.grow()
    await watched.round()
    watched.clock.at = NOON.replace(year=LOG + 1)
    await watched.grow(year=LOG + 1)
    answers = await watched.round()
    assert answers == {
        **{(name, log): "unavailable" for name in ("w1", "w2") for log in (LOG, LOG + 1)},
        ("w3", LOG): "cosigned",
        ("w3", LOG + 1): "cosigned",
    }
    port = read_witnesses(watched.file).known[0].address.rpartition(":")[2]
    moved = await watched.servers[0].enter_async_context(
        witness_server(watched.stores[0], watched.witnesses[0], watched.clock)
    )
    watched.file.write_text(watched.file.read_text().replace(f":{port}/", f":{moved.rpartition(':')[2]}/"))
    watched.witnessing = asks(watched.database, watched.audit, watched.file, watched.clock)
    assert (await watched.round())["w1", LOG] == "cosigned"
    assert {log for _name, log in await watched.round()} == {LOG + 1}


# Witnesses that lie


def told(request_text: str) -> tuple[str, int]:
    """Return the checkpoint's text and size of a request."""
    text, _signatures = parse_note(request_text.partition("\n\n")[2])
    return text, int(text.split("\n")[1])


LIAR = a_witness("witness.example/liar")
NOW_S = int(NOON.timestamp())


def line(text: str, seconds: int = NOW_S, witness: Witness = LIAR) -> Response:
    return PlainTextResponse(f"{signature_line(witness, text, seconds)}\n")


def falsified(text: str) -> Response:
    data = LIAR.verifier.id + NOW_S.to_bytes(8, "big") + bytes(64)
    return PlainTextResponse(f"— {LIAR.name} {base64.b64encode(data).decode()}\n")


Lie = Callable[[str, int], Response]
LIES: dict[str, tuple[Lie, str]] = {
    "garbage": (lambda _text, _size: PlainTextResponse("está bien"), "garbage"),
    "not text": (lambda _text, _size: Response(b"\xff\xfe"), "garbage"),
    "nothing": (lambda _text, _size: PlainTextResponse(""), "garbage"),
    "ten megabytes": (lambda _text, _size: PlainTextResponse("x" * 10_000_000), "garbage"),
    "another's signature": (lambda text, _size: line(text, witness=a_witness("witness.example/x")), "garbage"),
    "a signature of another log": (lambda text, _size: line(text.replace("/2026", "/2025")), "false-signature"),
    "another size": (lambda text, size: line(text.replace(f"\n{size}\n", f"\n{size + 1}\n")), "false-signature"),
    "a signature of nothing": (lambda text, _size: falsified(text), "false-signature"),
    "an old cosignature": (lambda text, _size: line(text, NOW_S - 3600), "wrong-clock"),
    "a cosignature of the future": (lambda text, _size: line(text, NOW_S + 10**9), "wrong-clock"),
    "another way": (lambda _text, _size: RedirectResponse("/add-checkpoint"), "refused"),
    "trouble": (lambda _text, _size: PlainTextResponse("", 500), "unavailable"),
    "unknown log": (lambda _text, _size: PlainTextResponse("", 404), "unknown-log"),
    "bad signature": (lambda _text, _size: PlainTextResponse("", 403), "signature-refused"),
    "bad proof": (lambda _text, _size: PlainTextResponse("", 422), "not-a-prefix"),
    "a conflict without size": (lambda _text, _size: PlainTextResponse("five\n", 409), "garbage"),
    "the same size again": (lambda _text, _size: PlainTextResponse("0\n", 409), "garbage"),
    "a larger size": (lambda _text, size: PlainTextResponse(f"{size + 1}\n", 409), "ahead"),
    "this size, always": (lambda _text, size: PlainTextResponse(f"{size}\n", 409), "other-root"),
    "a size beyond all": (lambda _text, _size: PlainTextResponse("9" * 5000 + "\n", 409), "garbage"),
}


def lying(answer: Callable[[str, int], Awaitable[Response]]) -> Starlette:
    async def endpoint(request: Request) -> Response:
        return await answer(*told((await request.body()).decode()))

    return Starlette(routes=[Route("/add-checkpoint", endpoint, methods=["POST"])])


async def with_a_liar(watched: Watched, app: Starlette) -> dict[tuple[str, int], str]:
    """Ask the witnesses with one more that is not honest; its word is never enough, nor in anybody's way."""
    await watched.grow()
    async with serving(app) as address:
        text = watched.file.read_text()
        watched.file.write_text(f"witness liar {vkey_of(LIAR)} {address}\n{text}")
        watched.witnessing = asks(watched.database, watched.audit, watched.file, watched.clock)
        answers = await watched.round()
    assert {key: answers[key] for key in COSIGNED} == COSIGNED
    kept = await scalar(watched.log.admin, "SELECT count(*) FROM audit.cosignature WHERE witness LIKE '%%/liar+%%'")
    assert kept == 0
    return answers


async def test_a_witness_that_lies_is_noted_and_the_others_go_on(watched: Watched) -> None:
    found = {}
    text = watched.file.read_text()
    for name, (lie, _expected) in LIES.items():

        async def answer(text: str, size: int, lie: Lie = lie) -> Response:
            return lie(text, size)

        watched.file.write_text(text)
        found[name] = (await with_a_liar(watched, lying(answer)))["liar", LOG]
    assert found == {name: expected for name, (_lie, expected) in LIES.items()}


async def test_a_witness_that_hangs_is_not_waited_for(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "WITHIN_S", 1.0)
    never = asyncio.Event()

    async def answer(_text: str, _size: int) -> Response:
        await never.wait()
        return Response()

    async with asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(with_a_liar(watched, lying(answer)))
        asked.add_done_callback(lambda _done: never.set())
        answers = await asked
    assert answers["liar", LOG] == "unavailable"


# The quorum


async def test_a_quorum_that_is_lost_and_back_is_in_the_log_once_each(watched: Watched) -> None:
    await watched.grow()
    await watched.round()
    await watched.look()
    assert (watched.quorum.standing.state, await watched.changes()) == ("met", [])
    for server in watched.servers[:2]:
        await server.aclose()
    last = watched.clock.at
    for _minute in range(6):
        watched.clock.at += timedelta(minutes=1)
        await watched.round()
    await watched.look()
    assert (watched.quorum.standing.state, await watched.changes()) == ("missing", [LOST])
    assert watched.quorum.standing.missing_since == last
    assert not watched.quorum.stops(last + timedelta(seconds=LIMIT_S))
    assert watched.quorum.stops(last + timedelta(seconds=LIMIT_S + 1))
    # w1 comes back at another address.
    moved = await watched.servers[0].enter_async_context(
        witness_server(watched.stores[0], watched.witnesses[0], watched.clock)
    )
    before = read_witnesses(watched.file).known[0].address
    watched.file.write_text(watched.file.read_text().replace(f"{before}/", f"{moved}/"))
    watched.witnessing = asks(watched.database, watched.audit, watched.file, watched.clock)
    await watched.round()
    await watched.look()
    assert (watched.quorum.standing.state, await watched.changes()) == ("met", [LOST, "witness.quorum_back"])
    assert not watched.quorum.stops(watched.clock.at)
    await watched.grow()
    assert (await check(watched.log.app)).ok


async def test_half_a_quorum_on_each_of_two_checkpoints_is_none(watched: Watched) -> None:
    await watched.grow()
    await watched.round()
    await run_sql(watched.log.admin, "DELETE FROM audit.cosignature WHERE witness NOT LIKE '%%/w1+%%'")
    await watched.grow()
    watched.clock.at += timedelta(minutes=1)
    await watched.round()
    await run_sql(
        watched.log.admin,
        "DELETE FROM audit.cosignature WHERE size = (SELECT max(size) FROM audit.cosignature) "
        "AND witness NOT LIKE '%%/w2+%%'",
    )
    await watched.look()
    assert watched.quorum.standing.met_at is None


async def test_without_any_quorum_ever_time_counts_from_the_first_look_and_then_from_the_entry(
    watched: Watched,
) -> None:
    for server in watched.servers:
        await server.aclose()
    await watched.grow()
    watch = await watched.look()
    assert watched.quorum.standing.missing_since == NOON
    for _minute in range(5):
        await watched.round()
        watched.clock.at += timedelta(minutes=1)
    await watch.look()
    lost_at = NOON + timedelta(minutes=4)
    assert (await watched.changes(), watched.quorum.standing.missing_since) == ([LOST], lost_at)
    # Another process, started later, counts from the same moment.
    watched.clock.at += timedelta(hours=4, minutes=30)
    await watched.look()
    assert watched.quorum.stops(watched.clock.at)


# What only a witness can know


async def rewrite(watched: Watched, entries: int) -> None:
    """Write the log anew with the stolen key, as somebody with all rights over the database may."""
    tables = ("entry", "pending", "sequence", "tree", "tile", "block", "checkpoint", "cosignature")
    await run_sql(
        watched.log.admin,
        "SET session_replication_role = replica",
        *(f"DELETE FROM audit.{table}" for table in tables),  # noqa: S608
        "UPDATE audit.writer SET counter = 0, last_leaf = decode(repeat('00', 32), 'hex')",
        "SET session_replication_role = origin",
    )
    await watched.grow(entries)
    assert (await check(watched.log.app)).ok


@pytest.mark.parametrize(("entries", "outcome"), [(2, "ahead"), (5, "other-root"), (9, "not-a-prefix")])
async def test_a_log_written_anew_with_its_own_key_checks_out_and_is_contradicted_by_every_witness(
    watched: Watched, entries: int, outcome: str
) -> None:
    await watched.grow(5)
    await watched.round()
    await rewrite(watched, entries)
    assert set((await watched.round()).values()) == {outcome}


async def test_one_process_asks_and_another_takes_over_when_it_ends(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_WAIT_S", 0.02)
    await watched.grow()
    asked: list[str] = []
    ask = Witnessing.round

    async def counted(self: Witnessing) -> list[Answered]:
        asked.append(names[id(self)])
        done.set()
        return await ask(self)

    monkeypatch.setattr(Witnessing, "round", counted)
    done = asyncio.Event()
    both = [asks(watched.database, watched.audit, watched.file, watched.clock, 0.02) for _ in range(2)]
    names = {id(both[0]): "first", id(both[1]): "second"}
    stops = [asyncio.Event(), asyncio.Event()]
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(both[0].run(stops[0]))
        await done.wait()
        tasks.create_task(both[1].run(stops[1]))
        while len(asked) < 10:
            done.clear()
            await done.wait()
        assert set(asked) == {"first"}
        stops[0].set()
        await first
        while asked[-1] != "second":
            done.clear()
            await done.wait()
        stops[1].set()
