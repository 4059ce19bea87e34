"""What the FHIR reader refuses, each with its place; and that nothing hostile ends in anything else."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from fhir_examples import BASE, SPECIALTY, TEI, Change, assert_accounted, changed, message, resource, review
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.standards.fhir import (
    FhirError,
    read_message,
)
from gateway.standards.fhir.tree import MAX_DEPTH, MAX_VALUES


def _set(place: int, name: str, value: Any) -> Change:
    return lambda document: resource(document, place).update({name: value})


def _entry(place: int, name: str, value: Any) -> Change:
    return lambda document: document["entry"][place].update({name: value})


def _top(name: str, value: Any) -> Change:
    return lambda document: document.update({name: value})


def _drop(place: int, name: str) -> Change:
    return lambda document: resource(document, place).pop(name)


def _event(code: Any, system: Any = f"{TEI}/CodeSystem/CSTipoEventoLE") -> Change:
    return _set(0, "eventCoding", {"system": system, "code": code})


def _nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


REFUSED: list[tuple[Change, str, str]] = [
    (_top("resourceType", "Patient"), "/resourceType", "structure"),
    (_top("type", "transaction"), "/type", "structure"),
    (_top("type", ["message"]), "/type", "structure"),
    (_top("timestamp", "2024-05-02"), "/timestamp", "value"),
    (_top("timestamp", "0001-01-01T00:00:00+14:00"), "/timestamp", "value"),
    (_top("timestamp", 20240502), "/timestamp", "structure"),
    (_top("implicitRules", "http://rules.example"), "/implicitRules", "not-supported"),
    (_top("entry", {}), "/entry", "structure"),
    (_top("entry", []), "/entry", "required"),
    (_top("entry", ["x"]), "/entry/0", "structure"),
    (lambda d: d["entry"].extend({"resource": {"resourceType": "Basic"}} for _ in range(197)), "/entry", "too-costly"),
    (lambda d: d["entry"].reverse(), "/entry/0/resource/resourceType", "invariant"),
    (_entry(2, "resource", None), "/entry/2/resource", "required"),
    (_entry(2, "resource", {"id": "x"}), "/entry/2/resource", "required"),
    (_entry(2, "fullUrl", 7), "/entry/2/fullUrl", "structure"),
    (_entry(2, "fullUrl", f"{BASE}/ServiceRequest/1"), "/entry/2/fullUrl", "duplicate"),
    (_entry(2, "fullUrl", f"{BASE}/Patient/1/_history/1"), "/entry/2/fullUrl", "invariant"),
    (_drop(0, "eventCoding"), "/entry/0/resource/eventCoding", "required"),
    (_event("iniciar", "http://else.example"), "/entry/0/resource/eventCoding/system", "code-invalid"),
    (_event("cerrar"), "/entry/0/resource/eventCoding/code", "code-invalid"),
    (_event("priorizar"), "/entry/0/resource/eventCoding/code", "not-supported"),
    (_event("agendar"), "/entry/0/resource/eventCoding/code", "not-supported"),
    (_event("atender"), "/entry/0/resource/eventCoding/code", "not-supported"),
    (_event("terminar"), "/entry/0/resource/eventCoding/code", "not-supported"),
    (_event(["iniciar"]), "/entry/0/resource/eventCoding/code", "structure"),
    (_set(0, "response", {"identifier": "x", "code": "ok"}), "/entry/0/resource/response", "not-supported"),
    (_drop(0, "source"), "/entry/0/resource/source", "required"),
    (_set(0, "source", {"endpoint": " "}), "/entry/0/resource/source/endpoint", "value"),
    (_set(0, "source", [{}]), "/entry/0/resource/source", "structure"),
    (_drop(0, "focus"), "/entry/0/resource/focus", "required"),
    (_set(0, "focus", {"reference": "ServiceRequest/1"}), "/entry/0/resource/focus", "structure"),
    (_set(0, "focus", [{"reference": "ServiceRequest/9"}]), "/entry/0/resource/focus/0/reference", "not-found"),
    (_set(0, "focus", [{"reference": "#x"}]), "/entry/0/resource/focus/0/reference", "not-found"),
    (_set(0, "focus", [{"display": "x"}]), "/entry/0/resource/focus/0/reference", "not-found"),
    (_set(0, "focus", [{"reference": {}}]), "/entry/0/resource/focus/0/reference", "structure"),
    (_set(0, "focus", [{"reference": "Patient/1"}]), "/entry/0/resource/focus", "invariant"),
    (_set(1, "modifierExtension", [{"url": "x"}]), "/entry/1/resource/modifierExtension", "extension"),
    (_set(2, "implicitRules", "http://rules.example"), "/entry/2/resource/implicitRules", "not-supported"),
    (_drop(1, "subject"), "/entry/1/resource/subject", "required"),
    (_set(1, "subject", {"display": "Ana"}), "/entry/1/resource/subject", "required"),
    (_set(1, "subject", {"reference": "#nobody"}), "/entry/1/resource/subject/reference", "not-found"),
    (_set(1, "subject", {"reference": "#o1"}), "/entry/1/resource/subject/reference", "value"),
    (_set(1, "subject", {"reference": "Group/1"}), "/entry/1/resource/subject/reference", "value"),
    (_set(1, "subject", "Patient/1"), "/entry/1/resource/subject", "structure"),
    (_drop(1, "status"), "/entry/1/resource/status", "required"),
    (_set(1, "status", "entered-in-error"), "/entry/1/resource/status", "business-rule"),
    (_set(1, "status", "revoked"), "/entry/1/resource/status", "business-rule"),
    (_drop(1, "intent"), "/entry/1/resource/intent", "required"),
    (_set(1, "intent", "wish"), "/entry/1/resource/intent", "code-invalid"),
    (_set(1, "doNotPerform", True), "/entry/1/resource/doNotPerform", "business-rule"),
    (_set(1, "doNotPerform", "true"), "/entry/1/resource/doNotPerform", "structure"),
    (_set(1, "priority", "high"), "/entry/1/resource/priority", "code-invalid"),
    (_set(1, "priority", 1), "/entry/1/resource/priority", "structure"),
    (_set(1, "authoredOn", "ayer"), "/entry/1/resource/authoredOn", "value"),
    (_set(1, "authoredOn", "2024-02-31"), "/entry/1/resource/authoredOn", "value"),
    (_set(1, "authoredOn", "2024-05-01T10:00:00"), "/entry/1/resource/authoredOn", "value"),
    (
        _set(1, "extension", [{"url": SPECIALTY, "valueCode": "3"}]),
        "/entry/1/resource/extension/0/valueCodeableConcept",
        "required",
    ),
    (_set(1, "extension", [{"url": SPECIALTY}] * 2), "/entry/1/resource/extension/1/url", "multiple-matches"),
    (_set(1, "extension", [None]), "/entry/1/resource/extension/0", "structure"),
    (_set(1, "reasonCode", [{"coding": {"code": "1"}}]), "/entry/1/resource/reasonCode/0/coding", "structure"),
    (_set(1, "reasonCode", [{"coding": [{"code": 1}]}]), "/entry/1/resource/reasonCode/0/coding/0/code", "structure"),
    (_set(2, "birthDate", "1990-02-31"), "/entry/2/resource/birthDate", "value"),
    (_set(2, "birthDate", "28/02/1990"), "/entry/2/resource/birthDate", "value"),
    (_set(2, "gender", "F"), "/entry/2/resource/gender", "code-invalid"),
    (_set(2, "name", [{"given": "Ana"}]), "/entry/2/resource/name/0/given", "structure"),
    (_set(2, "name", [{"given": ["Ana", 3]}]), "/entry/2/resource/name/0/given/1", "structure"),
    (_set(2, "name", [{"family": ""}]), "/entry/2/resource/name/0/family", "value"),
    (
        _set(2, "identifier", [{"system": "urn:x", "value": 4123456}]),
        "/entry/2/resource/identifier/0/value",
        "structure",
    ),
    (_set(2, "telecom", "0981"), "/entry/2/resource/telecom", "structure"),
    (_set(2, "note", "a\x00b"), "/entry/2/resource/note", "value"),
    (_set(2, "note", "\ud800"), "/entry/2/resource/note", "value"),
    (_set(2, "\udfff", "x"), "/entry/2/resource", "structure"),
    (_set(2, "note", 2**63), "/entry/2/resource/note", "value"),
    (_set(2, "note", float("nan")), "/entry/2/resource/note", "value"),
    (_set(2, "note", {1, 2}), "/entry/2/resource/note", "structure"),
    (_set(2, "note", list(range(MAX_VALUES))), "/entry/2/resource/note", "too-costly"),
]


@pytest.mark.parametrize(("change", "pointer", "code"), REFUSED)
def test_refuses_with_the_place_and_what_was_expected(change: Change, pointer: str, code: str) -> None:
    with pytest.raises(FhirError) as refused:
        read_message(changed(change))
    assert (refused.value.pointer, refused.value.code) == (pointer, code)
    assert refused.value.what


def test_refuses_more_levels_than_it_walks() -> None:
    room = MAX_DEPTH - len(("entry", 2, "resource", "note"))
    assert read_message(changed(_set(2, "note", _nested(room))))
    with pytest.raises(FhirError) as refused:
        read_message(changed(_set(2, "note", _nested(room + 1))))
    assert refused.value.code == "too-costly"
    with pytest.raises(FhirError):
        read_message(changed(_set(2, "note", _nested(100_000))))


@pytest.mark.parametrize("document", [None, [], "Bundle", 7, True, {}, [message()], {"resourceType": ["Bundle"]}])
def test_refuses_what_is_no_bundle_at_all(document: Any) -> None:
    with pytest.raises(FhirError, match="Bundle de tipo message"):
        read_message(document)


def test_a_refusal_repeats_no_value() -> None:
    for change, _pointer, _code in REFUSED:
        with pytest.raises(FhirError) as refused:
            read_message(changed(change))
        for private in ("4123456", "Ana", "Benítez", "1990", "ayer", "entered-in-error"):
            assert private not in str(refused.value)


def test_known_events_that_are_not_taken_are_named() -> None:
    with pytest.raises(FhirError, match=r"agendar.*iniciar, referenciar, revisar"):
        read_message(changed(_event("agendar")))


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["reference", "system", "value", "code", "coding", "url", "id"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for step, member in parts for place in _places(member, (*path, step)))][0 if path else 1 :]


_START, _REVIEW = message(), review("1", True)


@settings(max_examples=600, deadline=None)
@given(data=st.data())
def test_any_member_replaced_or_removed_ends_in_an_event_or_a_refusal(data: st.DataObject) -> None:
    document = copy.deepcopy(data.draw(st.sampled_from([_START, _REVIEW])))
    for _ in range(data.draw(st.integers(1, 3))):
        places = _places(document)
        if not places:
            break
        path = data.draw(st.sampled_from(places))
        holder: Any = document
        for step in path[:-1]:
            holder = holder[step]
        if data.draw(st.booleans()):
            holder[path[-1]] = data.draw(_anything)
        else:
            del holder[path[-1]]
    try:
        event = read_message(document)
    except FhirError as refused:
        json.dumps([refused.pointer, refused.what], ensure_ascii=False).encode()
    else:
        assert_accounted(document, event)


@settings(max_examples=200, deadline=None)
@given(document=_anything)
def test_any_json_ends_in_a_refusal(document: Any) -> None:
    with pytest.raises(FhirError):
        read_message(document)
