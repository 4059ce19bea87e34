"""A referral's story: told from its entries alone, without a name, and what is missing said to be missing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from audit.search import RawEntry
from gateway.dossier.bundles import page_of
from gateway.dossier.story import Story, tell
from schemas.canonical import canonical_json
from schemas.text import set_language

REFERRAL = "019a0000-0000-7000-8000-000000000001"
PERSON = "5f0c1e1e-0000-4000-8000-000000000009"
# Half past eleven at night of 12 October on a clock in Asunción.
START = datetime(2026, 10, 13, 2, 30, tzinfo=UTC)
DUTY = {
    "purpose": "service-access-determination",
    "basis": "official-authority",
    "norm": "Ley 6725/2021 art. 3",
    "agreement": ["UTGS-MDS", 2],
    "case": "EXP 12/2026",
}


def entry(number: int, kind: str, outcome: str = "done", *, erased: bool = False, **groups: Any) -> RawEntry:
    """An entry as it is read back for a proof, minutes after the one before."""
    at = START + timedelta(minutes=number)
    envelope = {
        "id": str(uuid4()),
        "at": at.isoformat().replace("+00:00", "Z"),
        "type": kind,
        "outcome": outcome,
        "subject": PERSON,
    }
    groups["exchange"] = {"referral": REFERRAL, **groups.get("exchange", {})}
    salted = None if erased else {name: {"salt": "AA==", "value": value} for name, value in groups.items()}
    return RawEntry(2026, number, canonical_json(envelope), envelope, salted)


def created(**changes: Any) -> RawEntry:
    actor = {"client": "utgs-1", "institution": "UTGS", "user": "ana", "user_verified": True, **changes}
    what = {
        "holder": "MDS",
        "dataset": "service:universal-pension",
        "released": ["given_names", "identifiers"],
        "withheld": {"birth_date": "not-in-agreement"},
    }
    exchange = {"state": "created", "recipient": "MDS"}
    return entry(0, "referral.created", "permit_redacted", actor=actor, why=DUTY, what=what, exchange=exchange)


def reported(number: int, event: str, before: str, after: str, **facts: Any) -> RawEntry:
    exchange = {"event": event, "state_before": before, "state_after": after, **facts}
    return entry(number, "counterreferral.received", actor={"institution": "MDS", "channel": "api"}, exchange=exchange)


def whole() -> list[RawEntry]:
    return [
        created(),
        entry(1, "referral.sending", "permit", actor={"client": "siis-delivery"}, exchange={"attempt": 2}),
        entry(2, "referral.transmitted", exchange={"recipient": "MDS", "attempts": 2, "outcome": "Taken"}),
        entry(3, "referral.read", actor={"client": "mds-1", "institution": "MDS", "user": "beto"}),
        reported(4, "accept", "received", "accepted"),
        reported(5, "outcome", "accepted", "completed", outcome="not_provided", reason="no-capacity"),
    ]


def test_it_says_who_asked_when_why_on_which_norm_and_what_came_of_it() -> None:
    story = tell(REFERRAL, whole())
    told = dict(story.summary)
    assert told["Quién pidió"] == "Unidad Técnica del Gabinete Social (UTGS)"
    assert told["Quién actuó"] == "usuario ana (identidad verificada), sistema utgs-1"
    assert told["A quién se dirigió"] == "Ministerio de Desarrollo Social (MDS)"
    assert told["Cuándo"] == "12/10/2026 23:30:00, entrada 0/2026"
    assert told["Finalidad"] == "Determinar el acceso a un servicio"
    assert (told["Norma"], told["Acuerdo"]) == ("Ley 6725/2021 art. 3", "UTGS-MDS versión 2")
    assert told["Estado al preparar este expediente"] == "terminada con un resultado"
    assert story.received == (("12/10/2026 23:35:00, entrada 5/2026", "Servicio no prestado (Sin cupo)"),)
    assert story.closed
    assert story.steps[0].withheld == (("Fecha de nacimiento", "El acuerdo no incluye el campo"),)
    assert story.steps[1].title.endswith("(intento 2)")
    assert [step.reading for step in story.steps] == [False, False, False, True, False, False]


def test_it_is_told_by_the_clock_although_numbers_may_run_otherwise() -> None:
    told, in_order = tell(REFERRAL, whole()[::-1]), tell(REFERRAL, whole())
    assert [step.number for step in told.steps] == [step.number for step in in_order.steps]
    assert told.turns == in_order.turns


def test_the_chain_of_responsibility_has_no_hole_and_ends_with_the_referral() -> None:
    turns = tell(REFERRAL, whole()).turns
    assert [(turn.who.split(" (")[0], turn.number) for turn in turns] == [
        ("La pasarela, por encargo de Unidad Técnica del Gabinete Social", "0/2026"),
        ("Ministerio de Desarrollo Social", "2/2026"),
        ("Ministerio de Desarrollo Social", "4/2026"),
    ]
    assert [turn.until for turn in turns[:-1]] == [turn.since for turn in turns[1:]]
    assert turns[-1].until == "12/10/2026 23:35:00"


@pytest.mark.parametrize(
    ("last", "who"),
    [
        (entry(3, "referral.undelivered", "failed", exchange={"reason": "effect-unknown"}), "Unidad Técnica"),
        (entry(3, "referral.withheld", "deny", decision={"reasons": ["sealed"]}), "Unidad Técnica"),
        (entry(3, "referral.sending", exchange={"attempt": 1}), "La pasarela"),
    ],
    ids=["undelivered", "withheld", "sending"],
)
def test_an_open_referral_is_still_somebodys(last: RawEntry, who: str) -> None:
    story = tell(REFERRAL, [created(), last])
    assert not story.closed
    assert story.turns[-1].who.startswith(who)
    assert story.turns[-1].until == ""


def test_what_was_erased_is_said_and_the_proven_rest_is_told() -> None:
    gone = [
        entry(number, kind, erased=True) for number, kind in enumerate(("referral.created", "referral.transmitted"))
    ]
    story = tell(REFERRAL, gone)
    assert (story.erased, story.received) == (2, ())
    assert [turn.who for turn in story.turns][-1] == "una institución que no consta"
    page = page_told(story)
    assert "Los detalles de 2 de 2 entradas fueron borrados" in page
    assert all(step.leaf in page and step.entry_id in page for step in story.steps)


def page_told(story: Story) -> str:
    return page_of(story, records=len(story.steps), sha256="ab" * 32, made_at="13/10/2026 10:00:00")


def test_the_page_stands_alone_and_runs_nothing() -> None:
    hostile = '<script>alert(1)</script><img src="http://127.0.0.1/x">'
    page = page_told(tell(REFERRAL, [created(user=hostile, client="a&b")]))
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    assert "default-src 'none'" in page
    assert not any(word in page for word in ("http://www", "https://", "<link", "@import", "url("))


def test_the_page_shows_every_step_with_number_and_leaf_and_no_internal_word_is_left_untold() -> None:
    story = tell(REFERRAL, whole())
    page = page_told(story)
    for step in story.steps:
        assert step.leaf in page
        assert f"Entrada {step.number}" in page
    assert PERSON in page
    words = ("not_provided", "no-capacity", "referral.", "accepted", "not-in-agreement", "None", "siis-delivery</h3>")
    assert not [word for word in words if word in page]


def test_the_page_is_spanish_whatever_language_is_in_force() -> None:
    spanish = page_told(tell(REFERRAL, sample := whole()))
    set_language("en")
    try:
        assert page_told(tell(REFERRAL, sample)) == spanish
    finally:
        set_language("es")
