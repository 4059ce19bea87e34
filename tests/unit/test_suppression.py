"""Hidden cells stay hidden: no hidden count follows from those shown, whatever is added and subtracted."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.registry.suppression import THRESHOLD, hidden, small

# A country, its departments and their districts: how many live in each district.
TREES = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=5), min_size=1, max_size=5)


def tree(districts: list[list[int]]) -> tuple[dict[str, int], dict[str, str]]:
    counts = {"country": sum(map(sum, districts))}
    total_of = {}
    for number, parts in enumerate(districts):
        counts[f"d{number}"], total_of[f"d{number}"] = sum(parts), "country"
        for place, part in enumerate(parts):
            counts[f"d{number}.{place}"], total_of[f"d{number}.{place}"] = part, f"d{number}"
    return counts, total_of


def computable(unknown: frozenset[str], total_of: dict[str, str]) -> set[str]:
    """Return the hidden cells that the sums tell: those that a combination of the equations leaves alone."""
    columns = sorted(unknown)
    rows = []
    for total in set(total_of.values()):
        row = [Fraction(0)] * len(columns)
        for key, sign in [(total, -1), *((part, 1) for part, of in total_of.items() if of == total)]:
            if key in unknown:
                row[columns.index(key)] += sign
        rows.append(row)
    reduced: list[list[Fraction]] = []
    for column in range(len(columns)):
        pivot = next((row for row in rows if row[column]), None)
        if pivot is None:
            continue
        rows.remove(pivot)
        pivot = [value / pivot[column] for value in pivot]
        rows = [[a - row[column] * b for a, b in zip(row, pivot, strict=True)] for row in rows]
        reduced = [[a - row[column] * b for a, b in zip(row, pivot, strict=True)] for row in reduced] + [pivot]
    return {columns[row.index(Fraction(1))] for row in reduced if sum(value != 0 for value in row) == 1}


@given(TREES)
def test_no_hidden_count_follows_from_those_shown(districts: list[list[int]]) -> None:
    counts, total_of = tree(districts)
    cut = hidden(counts, total_of)
    assert {key for key, count in counts.items() if small(count)} <= cut
    # A hidden count of nothing at all is no secret that was to be kept.
    assert not {key for key in computable(cut, total_of) if counts[key]}


@given(TREES)
def test_those_hidden_under_a_total_that_is_shown_do_not_sum_up_to_something_small(districts: list[list[int]]) -> None:
    counts, total_of = tree(districts)
    cut = hidden(counts, total_of)
    for total in set(total_of.values()) - cut:
        behind = [counts[part] for part, of in total_of.items() if of == total and part in cut]
        assert not behind or sum(behind) >= THRESHOLD


@given(TREES, st.randoms())
def test_what_a_caller_wants_hidden_is_kept_as_well(districts: list[list[int]], random: object) -> None:
    counts, total_of = tree(districts)
    also = random.sample(sorted(counts), 1)  # type: ignore[attr-defined]
    cut = hidden(counts, total_of, also=also)
    assert set(also) <= cut
    assert not {key for key in computable(cut, total_of) if counts[key]}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"a": 30, "b": 40}, set()),
        ({"a": 3, "b": 40, "c": 50}, {"a", "b"}),
        ({"a": 3, "b": 4, "c": 50}, {"a", "b"}),
        ({"a": 1, "b": 1, "c": 50, "d": 60}, {"a", "b", "c"}),
        ({"a": 3, "b": 0, "c": 0}, {"a", "total"}),
        ({"a": 0, "b": 0}, set()),
    ],
)
def test_the_smallest_other_part_is_hidden_with_a_small_one(parts: dict[str, int], expected: set[str]) -> None:
    counts = {**parts, "total": sum(parts.values())}
    assert hidden(counts, dict.fromkeys(parts, "total")) == expected
