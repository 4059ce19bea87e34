"""Decides whether an outcome is what a case asks for: its type, its content, where it comes from, what it lets slip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from adapters.base import ProducerAdapter
from adapters.conformance.trials import Trial
from adapters.conformance.verbs import Bulk, Expected, Read, Verb
from adapters.models import (
    AlreadyTaken,
    Found,
    Malformed,
    NotFound,
    Page,
    Provenance,
    Rejected,
    Taken,
    Unavailable,
)
from adapters.resilience import DEFECT
from schemas.text import _

_OUTCOMES = (Found, NotFound, Rejected, Unavailable, Malformed, Taken, AlreadyTaken, Page, Read)
# Shorter texts of an answer may stand in a reason by chance.
_TELLING = 5


class Judge:
    """Judges the outcomes of one adapter; ``untold`` are its secrets."""

    def __init__(self, verb: Verb, adapter: ProducerAdapter, untold: Sequence[str]) -> None:
        self._verb, self._adapter, self._untold = verb, adapter, untold

    def wrong(self, trial: Trial, expected: Expected, outcome: Any) -> str:
        """Say what is wrong with an outcome, in words without its content; empty for nothing."""
        names = " or ".join(kind.__name__ for kind in expected.types)
        if type(outcome) not in _OUTCOMES:
            return _("{what}, que no es un resultado; se esperaba {names}").format(
                what=type(outcome).__name__, names=names
            )
        if type(outcome) not in expected.types:
            why = f" ({outcome.reason})" if isinstance(outcome, Unavailable | Malformed) else ""
            return _("{what}; se esperaba {names}").format(what=type(outcome).__name__ + why, names=names)
        if type(outcome) is expected.types[0] and (complaint := expected.check(outcome)):
            return complaint
        return next(self._slips(outcome), "") or next(self._failure(trial, outcome), "")

    def _slips(self, outcome: Any) -> Iterator[str]:
        """Say what is wrong with any outcome, whatever the case."""
        source = outcome.provenance
        if not isinstance(source, Provenance):
            yield _("sin procedencia")
        elif (source.adapter, source.institution) != (self._adapter.name, self._adapter.institution):
            yield _("con la procedencia de otro adaptador")
        elif source.at.utcoffset() is None:
            yield _("una hora sin su zona")
        if any(secret in repr(outcome) for secret in self._untold):
            yield _("el resultado muestra un secreto")

    def _failure(self, trial: Trial, outcome: Any) -> Iterator[str]:
        """Say what is wrong with an outcome that means failure: its reason, and the effect it may have had."""
        if not isinstance(outcome, Unavailable | Malformed):
            return
        if not outcome.reason:
            yield _("sin motivo")
        if outcome.reason == DEFECT:
            yield _("un defecto del adaptador en lugar de un resultado")
        if any(text in outcome.reason for text in self._telling()):
            yield _("el motivo muestra contenido de la respuesta")
        if outcome.effect_unknown is not (self._verb.effect and trial.acted):
            yield _("effect_unknown es {value}").format(value=outcome.effect_unknown)
        if self._verb.effect and not self._verb.manifest.deduplicates and outcome.provenance.attempts > 1:
            yield _("enviada otra vez a quien no la reconoce")
        # A register's rows are read when the call is over.
        if self._adapter.health.ok and not isinstance(self._verb, Bulk):
            yield _("el estado dice que todo está bien")

    def _telling(self) -> Iterator[str]:
        """Give the texts of the examples that no reason may hold, unless a field is called so."""
        for example in self._verb.examples.values():
            for text in _texts({name: item for name, item in example.content.items() if name != "answer"}):
                if len(text) >= _TELLING and text not in self._verb.fields():
                    yield text


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _texts(child)
