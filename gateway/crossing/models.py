"""What a crossing is made of: answers with their source, findings with their weight, and the advice they add up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

State = Literal["found", "absent", "denied", "unavailable"]
Weight = Literal["for", "against", "look", "note"]
Verdict = Literal["meets", "does-not-meet", "look", "incomplete"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one question: facts when ``found``, else why not; ``absent`` is the source's own "nothing".

    ``denied`` is also what is answered of a person unknown here, or protected: nobody was asked, and that is all told.
    ``system`` and ``at`` (UTC) say who answered and as of when, the id of the entry in the log proves the disclosure.
    """

    dataset: str
    state: State
    facts: Mapping[str, Any]
    institution: str
    system: str
    at: datetime | None
    receipt: str | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the facts say: a stable code, what it weighs, the fact in words, and the answer it was read from."""

    code: str
    weight: Weight
    text: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class Advice:
    """What the facts add up to, for a person to decide.

    ``absent`` are the sources that say they have nothing; ``missing`` names what could not be learnt, and why.
    """

    verdict: Verdict
    findings: tuple[Finding, ...]
    absent: tuple[Answer, ...]
    missing: tuple[str, ...]
