"""A funnel as JSON, the one form in which it is answered, kept and compared; and as rows of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.statistics.definitions import GAP_FOUND, VERSION
from gateway.statistics.models import Funnel, Scope, Span
from schemas.codes import label

HOUR_S, DAY_S = 3600, 86_400
COLUMNS = ("part", "code", "name", "detail", "referrals", "of", "percent", "median_hours", "p90_hours")


def funnel_json(funnel: Funnel, scope: Scope) -> dict[str, Any]:
    """Return a funnel with every count as it is.

    Without the gaps nobody referred, how many gaps there were is not known: the first step is null then.
    """
    return {
        "definition": VERSION,
        "at": funnel.at.isoformat(),
        "scope": scope.said(),
        "steps": [
            {
                "step": step.code,
                "reached": None if step.code == GAP_FOUND and funnel.unreferred is None else step.reached,
                "endings": dict(step.endings),
            }
            for step in funnel.steps
        ],
        "times": [_span(span) for span in funnel.spans],
        "unreferred": funnel.unreferred,
        "reasons": [{"ending": key[0], "reason": key[1], "referrals": n} for key, n in funnel.reasons.items()],
        "doors": [{"channel": key[0], "requester": key[1], "referrals": n} for key, n in funnel.doors.items()],
        "no_shows": {"referrals": funnel.no_shows[0], "times": funnel.no_shows[1]},
        "reopened": {"referrals": funnel.reopened[0], "times": funnel.reopened[1]},
        "repeated": {"referrals": funnel.repeated[0], "pairs": funnel.repeated[1]},
    }


def with_shares(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a funnel with names, and each step's share of the one before it; null where either is not told."""
    steps, before = [], None
    for step in document["steps"]:
        told = {"name": label("funnel-steps", step["step"]), "of": before, "percent": percent(step["reached"], before)}
        steps.append({**step, **told})
        before = step["reached"]
    return {**document, "steps": steps}


def rows(document: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Return a funnel with shares as rows under :data:`COLUMNS`; what is hidden or not known is ``None``."""
    everything = document["steps"][1]["reached"]
    for step in document["steps"]:
        code = step["step"]
        yield "step", code, step["name"], None, step["reached"], step["of"], step["percent"], None, None
        for ending, referrals in step["endings"].items():
            share = percent(referrals, step["reached"])
            name = label("funnel-endings", ending)
            yield "ending", code, name, ending, referrals, step["reached"], share, None, None
    for span in document["times"]:
        name = label("funnel-spans", span["span"])
        yield "time", span["span"], name, None, span["referrals"], None, None, span["median_hours"], span["p90_hours"]
    for service, gaps in (document["unreferred"] or {}).items():
        yield "unreferred", service, label("services", service), None, gaps, None, None, None, None
    for each in document["reasons"]:
        name = label("reasons", each["reason"])
        yield "reason", each["ending"], name, each["reason"], each["referrals"], None, None, None, None
    for each in document["doors"]:
        share = percent(each["referrals"], everything)
        yield "door", each["channel"], None, each["requester"], each["referrals"], everything, share, None, None
    for part, detail in (("no_shows", "times"), ("reopened", "times"), ("repeated", "pairs")):
        counted = document[part]
        share = percent(counted["referrals"], everything)
        yield part, detail, None, counted[detail], counted["referrals"], everything, share, None, None


def percent(part: int | None, whole: int | None) -> float | None:
    """Return a share in percent to one decimal, or None where there is nothing to divide."""
    return None if part is None or not whole else round(100 * part / whole, 1)


def _span(span: Span) -> dict[str, Any]:
    def hours(seconds: float | None) -> float | None:
        return None if seconds is None else round(seconds / HOUR_S, 1)

    def days(seconds: float | None) -> float | None:
        return None if seconds is None else round(seconds / DAY_S, 1)

    return {
        "span": span.code,
        "referrals": span.referrals,
        "median_hours": hours(span.median),
        "p90_hours": hours(span.p90),
        "median_days": days(span.median),
        "p90_days": days(span.p90),
    }
