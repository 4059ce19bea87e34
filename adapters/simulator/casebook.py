"""An institution's own record of what it took and what it answered; decides that a referral has its effect once.

What is committed here survives ``kill -9`` and a restart. The effects are counted in a table without a unique key,
apart from the one that recognises a repeated referral, so that a fault in the latter shows as a count of two.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from adapters.simulator.behaviour import CANCEL, Step

_ASUNCION = ZoneInfo("America/Asuncion")
_TABLES = """
CREATE TABLE IF NOT EXISTS referral (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS effect (referral_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS answer (
    number INTEGER PRIMARY KEY AUTOINCREMENT, referral_id TEXT NOT NULL, due_at REAL NOT NULL, step TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending', turn INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0, next_try REAL NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS answer_due ON answer (due_at) WHERE state = 'pending';
CREATE INDEX IF NOT EXISTS answer_open ON answer (referral_id, number) WHERE state = 'pending';
CREATE UNIQUE INDEX IF NOT EXISTS answer_turn ON answer (turn) WHERE turn IS NOT NULL;
CREATE TABLE IF NOT EXISTS notice (id TEXT PRIMARY KEY, referral_id TEXT NOT NULL, kind TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS told (notice_id TEXT NOT NULL, kind TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer due: its row, the referral, what it says and the day (in Asunción) it happened."""

    number: int
    referral_id: str
    step: Step
    day: date
    attempts: int
    turn: int

    @property
    def appointment(self) -> datetime | None:
        """The hour given to the person, where the answer gives one."""
        if not self.step.appointment_days:
            return None
        day = self.day + timedelta(days=self.step.appointment_days)
        return datetime(day.year, day.month, day.day, 8, 30, tzinfo=_ASUNCION)


class CaseBook:
    """The record, in an SQLite file, or in memory where no file is given."""

    def __init__(self, file: Path | None) -> None:
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(file or ":memory:", isolation_level=None)
        # NORMAL in WAL mode: a commit survives the death of this process, which is all these tests ask for.
        self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;" + _TABLES)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def take(self, referral_id: str, steps: Iterable[Step], delays: tuple[float, float]) -> tuple[int, bool]:
        """Take a referral once and commit; return its number here and whether it is new."""
        first, last = delays
        now = time.time()
        with self._transaction() as db:
            known = db.execute("SELECT number FROM referral WHERE id = ?", (referral_id,)).fetchone()
            if known:
                return int(known[0]), False
            number = db.execute("INSERT INTO referral (id) VALUES (?)", (referral_id,)).lastrowid
            db.execute("INSERT INTO effect VALUES (?)", (referral_id,))
            db.executemany(
                "INSERT INTO answer (referral_id, due_at, step) VALUES (?, ?, ?)",
                [(referral_id, now + first + s.at * max(last - first, 0.0), json.dumps(asdict(s))) for s in steps],
            )
        return int(number or 0), True

    def note(self, notice_id: str, referral_id: str, kind: str, steps: Iterable[Step], delay: float) -> bool | None:
        """Take a notice about a referral once and commit; say whether it is new, None where no such referral is here.

        A cancellation takes back the answers not given yet; ``steps`` are given instead, after ``delay`` seconds.
        """
        with self._transaction() as db:
            if db.execute("SELECT 1 FROM referral WHERE id = ?", (referral_id,)).fetchone() is None:
                return None
            if db.execute("SELECT 1 FROM notice WHERE id = ?", (notice_id,)).fetchone():
                return False
            db.execute("INSERT INTO notice VALUES (?, ?, ?)", (notice_id, referral_id, kind))
            db.execute("INSERT INTO told VALUES (?, ?)", (notice_id, kind))
            if kind == CANCEL:
                db.execute("DELETE FROM answer WHERE referral_id = ? AND state = 'pending'", (referral_id,))
            due = time.time() + delay
            db.executemany(
                "INSERT INTO answer (referral_id, due_at, step) VALUES (?, ?, ?)",
                [(referral_id, due + step.at, json.dumps(asdict(step))) for step in steps],
            )
        return True

    def publish_due(self) -> None:
        """Give every answer now due its turn, in one row that only grows: a reader's place in it misses none."""
        with self._transaction() as db:
            due = db.execute(
                "SELECT number FROM answer WHERE state = 'pending' AND due_at <= ? ORDER BY due_at, number",
                (time.time(),),
            ).fetchall()
            turn = db.execute("SELECT coalesce(max(turn), 0) FROM answer").fetchone()[0]
            db.executemany(
                "UPDATE answer SET state = 'given', turn = ? WHERE number = ?",
                [(turn + place, number) for place, (number,) in enumerate(due, start=1)],
            )

    def published_after(self, turn: int, limit: int) -> list[Answer]:
        """Return at most ``limit`` answers that come after a turn."""
        return self._answers("turn > ? ORDER BY turn LIMIT ?", (turn, limit))

    def due(self, limit: int) -> list[Answer]:
        """Return the answers due now, only the oldest open one of each referral: an outcome never overtakes."""
        return self._answers(
            "state = 'pending' AND due_at <= ?1 AND next_try <= ?1 AND number = (SELECT min(number) FROM answer AS open"
            " WHERE open.referral_id = answer.referral_id AND open.state = 'pending') ORDER BY due_at, number LIMIT ?2",
            (time.time(), limit),
        )

    def _answers(self, where: str, parameters: tuple[float, ...]) -> list[Answer]:
        columns = "SELECT number, referral_id, due_at, step, attempts, coalesce(turn, 0) FROM answer WHERE "
        return [
            Answer(
                number=number,
                referral_id=referral_id,
                step=Step(**json.loads(step)),
                day=datetime.fromtimestamp(due_at, _ASUNCION).date(),
                attempts=attempts,
                turn=turn,
            )
            for number, referral_id, due_at, step, attempts, turn in self._db.execute(columns + where, parameters)
        ]

    def close_answers(self, numbers: Iterable[int], state: str) -> None:
        """Note that answers were ``given``, or ``refused`` for good by whoever should have taken them."""
        with self._transaction() as db:
            db.executemany("UPDATE answer SET state = ? WHERE number = ?", [(state, number) for number in numbers])

    def put_off(self, number: int, seconds: float) -> None:
        """Try an answer again after some seconds; the day it tells stays, or a repetition would be another message."""
        with self._transaction() as db:
            db.execute(
                "UPDATE answer SET attempts = attempts + 1, next_try = ? WHERE number = ?",
                (time.time() + seconds, number),
            )

    def given(self) -> int:
        """Count the answers given so far."""
        return int(self._db.execute("SELECT count(*) FROM answer WHERE state = 'given'").fetchone()[0])

    def remember(self, name: str, value: str) -> None:
        """Keep a setting across restarts."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, value))

    def recall(self, name: str) -> str | None:
        """Return a setting kept, if any."""
        row = self._db.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def ledger(self) -> dict[str, dict[str, int]]:
        """Return how often each referral had its effect, and how many answers are in which state."""
        received = self._db.execute("SELECT referral_id, count(*) FROM effect GROUP BY 1 ORDER BY 1").fetchall()
        states = self._db.execute("SELECT state, count(*) FROM answer GROUP BY 1").fetchall()
        told = self._db.execute("SELECT notice_id, count(*) FROM told GROUP BY 1 ORDER BY 1").fetchall()
        answers = {"pending": 0, "given": 0, "refused": 0, **dict(states)}
        return {"received": dict(received), "answers": answers, "told": dict(told)}

    def close(self) -> None:
        """Close the file."""
        self._db.close()
