"""Says how attempts are spaced: those of one message, and those to reach an institution that does not answer."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

_LONGEST_WAIT = timedelta(days=1)
_LONGEST_CLOSED = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Plan:
    """The first wait in seconds, doubled each time up to a day, and how many attempts in all.

    With the first wait of 5 s, twenty attempts take six days and a half.
    """

    first_wait_s: float
    attempts: int

    def wait(self, attempt: int) -> timedelta:
        """Return the pause after attempt number ``attempt`` (from 1), with a tenth of jitter."""
        seconds = min(self.first_wait_s * 2 ** (attempt - 1), _LONGEST_WAIT.total_seconds())
        return timedelta(seconds=seconds * random.uniform(0.9, 1.1))  # noqa: S311

    def closed(self, closings: int) -> timedelta:
        """Return for how long an institution gets nothing after it was found silent ``closings`` times in a row.

        Never longer than a minute: that it answers again is noticed by then, with one message a minute at most.
        """
        return min(timedelta(seconds=self.first_wait_s * 2 ** min(closings, 16)), _LONGEST_CLOSED)
