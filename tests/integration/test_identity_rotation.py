"""Our token keys change without a restart and without a gap, and a change that is cut off leaves keys that work."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from integration.identity_database import Clock, Deployment, deploy, register
from typer.testing import CliRunner, Result

from gateway.cli import keys
from gateway.database import Database
from gateway.identity import rotation
from gateway.identity.errors import TokenError
from gateway.identity.keys import JWKS_MAX_AGE_SECONDS, RETIRED_SECONDS, load_ring
from gateway.identity.rotation import PUBLISHED_SECONDS, READ_SECONDS, RingKeeper, TooEarly, plan, survey
from gateway.identity.tokens import ACCESS_TOKEN_SECONDS
from gateway.vault import load_epochs, load_kek

pytest_plugins = ["integration.identity_fixtures"]


class Later:
    """The real time, moved forward: no file can be given another time at which it got its name."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def wait(self, seconds: float) -> None:
        self.ahead += timedelta(seconds=seconds)

    def back_to_now(self) -> None:
        """What was renamed a moment ago is new again."""
        self.ahead = timedelta(0)


@pytest.fixture
def later() -> Later:
    return Later()


def step(keys_dir: Path, later: Later, *, replace: bool = False) -> str:
    """Do the next step of a change and say which it was."""
    planned = plan(keys_dir, now=later(), replace=replace)
    planned.carry_out()
    return planned.step


# The command


@pytest.fixture
def keys_dir(identity_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: Later) -> Path:
    """Settings that lead the command to the database of the test, and the folder of its keys."""
    monkeypatch.setenv("SIIS_DATABASE_URL", identity_url)
    monkeypatch.setenv("SIIS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(keys, "utc_now", later)
    folder = tmp_path / "data" / "keys"
    load_kek(folder, create=True)
    load_epochs(folder, create=True)
    load_ring(folder, create=True)
    return folder


def siis(*arguments: str) -> Result:
    return CliRunner().invoke(keys.app, arguments)


def listed() -> dict[str, str]:
    answer = siis("list", "--json")
    assert answer.exit_code == 0, answer.output
    return {each["role"]: each["kid"] for each in orjson.loads(answer.stdout) if each["published"]}


def logged(url: str) -> list[tuple[str, str]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT type, outcome FROM audit.entry ORDER BY at").fetchall()


def test_a_key_is_published_for_eleven_minutes_before_it_signs_and_believed_for_seven_after(
    keys_dir: Path, later: Later, identity_url: str
) -> None:
    first = listed()["current"]
    answer = siis("rotate")
    assert answer.exit_code == 0, answer.output
    second = listed()["next"]
    assert second in answer.stdout
    assert listed() == {"current": first, "next": second}
    later.wait(PUBLISHED_SECONDS - 30)
    answer = siis("rotate")
    assert answer.exit_code == 1
    assert "s." in answer.stderr
    assert listed() == {"current": first, "next": second}
    later.wait(60)
    assert siis("rotate").exit_code == 0
    later.back_to_now()
    assert listed() == {"current": second, "previous": first}
    later.wait(RETIRED_SECONDS + 30)
    assert listed() == {"current": second}
    assert logged(identity_url) == [("admin.keys_rotated", "done")] * 2
    assert first in siis("list").stdout


def test_a_leaked_key_is_replaced_in_one_step_and_believed_no_more(keys_dir: Path) -> None:
    first = listed()["current"]
    answer = siis("rotate", "--force")
    assert answer.exit_code == 0, answer.output
    assert list(listed()) == ["current"]
    assert listed()["current"] in answer.stdout
    assert load_ring(keys_dir, create=False).find(first) is None


def test_a_key_published_already_is_the_one_that_replaces_a_leaked_one(keys_dir: Path) -> None:
    siis("rotate")
    published = listed()["next"]
    siis("rotate", "--force")
    assert listed() == {"current": published}


async def test_of_two_operators_at_once_one_publishes_and_the_other_is_told_to_wait(keys_dir: Path) -> None:
    done = await asyncio.gather(keys._rotate(force=False), keys._rotate(force=False), return_exceptions=True)
    assert sorted(type(each).__name__ for each in done) == ["Rotation", "TooEarly"]
    assert len(survey(keys_dir)) == 2


def test_a_folder_that_cannot_be_written_ends_with_an_entry_that_says_so(
    keys_dir: Path, identity_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(rotation, "write_secret", full)
    assert isinstance(siis("rotate").exception, OSError)
    assert [outcome for _kind, outcome in logged(identity_url)] == ["done", "failed"]


# Running processes


async def switched(ring: Any, before: tuple[str, ...]) -> None:
    async with asyncio.timeout(10):
        while ring.kids == before:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_running_processes_follow_a_change_and_no_token_is_refused_on_the_way(
    identity_database: Database, tmp_path: Path, later: Later
) -> None:
    clock, stop = Clock(), asyncio.Event()
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(deploy(identity_database, clock, tmp_path)) for _each in "12"]
        client = await register(one)
        await other.directory.load()
        keepers = [RingKeeper(each.ring, tmp_path, now=later, every_s=0.01) for each in (one, other)]
        tasks = [asyncio.create_task(keeper.run(stop)) for keeper in keepers]
        first = one.ring.kids

        async def accepted_by_both(token: str) -> None:
            for process in (one, other):
                process.checker.check(token)

        old = await one.token(client)
        assert step(tmp_path, later) == "prepared"
        for process in (one, other):
            await switched(process.ring, first)
        assert await published(one) == await published(other) == list(one.ring.kids)
        assert one.ring.current.kid == first[0]
        # The other process is the last to hear of the next step.
        stop.set()
        await asyncio.gather(*tasks)
        later.wait(PUBLISHED_SECONDS + 1)
        assert step(tmp_path, later) == "activated"
        later.back_to_now()
        keepers[0].read()
        assert (one.ring.current.kid, other.ring.current.kid) == (one.ring.kids[0], first[0])
        assert one.ring.kids == (other.ring.kids[1], first[0])
        for token in (old, await one.token(client), await other.token(client)):
            await accepted_by_both(token)
        later.wait(RETIRED_SECONDS + 1)
        keepers[0].read()
        assert await published(one) == [one.ring.current.kid]
        with pytest.raises(TokenError, match=r"^key$"):
            one.checker.check(await other.token(client))


async def published(process: Deployment) -> list[str]:
    answer = await process.http.get("/.well-known/jwks.json")
    assert answer.headers["cache-control"] == f"public, max-age={JWKS_MAX_AGE_SECONDS}"
    return [key["kid"] for key in answer.json()["keys"]]


def test_a_key_outlives_its_last_token_by_more_than_clocks_and_readings_may_differ() -> None:
    assert RETIRED_SECONDS >= ACCESS_TOKEN_SECONDS + 60 + 2 * READ_SECONDS
    assert PUBLISHED_SECONDS >= JWKS_MAX_AGE_SECONDS + 2 * READ_SECONDS


@pytest.mark.parametrize(
    "spoil", [lambda path: path.write_bytes(b"no key"), lambda path: path.chmod(0o644), Path.unlink]
)
def test_keys_that_cannot_be_read_leave_those_known_in_use(
    tmp_path: Path, later: Later, spoil: Callable[[Path], object]
) -> None:
    ring = load_ring(tmp_path, create=True)
    keeper, before = RingKeeper(ring, tmp_path, now=later), ring.kids
    spoil(tmp_path / "token-current.pem")
    keeper.read()
    assert ring.kids == before
    for path in tmp_path.iterdir():
        path.unlink()
    load_ring(tmp_path, create=True)
    keeper.read()
    assert ring.kids != before


# Cut off

_EVENTS = {"os.link", "os.rename", "os.remove"}


def killed_at(number: int, work: Callable[[], object]) -> bool:
    """Do some work in a process that dies just before its n-th change to a folder; say whether it came so far."""
    child = os.fork()
    if child == 0:
        left = number

        def watch(event: str, _arguments: object) -> None:
            nonlocal left
            if event in _EVENTS:
                left -= 1
                if left == 0:
                    os._exit(9)

        sys.addaudithook(watch)
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["prepared", "activated", "replaced"])
def test_a_change_killed_between_two_file_operations_leaves_a_ring_that_works_and_can_be_finished(
    tmp_path: Path, later: Later, kind: str, number: int
) -> None:
    signing = load_ring(tmp_path, create=True).current.kid or ""
    step(tmp_path, later)
    later.wait(PUBLISHED_SECONDS + 1)
    if kind == "prepared":
        step(tmp_path, later)
        later.back_to_now()
        signing = load_ring(tmp_path, create=False).current.kid or ""
    replace = kind == "replaced"
    planned = plan(tmp_path, now=later(), replace=replace)
    assert planned.step == kind
    killed = killed_at(number, planned.carry_out)
    later.back_to_now()
    ring = load_ring(tmp_path, create=False)
    assert ring.current.kid in (signing, planned.fresh)
    if not replace:
        assert ring.find(signing) is not None
    # Again, as whoever saw the command die would.
    later.wait(PUBLISHED_SECONDS + 1)
    if ring.current.kid != planned.fresh and kind != "prepared":
        assert step(tmp_path, later, replace=replace) == kind
        ring = load_ring(tmp_path, create=False)
        assert ring.current.kid == planned.fresh
    assert ring.find(signing) is None or not replace
    assert killed or ring.find(planned.fresh) is not None
    for path in tmp_path.glob("*.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_changed_before_its_time(tmp_path: Path, later: Later) -> None:
    load_ring(tmp_path, create=True)
    assert step(tmp_path, later) == "prepared"
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TooEarly) as caught:
        step(tmp_path, later)
    assert 0 < caught.value.wait_s <= PUBLISHED_SECONDS + 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
