"""A change to a client reaches every process at once, and no process trusts what it knew too long ago."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from integration.identity_database import (
    ISSUER,
    Clock,
    Deployment,
    WatchedDirectory,
    deploy,
    new_key,
    public_key,
    register,
)

from gateway.database import Database
from gateway.identity import service, tokens
from gateway.identity.assertions import client_assertion
from gateway.identity.authentication import ASSERTION_TYPE
from gateway.identity.directory import MAX_AGE_SECONDS
from gateway.identity.errors import DirectoryUnavailable, TokenError
from gateway.identity.tokens import TokenChecker

pytest_plugins = ["integration.identity_fixtures"]

PATIENCE_SECONDS = 30


async def loaded(running: Deployment) -> None:
    """Wait for the directory to be read again."""
    await asyncio.wait_for(running.directory.loaded.wait(), PATIENCE_SECONDS)
    running.directory.loaded.clear()


@asynccontextmanager
async def following(running: Deployment) -> AsyncIterator[None]:
    """Let the directory follow changes; it listens once inside."""
    stop = asyncio.Event()
    running.directory.loaded.clear()
    task = asyncio.create_task(running.directory.run(stop))
    try:
        await loaded(running)
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, PATIENCE_SECONDS)


async def test_token_of_a_disabled_client_is_refused_at_once_in_another_process(
    deployment: Deployment, tmp_path: Path
) -> None:
    client = await register(deployment)
    token = await deployment.token(client)
    async with deploy(deployment.database, deployment.clock, tmp_path) as other, following(other):
        other.checker.check(token)
        async with deployment.database.transaction() as connection:
            await service.disable_client(connection, client_id=client.id, now=deployment.clock())
        await loaded(other)
        with pytest.raises(TokenError, match=r"^client-disabled$") as caught:
            other.checker.check(token)
        assert caught.value.client_id == client.id


async def test_rolled_back_change_reaches_nobody(deployment: Deployment) -> None:
    client = await register(deployment)
    token = await deployment.token(client)
    async with following(deployment):
        async with deployment.database.connection() as connection, connection.begin() as transaction:
            await service.disable_client(connection, client_id=client.id, now=deployment.clock())
            await transaction.rollback()
        await deployment.directory.load()
        deployment.checker.check(token)


async def test_key_change_reaches_another_process(deployment: Deployment, tmp_path: Path) -> None:
    client = await register(deployment)
    token = await deployment.token(client)
    async with deploy(deployment.database, deployment.clock, tmp_path) as other, following(other):
        other.checker.check(token)
        async with deployment.database.transaction() as connection:
            await service.rotate_key(
                connection,
                client_id=client.id,
                key=public_key(new_key()),
                grace=timedelta(0),
                now=deployment.clock(),
            )
        await loaded(other)
        with pytest.raises(TokenError, match=r"^key$"):
            other.checker.check(token)


async def test_revocation_reaches_another_process(deployment: Deployment, tmp_path: Path) -> None:
    client = await register(deployment)
    token = await deployment.token(client)
    async with deploy(deployment.database, deployment.clock, tmp_path) as other, following(other):
        other.checker.check(token)
        form = {
            "token": token.removeprefix("Bearer "),
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": client_assertion(
                client.key, client_id=client.id, issuer=ISSUER, now=deployment.clock()
            ),
        }
        assert (await deployment.post("/oauth2/revoke", form)).status_code == 200
        await loaded(other)
        with pytest.raises(TokenError, match=r"^revoked$"):
            other.checker.check(token)


async def test_replay_in_another_process_is_refused(deployment: Deployment, tmp_path: Path) -> None:
    client = await register(deployment)
    assertion = client_assertion(client.key, client_id=client.id, issuer=ISSUER, now=deployment.clock())
    async with deploy(deployment.database, deployment.clock, tmp_path) as other:
        answers = await asyncio.gather(*(process.ask(assertion) for process in (deployment, other) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 7


async def test_listener_that_is_cut_off_comes_back_and_misses_nothing(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.following.RETRY_SECONDS", 0)
    client = await register(deployment)
    token = await deployment.token(client)
    async with following(deployment):
        async with await psycopg.AsyncConnection.connect(deployment.database.url, autocommit=True) as connection:
            cut = await connection.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            )
            assert await cut.fetchone() == (1,)
        await loaded(deployment)
        async with deployment.database.transaction() as connection:
            await service.disable_client(connection, client_id=client.id, now=deployment.clock())
        await loaded(deployment)
        with pytest.raises(TokenError, match=r"^client-disabled$"):
            deployment.checker.check(token)


async def test_following_can_be_cancelled(deployment: Deployment) -> None:
    deployment.directory.loaded.clear()
    task = asyncio.create_task(deployment.directory.run(asyncio.Event()))
    await loaded(deployment)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE_SECONDS)


async def test_nobody_is_let_in_on_knowledge_that_is_too_old(
    deployment: Deployment, identity_database: Database
) -> None:
    client = await register(deployment)
    token = await deployment.token(client)
    seconds = [0.0]
    directory = WatchedDirectory(identity_database, now=deployment.clock, monotonic=lambda: seconds[0])
    checker = TokenChecker(
        ring=deployment.ring, issuer=ISSUER, directory=directory, now=deployment.clock, foreign=deployment.foreign
    )
    with pytest.raises(DirectoryUnavailable):
        checker.check(token)
    await directory.load()
    checker.check(token)
    seconds[0] = MAX_AGE_SECONDS
    checker.check(token)
    seconds[0] += 1
    with pytest.raises(DirectoryUnavailable):
        checker.check(token)
    await directory.load()
    checker.check(token)


async def test_unchanged_client_stays_the_same_object(deployment: Deployment) -> None:
    client = await register(deployment)
    known = deployment.directory.find(client.id)
    await deployment.directory.load()
    assert deployment.directory.find(client.id) is known
    await register(deployment, "otro")
    assert deployment.directory.find(client.id) is known


async def test_verdict_is_reached_again_after_a_minute_or_a_change_and_not_before(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await register(deployment)
    token = await deployment.token(client)
    verified: list[str] = []
    original = tokens.open_access_token

    def counted(text: str, **more: object) -> object:
        verified.append(text)
        return original(text, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(tokens, "open_access_token", counted)
    for _ in range(3):
        deployment.checker.check(token)
    deployment.clock.advance(59)
    deployment.checker.check(token)
    assert len(verified) == 1
    deployment.clock.advance(1)
    deployment.checker.check(token)
    assert len(verified) == 2
    async with deployment.database.transaction() as connection:
        await service.rotate_key(
            connection,
            client_id=client.id,
            key=public_key(new_key()),
            grace=timedelta(hours=1),
            now=deployment.clock(),
        )
    await deployment.directory.load()
    deployment.checker.check(token)
    assert len(verified) == 3


async def test_cache_holds_a_bounded_number_of_verdicts(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.identity.tokens.CACHE_ENTRIES", 2)
    client = await register(deployment)
    headers = [await deployment.token(client) for _ in range(4)]
    for header in headers * 2:
        deployment.checker.check(header)
    assert len(deployment.checker._tokens) == 2


def test_clock_of_the_tests_moves_only_when_told() -> None:
    clock = Clock()
    before = clock()
    clock.advance(5)
    assert clock() - before == timedelta(seconds=5)
