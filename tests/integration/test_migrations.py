"""Migrations build just the tables the code declares, twice is once, and the application cannot rewrite what counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from alembic import command
from sqlalchemy import create_engine, pool

from gateway import embedded, migrations
from gateway.database import sqlalchemy_url


@pytest.fixture(scope="module")
def server(folders: Callable[[str], Path]) -> Iterator[embedded.EmbeddedServer]:
    folder = folders("migrations")
    started = embedded.start(folder)
    migrations.upgrade(started.url(embedded.OWNER))
    yield started
    embedded.stop(folder)


def test_the_tables_are_those_the_code_declares(server: embedded.EmbeddedServer) -> None:
    engine = create_engine(sqlalchemy_url(server.url(embedded.OWNER)), poolclass=pool.NullPool)
    with engine.begin() as connection:
        made = migrations.config()
        made.attributes["connection"] = connection
        command.check(made)


def test_a_second_upgrade_changes_nothing(server: embedded.EmbeddedServer) -> None:
    migrations.upgrade(server.url(embedded.OWNER))
    engine = create_engine(sqlalchemy_url(server.url(embedded.OWNER)), poolclass=pool.NullPool)
    with engine.connect() as connection:
        assert migrations.current(connection) == migrations.head()


def test_a_revision_of_a_newer_release_is_good_enough_and_none_is_not() -> None:
    assert migrations.known(migrations.head())
    assert migrations.known("9999")
    assert not migrations.known(None)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit.entry SET type = 'x'",
        "DELETE FROM audit.sequence",
        "TRUNCATE audit.checkpoint",
        "UPDATE siis.referral_event SET type = 'x'",
        "DELETE FROM siis.fact",
        "DELETE FROM siis.idempotency",
        "UPDATE consent.agreement SET status = 'active'",
        "CREATE TABLE siis.mine (x int)",
    ],
)
def test_the_application_role_may_not_rewrite_what_counts(server: embedded.EmbeddedServer, statement: str) -> None:
    with (
        psycopg.connect(server.url(embedded.APPLICATION)) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement)


def test_not_even_the_owner_of_the_tables_changes_the_log(server: embedded.EmbeddedServer) -> None:
    with psycopg.connect(server.url(embedded.OWNER)) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("UPDATE audit.entry SET type = 'x'")
