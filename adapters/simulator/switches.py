"""The switches by which a test or the demonstration makes an institution misbehave."""

from __future__ import annotations

from collections.abc import Mapping

#: Switches that count requests still to spoil: 0 none, -1 all until changed.
_COUNTERS = ("fail_503", "reset", "garbage", "duplicate", "after_effect_reset")
#: Switches that hold a time, with what they start from; the last two may have a fraction.
_TIMES = {"latency_ms": 0, "token_life_s": 3600, "accept_after_s": 0.3, "outcome_after_s": 1.0}
_FRACTIONS = ("accept_after_s", "outcome_after_s")


class Switches:
    """The state of an institution's switches, all quiet at first."""

    def __init__(self) -> None:
        self._values: dict[str, float] = {**dict.fromkeys(_COUNTERS, 0), **_TIMES}

    def take(self, counter: str) -> bool:
        """Say whether the misbehaviour happens now, and count it down."""
        left = self._values[counter]
        if left > 0:
            self._values[counter] = left - 1
        return left != 0

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def change(self, values: Mapping[str, object]) -> None:
        """Set the switches named, or none of them: raise ValueError with the name of the first that cannot be."""
        checked: dict[str, float] = {}
        for name, value in values.items():
            whole = isinstance(value, int) and not isinstance(value, bool)
            if name not in self._values or not (whole or (name in _FRACTIONS and isinstance(value, float))):
                raise ValueError(name)
            checked[name] = float(str(value)) if name in _FRACTIONS else int(str(value))
            if not checked[name] >= (-1 if name in _COUNTERS else 0):
                raise ValueError(name)
        self._values.update(checked)

    def snapshot(self) -> dict[str, float]:
        """Return every switch with its value."""
        return dict(self._values)
