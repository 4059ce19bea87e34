"""Asks one witness to cosign a checkpoint (C2SP tlog-witness), and decides what its answer is worth.

Whatever it answers ends in an outcome with a code; only a cosignature that verifies is kept.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import httpx

from adapters.errors import CallFailed, ContractBroken
from adapters.http import COMMON_HEADERS, Answer, ask
from audit.verify import NotValid, check_cosignature, parse_note
from gateway.witnesses.policy import KnownWitness

CONNECT_S, WITHIN_S, MAX_BODY = 5.0, 10.0, 64 * 1024
#: How far a witness's clock may be from ours: a cosignature is a statement about a moment.
CLOCK_TOLERANCE = timedelta(minutes=5)
_ID_BYTES = 4
_TOLD = re.compile(rb"(0|[1-9][0-9]{0,18})\n\Z")

Outcome = Literal[
    "cosigned",
    "unavailable",  # no answer in time, or an error of the server's
    "garbage",  # an answer that is not the protocol
    "unknown-log",  # it does not know this log
    "signature-refused",  # it knows it under another key
    "not-a-prefix",  # it has cosigned something that this log does not continue
    "ahead",  # it has cosigned more of this log than there is
    "other-root",  # it has cosigned another log of the same size
    "refused",  # any other refusal
    "false-signature",  # its signature is not of its key, or of something else
    "wrong-clock",  # it signed a time far from ours
]
#: What honest trouble does not explain: somebody showed the witness another log than ours is now.
CONTRADICTIONS: frozenset[Outcome] = frozenset({"not-a-prefix", "ahead", "other-root"})

#: Gives the proof that so many leaves are a prefix of the head.
Prover = Callable[[int], Awaitable[list[bytes]]]


@dataclass(frozen=True, slots=True)
class Head:
    """A checkpoint to be cosigned: log (a year), size, and its note as the log signed it."""

    log: int
    size: int
    note: str


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of asking one witness about one head; ``line`` is its signature line where it cosigned."""

    witness: KnownWitness
    head: Head
    outcome: Outcome
    line: str | None = None


async def ask_witness(
    client: httpx.AsyncClient, witness: KnownWitness, head: Head, known: int, prove: Prover, now: Callable[[], datetime]
) -> Answered:
    """Ask for a cosignature, starting from the size the witness is ``known`` to have; once more from what it says."""
    try:
        async with asyncio.timeout(WITHIN_S):
            old = min(known, head.size)
            answer = await _post(client, witness, head, old, await prove(old))
            if answer.status == 409:
                told = _TOLD.match(answer.body)
                if told is None:
                    return Answered(witness, head, "garbage")
                size = int(told[1])
                if size == old:
                    return Answered(witness, head, "other-root" if size == head.size else "garbage")
                if size > head.size:
                    return Answered(witness, head, "ahead")
                old = size
                answer = await _post(client, witness, head, old, await prove(old))
    except (CallFailed, TimeoutError):
        return Answered(witness, head, "unavailable")
    except ContractBroken:
        return Answered(witness, head, "garbage")
    if answer.status == 200:
        return _cosigned(witness, head, answer, now())
    if answer.status == 409:
        return Answered(witness, head, "other-root" if old == head.size else "garbage")
    outcomes: dict[int, Outcome] = {403: "signature-refused", 404: "unknown-log", 422: "not-a-prefix"}
    unavailable: Outcome = "unavailable" if answer.status >= 500 or answer.status in (408, 429) else "refused"
    return Answered(witness, head, outcomes.get(answer.status, unavailable))


def request_body(old_size: int, proof: Sequence[bytes], note: str) -> bytes:
    """Write an add-checkpoint request."""
    lines = [f"old {old_size}", *(base64.b64encode(value).decode() for value in proof)]
    return ("\n".join(lines) + f"\n\n{note}").encode()


async def _post(
    client: httpx.AsyncClient, witness: KnownWitness, head: Head, old: int, proof: Sequence[bytes]
) -> Answer:
    headers = [*COMMON_HEADERS, ("Content-Type", "text/plain; charset=utf-8")]
    body = request_body(old, proof, head.note)
    request = client.build_request("POST", f"{witness.address}/add-checkpoint", content=body, headers=headers)
    return await ask(client, request, within_s=WITHIN_S, max_body=MAX_BODY)


def _cosigned(witness: KnownWitness, head: Head, answer: Answer, at: datetime) -> Answered:
    """Find the witness's line in its answer and verify it; lines of unknown keys are ignored."""
    text, _signatures = parse_note(head.note)
    try:
        _text, signatures = parse_note(f"{text}\n{answer.body.decode()}")
    except (NotValid, UnicodeDecodeError):
        return Answered(witness, head, "garbage")
    ours = [data for name, data in signatures if (name, data[:_ID_BYTES]) == (witness.key.name, witness.key.id)]
    if _text != text or not ours:
        return Answered(witness, head, "garbage")
    try:
        seconds = max(check_cosignature(witness.key, text, data) for data in ours)
    except NotValid:
        return Answered(witness, head, "false-signature")
    if abs(seconds - at.astimezone(UTC).timestamp()) > CLOCK_TOLERANCE.total_seconds():
        return Answered(witness, head, "wrong-clock")
    newest = max(ours, key=lambda data: data[_ID_BYTES:])
    return Answered(witness, head, "cosigned", f"— {witness.key.name} {base64.b64encode(newest).decode()}")
