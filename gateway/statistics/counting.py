"""Counts the funnel of a scope from the rows of referrals, which sum up their events, in one moment of the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, time
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.clock import PARAGUAY
from gateway.statistics.definitions import (
    GAP_FOUND,
    SPANS,
    STEPS,
    UNREFERRED,
    Place,
    place,
)
from gateway.statistics.models import Funnel, Scope, Span, Step

# Each condition stands for a member of the scope; values are always bound.
_CONDITIONS = {
    "department": "r.department = :department",
    "district": "r.district = :district",
    "requester": "r.requester = :requester",
    "recipient": "r.recipient = :recipient",
    "service": "r.service = :service",
    "population": ":population = ANY (r.population)",
    "category": "r.category = :category",
    "since": "r.created_at >= :since",
    "until": "r.created_at < :until",
    "party": ":party IN (r.requester, r.recipient)",
}
# A gap is of who lives there now; the institution is the one that gives the service.
_GAP_CONDITIONS = {
    "department": "s.department = :department",
    "district": "s.district = :district",
    "service": "g.key = :service",
    "population": ":population = ANY (s.populations)",
    "category": "g.value ->> 'category' = :category",
    "recipient": "g.key IN (SELECT code FROM siis.service WHERE institution = :recipient)",
    "party": "g.key IN (SELECT code FROM siis.service WHERE institution = :party)",
}
# Hashing a million pairs and sorting a million times must not go to the disk; compiling costs more than it saves.
_PREPARE = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
    "SET LOCAL work_mem = '96MB'",
    "SET LOCAL jit = off",
)
# Its columns are those of the extended statistics of migration 0019: by them the planner knows how few groups it gets.
_GROUPS = """
SELECT r.state, r.delivery, r.outcome, r.end_reason, r.requester, r.caller ->> 'channel' AS channel,
    num_nonnulls(coalesce(r.received_at, r.accepted_at), r.accepted_at) AS taken,
    r.status_changed_at IS NOT NULL AS status_changed, count(*) AS referrals,
    count(*) FILTER (WHERE r.no_shows > 0) AS no_show_referrals, coalesce(sum(r.no_shows), 0) AS no_shows,
    count(*) FILTER (WHERE r.reopened > 0) AS reopened_referrals, coalesce(sum(r.reopened), 0) AS reopened
FROM siis.referral AS r WHERE {where} GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
"""
_REPEATED = """
SELECT 'repeated' AS part, ARRAY[coalesce(sum(n - 1), 0), count(*) FILTER (WHERE n > 1)]::float8[] AS numbers
FROM (SELECT count(*) AS n FROM siis.referral AS r WHERE {where} GROUP BY r.person_id, r.service) AS pairs
"""
_SPAN = """
ARRAY[(count(*) FILTER (WHERE {counts}))::float8] || coalesce(
    percentile_disc(ARRAY[0.5, 0.9]) WITHIN GROUP (ORDER BY {seconds}) FILTER (WHERE {counts}),
    ARRAY[NULL, NULL]::float8[])
"""
_UNREFERRED = """
SELECT g.key AS service, count(*) AS gaps FROM siis.status AS s CROSS JOIN LATERAL jsonb_each(s.services) AS g
WHERE s.kind IN ('person', 'household') AND g.value ->> 'status' <> 'protected' AND {gaps}
    AND NOT EXISTS (
        SELECT FROM siis.referral AS r JOIN siis.person AS p ON p.id = r.person_id
        WHERE r.service = g.key AND coalesce(p.merged_into, p.id) = s.unit AND (r.closed_at IS NULL OR ({made})))
    AND NOT EXISTS (
        SELECT FROM siis.referral AS r JOIN siis.person AS p ON p.id = r.person_id
        WHERE r.service = g.key AND p.household_id = s.unit AND (r.closed_at IS NULL OR ({made})))
GROUP BY 1
"""


async def count(connection: AsyncConnection, scope: Scope, *, party: str | None, at: datetime) -> Funnel:
    """Return the funnel of a scope; ``party``: only referrals to or from this institution. Reads, and writes nothing.

    ``connection`` has no transaction yet: everything is counted in the same snapshot of the database.
    """
    values = _values(scope, party)
    where = _joined(_CONDITIONS, values)
    for statement in _PREPARE:
        await connection.execute(text(statement))
    groups = (await connection.execute(text(_GROUPS.format(where=where)), values)).all()
    # One statement, so that the database gives each part to a process of its own.
    codes = tuple(SPANS)
    first, second = codes[: len(codes) // 2], codes[len(codes) // 2 :]
    parts = (_REPEATED.format(where=where), _spans(first, where), _spans(second, where))
    told = await connection.execute(text(" UNION ALL ".join(f"({part})" for part in parts)), values)
    found: dict[str, Sequence[Any]] = {row.part: row.numbers for row in told}
    unreferred = await _unreferred(connection, scope, values) if scope.gaps else None
    pairs = found["repeated"]
    return Funnel(
        at=at,
        steps=_steps(groups, unreferred),
        spans=(*_read_spans(first, found["first"]), *_read_spans(second, found["second"])),
        unreferred=unreferred,
        reasons=_by(groups, lambda row: None if row.end_reason is None else (_place(row).ending, row.end_reason)),
        doors=_by(groups, lambda row: (row.channel, row.requester)),
        no_shows=(_sum(groups, "no_show_referrals"), _sum(groups, "no_shows")),
        reopened=(_sum(groups, "reopened_referrals"), _sum(groups, "reopened")),
        repeated=(int(pairs[0]), int(pairs[1])),
    )


async def _unreferred(connection: AsyncConnection, scope: Scope, values: Mapping[str, Any]) -> dict[str, int]:
    if scope.requester is not None:
        # Nobody has referred them yet, so they are no institution's.
        return {}
    made = _joined({name: _CONDITIONS[name] for name in ("since", "until")}, values)
    statement = _UNREFERRED.format(gaps=_joined(_GAP_CONDITIONS, values), made=made)
    return {row.service: row.gaps for row in await connection.execute(text(statement), values)}


def _values(scope: Scope, party: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(scope, name) for name in _CONDITIONS if name != "party"}
    for name in ("since", "until"):
        if values[name] is not None:
            values[name] = datetime.combine(values[name], time(), PARAGUAY)
    return {name: value for name, value in {**values, "party": party}.items() if value is not None}


def _joined(conditions: Mapping[str, str], values: Mapping[str, Any]) -> str:
    return " AND ".join(condition for name, condition in conditions.items() if name in values) or "true"


def _spans(codes: Sequence[str], where: str) -> str:
    name = "first" if codes[0] == next(iter(SPANS)) else "second"
    numbers = " || ".join(_SPAN.format(**SPANS[code]._asdict()) for code in codes)
    return f"SELECT '{name}', {numbers} FROM siis.referral AS r WHERE {where}"  # noqa: S608


def _read_spans(codes: Sequence[str], numbers: Sequence[Any]) -> Iterable[Span]:
    for index, code in enumerate(codes):
        referrals, median, p90 = numbers[3 * index : 3 * index + 3]
        yield Span(code, int(referrals), median, p90)


def _place(row: Row[Any]) -> Place:
    return place(
        state=row.state,
        delivery=row.delivery,
        outcome=row.outcome,
        received=row.taken >= 1,
        accepted=row.taken == 2,
        status_changed=row.status_changed,
    )


def _steps(groups: Sequence[Row[Any]], unreferred: Mapping[str, int] | None) -> tuple[Step, ...]:
    ended: dict[str, Counter[str]] = {code: Counter() for code in STEPS}
    for row in groups:
        found = _place(row)
        ended[found.step][found.ending] += row.referrals
    if unreferred is not None:
        ended[GAP_FOUND][UNREFERRED] = sum(unreferred.values())
    steps, reached = [], 0
    for code in reversed(STEPS):
        reached += ended[code].total()
        steps.append(Step(code, reached, {ending: n for ending, n in sorted(ended[code].items()) if n}))
    return tuple(reversed(steps))


def _by(groups: Sequence[Row[Any]], key_of: Callable[[Row[Any]], tuple[str, str] | None]) -> dict[tuple[str, str], int]:
    found: Counter[tuple[str, str]] = Counter()
    for row in groups:
        key = key_of(row)
        if key is not None:
            found[key] += row.referrals
    return dict(sorted(found.items()))


def _sum(groups: Sequence[Row[Any]], name: str) -> int:
    return sum(int(getattr(row, name)) for row in groups)
