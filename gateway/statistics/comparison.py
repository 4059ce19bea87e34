"""Compares two funnels of one definition: each share with its denominator, and the difference in percentage points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.statistics.view import percent


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return what changed from the first to the second, both with shares (``view.with_shares``).

    A step is compared by its share of the step before and of all referrals; what is hidden in one of them is null.
    """
    return {
        "definition": first["definition"],
        "first": _about(first),
        "second": _about(second),
        "steps": [
            {
                "step": one["step"],
                "name": one["name"],
                "of_previous": _shares((one["reached"], one["of"]), (two["reached"], two["of"])),
                "of_referred": _shares((one["reached"], _referred(first)), (two["reached"], _referred(second))),
            }
            for one, two in zip(first["steps"], second["steps"], strict=True)
        ],
        "times": [
            {
                "span": one["span"],
                **{
                    name: {"first": one[name], "second": two[name], "difference": _less(one[name], two[name])}
                    for name in ("referrals", "median_hours", "p90_hours")
                },
            }
            for one, two in zip(first["times"], second["times"], strict=True)
        ],
        "achievements": _achievements(first.get("achievements", []), second.get("achievements", [])),
    }


def _about(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: document[name] for name in ("id", "kind", "at", "scope") if name in document}


def _referred(document: Mapping[str, Any]) -> int | None:
    count: int | None = document["steps"][1]["reached"]
    return count


def _shares(first: tuple[int | None, int | None], second: tuple[int | None, int | None]) -> dict[str, Any]:
    one, two = percent(*first), percent(*second)
    return {
        "first": {"n": first[0], "of": first[1], "percent": one},
        "second": {"n": second[0], "of": second[1], "percent": two},
        "points": _less(one, two),
    }


def _achievements(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[dict[str, Any]]:
    after = {each["category"]: each for each in second}
    return [
        {
            "category": each["category"],
            **_shares((each["concurrent"], each["identified"]), (other["concurrent"], other["identified"])),
        }
        for each in first
        if (other := after.get(each["category"])) is not None
    ]


def _less(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else round(second - first, 1)
