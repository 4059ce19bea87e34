"""Decides which counts of a funnel leave the circle of those who may see the persons behind them, and how exactly.

What is small is hidden by ``gateway/registry/suppression.py``; here stands which count is a part of which. What is left
is rounded, so that two answers to overlapping questions do not tell by how few they differ.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from gateway.registry.suppression import THRESHOLD, hidden, small
from gateway.statistics.definitions import GAP_FOUND, REFERRED, UNREFERRED

#: Counts are told as the nearest multiple of it; no less than what is hidden, or a difference of one would show.
ROUNDED_TO = THRESHOLD

_Key = Hashable
_HOURS, _DAYS = ("median_hours", "p90_hours"), ("median_days", "p90_days")
# A time ends with a step: how many it was taken of tells how many reached that.
_END_OF = {
    "gap_to_referral": "referred",
    "referral_to_receipt": "received",
    "receipt_to_acceptance": "accepted",
    "acceptance_to_delivery": "delivered",
    "delivery_to_status": "status_changed",
    "referral_to_delivery": "delivered",
}


def hide(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a funnel (JSON) without its small counts and what they could be worked out from, the others rounded.

    Times are whole hours. What adds up before need not add up after: ``rounded_to`` says so to whoever reads it.
    """
    return _rounded(_hidden(document))


def _hidden(document: Mapping[str, Any]) -> dict[str, Any]:
    everything = document["steps"][1]["reached"]
    doors: dict[_Key, int] = {("door", index): line["referrals"] for index, line in enumerate(document["doors"])}
    steps = _steps(document, frozenset())
    of_doors = _parts(doors, REFERRED, everything, also=steps & {REFERRED})
    if REFERRED in of_doors:
        steps = _steps(document, frozenset({REFERRED}))
        of_doors = _parts(doors, REFERRED, everything, also=frozenset({REFERRED}))
    return {
        **document,
        "steps": [
            {
                **step,
                "reached": None if step["step"] in steps else step["reached"],
                "endings": {
                    ending: None if (step["step"], ending) in steps else count
                    for ending, count in step["endings"].items()
                },
            }
            for step in document["steps"]
        ],
        "times": [_time(each, known=_END_OF[each["span"]] not in steps) for each in document["times"]],
        "unreferred": _unreferred(document, steps),
        "reasons": _reasons(document, steps),
        "doors": [
            {**line, "referrals": None if ("door", index) in of_doors else line["referrals"]}
            for index, line in enumerate(document["doors"])
        ],
        **{name: _few(document[name], everything) for name in ("no_shows", "reopened", "repeated")},
        "hidden_below": THRESHOLD,
    }


def hide_gaps(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a funnel without the small counts of gaps nobody referred, for who may see all the referrals in it."""
    if document["unreferred"] is None:
        return dict(document)
    counts: dict[_Key, int] = dict(document["unreferred"])
    found = _parts(counts, (GAP_FOUND, UNREFERRED), sum(counts.values()))
    steps = [dict(step) for step in document["steps"]]
    if (GAP_FOUND, UNREFERRED) in found:
        # The first step is the sum of these and of referrals, which this reader knows.
        steps[0] |= {"reached": None, "endings": dict.fromkeys(steps[0]["endings"])}
    else:
        total = _near(sum(counts.values()))
        steps[0] |= {"reached": steps[1]["reached"] + total, "endings": {UNREFERRED: total}}
    told = {service: None if service in found else _near(count) for service, count in document["unreferred"].items()}
    return {**document, "steps": steps, "unreferred": told, "hidden_below": THRESHOLD, "rounded_to": ROUNDED_TO}


def _rounded(document: Mapping[str, Any]) -> dict[str, Any]:
    """Round every count and time of a funnel, so that none tells by how few it differs from that of another."""
    return {
        **document,
        "steps": [
            {**step, "reached": _near(step["reached"]), "endings": _all_near(step["endings"])}
            for step in document["steps"]
        ],
        "times": [_whole_hours({**each, "referrals": _near(each["referrals"])}) for each in document["times"]],
        "unreferred": None if document["unreferred"] is None else _all_near(document["unreferred"]),
        **{
            name: [{**line, "referrals": _near(line["referrals"])} for line in document[name]]
            for name in ("reasons", "doors")
        },
        **{name: _all_near(document[name]) for name in ("no_shows", "reopened", "repeated")},
        "rounded_to": ROUNDED_TO,
    }


def _near(count: int | None) -> int | None:
    return None if count is None else ROUNDED_TO * round(count / ROUNDED_TO)


def _all_near(counts: Mapping[str, int | None]) -> dict[str, int | None]:
    return {name: _near(count) for name, count in counts.items()}


def _whole_hours(each: Mapping[str, Any]) -> dict[str, Any]:
    """Round the times of a span; days of the hours that are told, or both together would tell more."""
    hours = {name: None if each[name] is None else float(round(each[name])) for name in _HOURS}
    days = zip(_DAYS, hours.values(), strict=True)
    return {**each, **hours, **{name: None if told is None else round(told / 24, 1) for name, told in days}}


def _steps(document: Mapping[str, Any], also: frozenset[_Key]) -> frozenset[_Key]:
    """Each step's parts are the next step and its own endings; of the gaps without a referral, the services."""
    counts: dict[_Key, int] = {}
    total_of: dict[_Key, _Key] = {}
    before: _Key | None = None
    for step in document["steps"]:
        if step["reached"] is None:
            continue
        code = step["step"]
        counts[code] = step["reached"]
        if before is not None:
            total_of[code] = before
        for ending, count in step["endings"].items():
            counts[(code, ending)] = count
            total_of[(code, ending)] = code
        before = code
    for service, count in (document["unreferred"] or {}).items():
        counts[("unreferred", service)] = count
        total_of[("unreferred", service)] = (GAP_FOUND, UNREFERRED)
    return hidden(counts, total_of, also=also)


def _parts(
    counts: Mapping[_Key, int], total: _Key, everything: int, *, also: frozenset[_Key] = frozenset()
) -> frozenset[_Key]:
    return hidden({**counts, total: everything}, dict.fromkeys(counts, total), also=also)


def _unreferred(document: Mapping[str, Any], found: frozenset[_Key]) -> dict[str, int | None] | None:
    if document["unreferred"] is None:
        return None
    return {
        service: None if ("unreferred", service) in found else count
        for service, count in document["unreferred"].items()
    }


def _reasons(document: Mapping[str, Any], steps: frozenset[_Key]) -> list[dict[str, Any]]:
    """The reasons of an ending add up to that ending over all steps."""
    told = []
    for ending in dict.fromkeys(line["ending"] for line in document["reasons"]):
        of_ending = {line["reason"]: line for line in document["reasons"] if line["ending"] == ending}
        counts: dict[_Key, int] = {reason: line["referrals"] for reason, line in of_ending.items()}
        behind = any((step["step"], ending) in steps for step in document["steps"])
        total: _Key = ("ending", ending)
        found = _parts(counts, total, sum(counts.values()), also=frozenset({total}) if behind else frozenset())
        told += [
            {**line, "referrals": None if reason in found else line["referrals"]} for reason, line in of_ending.items()
        ]
    return told


def _time(each: Mapping[str, Any], *, known: bool) -> dict[str, Any]:
    if each["referrals"] < THRESHOLD:
        return {**dict.fromkeys(each), "span": each["span"]}
    return {**each, "referrals": each["referrals"] if known else None}


def _few(counted: Mapping[str, int], everything: int) -> dict[str, int | None]:
    if small(*counted.values(), everything - counted["referrals"]):
        return dict.fromkeys(counted)
    return dict(counted)
