"""The closing of an epoch killed again and again while others write: no key is lost, and the next call ends it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import psycopg

from audit.keys import Epochs
from gateway import embedded
from gateway.cli.db import bring_up
from gateway.settings import load_settings
from gateway.vault import load_epochs

PERSONS, KILLS = 40_000, 3
FINISH = "from gateway.cli.erasure import app; app(['finish', '--norm', 'Ley 7593/2025, art. 31', '--order', 'Res. 1'])"


def fill(url: str, epochs: Epochs) -> dict[UUID, bytes]:
    """Give many persons a key each, and return the keys."""
    keys = {uuid4(): os.urandom(32) for _ in range(PERSONS)}
    with (
        psycopg.connect(url) as connection,
        connection.cursor() as cursor,
        cursor.copy("COPY audit.subject_key (subject, pseudonym, wrapped_key, epoch) FROM STDIN") as copy,
    ):
        for subject, key in keys.items():
            copy.write_row((subject, uuid4(), epochs.wrap(subject, key), 1))
    return keys


def test_a_killed_closing_loses_no_key_and_is_ended_by_the_next_call(folders: Callable[[str], Path]) -> None:
    folder = folders("epoch")
    settings = load_settings(data_dir=folder)
    bring_up(settings, demonstration=False)
    url = embedded.start(folder).url(embedded.OWNER)
    keys = fill(url, load_epochs(settings.keys_dir, create=False))
    environment = {**os.environ, "SIIS_DATA_DIR": str(folder)}

    def moved() -> int:
        with psycopg.connect(url) as connection:
            found = connection.execute("SELECT count(*) FROM audit.subject_key WHERE epoch = 2").fetchone()
        return 0 if found is None else int(found[0])

    try:
        reached = [0]
        for _ in range(KILLS):
            process = subprocess.Popen([sys.executable, "-c", FINISH], env=environment)
            deadline = time.monotonic() + 60
            while moved() <= reached[-1]:
                assert process.poll() is None, "it ended by itself"
                assert time.monotonic() < deadline, "it never came so far"
            process.kill()
            process.wait()
            reached.append(moved())
        assert reached[-1] < PERSONS, "it was over before it was killed for the last time"
        assert {path.name for path in (settings.keys_dir / "epochs").glob("*.key")} == {"1.key", "2.key"}
        subprocess.run([sys.executable, "-c", FINISH], env=environment, check=True)
        epochs = load_epochs(settings.keys_dir, create=False)
        assert list(epochs.keys) == [2]
        with psycopg.connect(url) as connection:
            rows = connection.execute("SELECT subject, wrapped_key, epoch FROM audit.subject_key").fetchall()
            closed = connection.execute("SELECT number FROM audit.epoch WHERE destroyed_at IS NOT NULL").fetchall()
        opened = {subject: epochs.opened(epoch, subject, wrapped) for subject, wrapped, epoch in rows}
        assert {subject: opened[subject] for subject in keys} == keys
        assert closed == [(1,)]
    finally:
        embedded.stop(folder)
