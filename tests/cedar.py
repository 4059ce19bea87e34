"""A second opinion on decisions: the tables as Cedar policies, and their verdict on a request, field by field.

Written from the tables and the law, not from ``consent/decision.py``: what protects comes as ``forbid``, what an
agreement opens as ``permit``, and each agreement that covers a request also forbids what it does not open itself,
because the narrower of two counts. A field is asked for at four levels of detail; the highest allowed is how it leaves.
"""

from __future__ import annotations

import json
from calendar import isleap
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import cedarpy

from consent.models import Agreement, Request, SubjectFacts
from consent.policy import Policy

Tables = Mapping[str, Mapping[str, Any]]
# Levels of detail, from nothing but a mask to the field as it is.
DETAIL = ("mask", "age-band", "district", "keep")
WHOLE = len(DETAIL) - 1
_SECOND = 1_000_000
_FOREVER = 2**62
_UNDER_A_DUTY = ("official-authority", "legal-obligation")
_LABELLED_ALIKE = {
    "service": ("identifiers", "given_names", "surnames", "birth_date", "sex", "department", "district"),
    "replies": (
        *("event", "occurred_on", "outcome", "reason_code"),
        *("reason_text", "appointment_at", "place", "proof_reference"),
    ),
}


class Verdict(NamedTuple):
    """What Cedar says: how each released field leaves, and for a denial whether only the person stood in the way."""

    released: Mapping[str, str]
    emergency: bool
    hides_subject: bool


class Asked(NamedTuple):
    """One request with what the decision may look at."""

    request: Request
    facts: SubjectFacts
    used: Mapping[str, int]


class SecondOpinion:
    """The policies of one set of tables, parsed once."""

    def __init__(self, policy: Policy, tables: Tables, datasets: Sequence[str], names: Sequence[str]) -> None:
        """``datasets`` and ``names`` are all that requests will ask for."""
        self.text = cedar_text(policy, tables)
        self._policies = cedarpy.PolicySet.from_str(self.text)
        self._entities = cedarpy.Entities.from_json_str(
            json.dumps([*_fields(datasets, names, tables), *_holders(policy)])
        )

    def verdicts(self, cases: Sequence[Asked]) -> list[Verdict]:
        """Ask Cedar in rounds: what the request alone opens, what the person leaves of it, and in what detail."""
        # Who asks is an entity, so that all the questions of a case share what would be read again as their context.
        askers = [_asker(at, case) for at, case in enumerate(cases)]
        entities = self._entities.with_added_json_str(json.dumps(askers))
        opened = self._open("exchange", cases, entities, range(len(cases)))
        claims = [at for at, case in enumerate(cases) if case.request.emergency is not None and not opened[at][1]]
        broken = self._open("break-glass", cases, entities, claims)
        verdicts = []
        for at in range(len(cases)):
            alone, left = opened[at]
            glass_alone, glass_left = broken.get(at, (False, {}))
            hidden = alone and not left
            if glass_left:
                verdicts.append(Verdict(glass_left, True, False))
            else:
                verdicts.append(Verdict(left, False, hidden or glass_alone))
        return verdicts

    def _open(
        self, action: str, cases: Sequence[Asked], entities: cedarpy.Entities, which: Sequence[int]
    ) -> dict[int, tuple[bool, dict[str, str]]]:
        """Return of each case whether the request alone opens anything, and the fields left at their highest detail."""
        least = {at: 0 if cases[at].request.action == "disclosure.fetch" else WHOLE for at in which}
        alone = self._allowed(
            action,
            [(at, name, least[at]) for at in which for name in set(cases[at].request.fields)],
            cases,
            entities,
            person=False,
        )
        # The second round asks of every field again: on consent, an agreement nobody consented to narrows nothing.
        going_on = {at for at, _name in alone}

        def ask(detail: int, of: Iterable[tuple[int, str]]) -> set[tuple[int, str]]:
            return self._allowed(action, [(at, name, detail) for at, name in of], cases, entities, person=True)

        fields = [(at, name) for at in going_on for name in set(cases[at].request.fields)]
        shown = ask(0, [each for each in fields if least[each[0]] == 0])
        whole = ask(WHOLE, [each for each in fields if each in shown or least[each[0]] == WHOLE])
        left: dict[int, dict[str, str]] = {at: {} for at in which}
        for detail, found in (
            (0, shown),
            *((detail, ask(detail, shown - whole)) for detail in range(1, WHOLE)),
            (WHOLE, whole),
        ):
            for at, name in found:
                left[at][name] = DETAIL[detail]
        return {at: (at in going_on, left[at]) for at in which}

    def _allowed(
        self,
        action: str,
        questions: Sequence[tuple[int, str, int]],
        cases: Sequence[Asked],
        entities: cedarpy.Entities,
        *,
        person: bool,
    ) -> set[tuple[int, str]]:
        requests = [
            {
                "principal": f'Asker::"{at}"',
                "action": f'Action::"{action}"',
                "resource": f'Field::"{cases[at].request.dataset}/{name}"',
                "context": json.dumps({"detail": detail, "person": person}),
            }
            for at, name, detail in questions
        ]
        answers = cedarpy.is_authorized_batch(requests, self._policies, entities)
        for answer in answers:
            # A policy that cannot be evaluated is skipped, and a forbid that is skipped permits.
            if answer.diagnostics.errors:
                raise ValueError(f"Cedar could not evaluate: {answer.diagnostics.errors}")
        allowed = zip(questions, (answer.allowed for answer in answers), strict=True)
        return {(at, name) for (at, name, _detail), yes in allowed if yes}


def cedar_text(policy: Policy, tables: Tables) -> str:
    """Return the tables as Cedar policies: what is forbidden to everybody, then what each agreement opens."""
    rules = [*_request_rules(policy, tables), *_person_rules(tables), *_label_rules(tables), *_glass_rules(tables)]
    for agreement in policy.agreements.values():
        if agreement.status == "active":
            for dataset in agreement.datasets:
                rules.extend(_agreement_rules(agreement, dataset, policy, tables))
    return "\n\n".join(rules)


def _forbid(name: str, when: str, unless: str = "false", action: str = "action") -> str:
    return f'@id("{name}")\nforbid (principal, {action}, resource)\nwhen {{ {when} }}\nunless {{ {unless} }};'


def _request_rules(policy: Policy, tables: Tables) -> list[str]:
    parties = "[principal.caller.institution, principal.requester, principal.holder]"
    mediating = [role for role, spec in tables["roles"].items() if spec.get("acts_for_others")]
    verbs = '(principal.verb == "referral.send") == (resource.kind == "service")'
    verbs += ' && (principal.verb == "reply.poll") == (resource.kind == "replies")'
    return [
        _forbid("unknown-purpose", "true", f"{_set(tables['purposes'])}.contains(principal.purpose)"),
        _forbid("unknown-basis", "true", f"{_set(tables['legal-bases'])}.contains(principal.basis)"),
        _forbid("party-suspended", f"{_set(policy.suspended)}.containsAny({parties})"),
        _forbid("verb", "true", verbs),
        _forbid(
            "intermediary",
            "principal.requester != principal.caller.institution",
            _any(_role(role, tables) for role in mediating),
        ),
        _forbid("only-a-disclosure-reduces", f'principal.verb != "disclosure.fetch" && context.detail < {WHOLE}'),
    ]


def _person_rules(tables: Tables) -> list[str]:
    identity = [dataset for dataset, spec in tables["datasets"].items() if spec.get("identity")]
    unknown = f"""["reply.poll", "register.take"].contains(principal.verb)
  || (principal.verb == "referral.send" && principal.registers_subject)
  || (action == Action::"exchange" && principal.verb == "disclosure.fetch"
      && {_set(_UNDER_A_DUTY)}.contains(principal.basis)
      && {_set(identity)}.contains(resource.dataset))"""
    names = "[principal.caller.institution, principal.requester, principal.caller.person]"
    return [
        _forbid("sealed", "context.person && principal.subject.sealed"),
        _forbid("court-order", "context.person && principal.subject.court_order"),
        _forbid("barred", f"context.person && principal.subject.barred.containsAny({names})"),
        _forbid(
            "barred-recipient",
            'context.person && principal.verb == "referral.send"'
            " && principal.subject.barred.contains(principal.holder)",
        ),
        _forbid(
            "export-ban",
            "context.person && principal.subject.export_ban",
            "principal.requester == principal.holder",
        ),
        _forbid("unknown-subject", "context.person && !principal.subject.known", unknown),
        _forbid(
            "restricted",
            "context.person && principal.subject.restricted",
            'action == Action::"break-glass" || principal.subject.id == principal.caller.person',
        ),
        _forbid(
            "objection",
            "context.person && principal.subject.objections.contains(principal.purpose)",
            'action == Action::"exchange" && principal.basis == "legal-obligation"',
        ),
    ]


def _label_rules(tables: Tables) -> list[str]:
    rules = []
    for label, spec in tables["labels"].items():
        if "bases" in spec:
            rests = f"{_set(spec['bases'])}.contains(principal.basis)"
            if "vital-interest" in spec["bases"]:
                rests += ' || action == Action::"break-glass"'
            else:
                rests = f'action == Action::"exchange" && {rests}'
            rules.append(_forbid(f"basis of {label}", f'resource.label == "{label}"', rests))
        if "minimum_assurance" in spec:
            rules.append(
                _forbid(f"assurance of {label}", f'resource.label == "{label}"', _assured(spec["minimum_assurance"]))
            )
    nobody = [purpose for purpose, spec in tables["purposes"].items() if spec.get("identified") is False]
    rules.append(
        _forbid(
            "not-identified",
            f'{_set(nobody)}.contains(principal.purpose) && resource.label == "identifying"',
            "resource has reduced && context.detail <= resource.reduced",
        )
    )
    return rules


def _glass_rules(tables: Tables) -> list[str]:
    glass = 'action == Action::"break-glass"'
    fresh = f"principal.caller has login && principal.now >= principal.caller.login && {_assured(2)}"
    fresh += f" && principal.now - principal.caller.login <= {15 * 60 * _SECOND}"
    waits = "principal.caller.holder has waits_since && principal.now - principal.caller.holder.waits_since > "
    return [
        _forbid("emergency-verb", 'principal.verb != "disclosure.fetch"', action=glass),
        _forbid("emergency-for-another", "principal.requester != principal.caller.institution", action=glass),
        _forbid("emergency-nobody", "!(principal.caller has user)", action=glass),
        _forbid("emergency-role", "true", _who_may("emergency.use", tables), glass),
        _forbid("emergency-disclosure", "true", _who_may("disclosure.fetch", tables), glass),
        _forbid("emergency-login", "true", fresh, glass),
        _forbid("emergency-suspended", waits + str(72 * 3600 * _SECOND), action=glass),
        _forbid(
            "emergency-expired",
            "context.person && principal.subject has incident_ends && principal.subject.incident_ends <= principal.now",
            action=glass,
        ),
    ]


def _agreement_rules(agreement: Agreement, dataset: str, policy: Policy, tables: Tables) -> Iterable[str]:
    name = f"{agreement.code}@{agreement.version} {dataset}"
    visible = [
        field
        for field in agreement.datasets[dataset]
        if _label(dataset, field, tables) in agreement.labels and _label(dataset, field, tables) is not None
    ]
    ends = _FOREVER if agreement.valid_to is None else _instant(agreement.valid_to)
    both = f"""resource.dataset == {_text(dataset)}
  && principal.requester == {_text(agreement.requester)} && principal.holder == {_text(agreement.holder)}
  && {_set(agreement.channels)}.contains(principal.channel)
  && principal.now >= {_instant(agreement.valid_from)} && principal.now < {ends}
  && {_set(agreement.purposes)}.contains(principal.purpose)
  && {_assured(agreement.minimum_assurance)}"""
    some = f"principal.asked.containsAny({_set(visible)})"
    opens = f"{_set(visible)}.contains(resource.name)"
    for label, spec in tables["labels"].items():
        if spec.get("compartment"):
            holders = [
                role
                for role in agreement.roles
                if label in policy.compartments.get((agreement.requester, role), frozenset())
            ]
            held = _any(_role(role, tables) for role in sorted(holders))
            opens += f"\n  && (resource.label != {_text(label)} || {held})"
    for field, how in agreement.treatments.get(dataset, {}).items():
        opens += f"\n  && (resource.name != {_text(field)} || context.detail <= {DETAIL.index(how)})"
    bases = [agreed.basis for agreed in agreement.bases]
    ordinary = [basis for basis in bases if basis in _UNDER_A_DUTY or basis == "consent"]
    acting = _any(
        f"({_role(role, tables)} && {_set(tables['roles'][role]['actions'])}.contains(principal.verb))"
        for role in sorted(agreement.roles)
    )
    # On consent an agreement that has nothing of what was asked narrows nothing; under a duty it does.
    covers = f'{both}\n  && {_set(ordinary)}.contains(principal.basis)\n  && (principal.basis != "consent" || {some})'
    covers += f"\n  && {acting}"
    if agreement.volume_per_day is not None:
        used = f"principal.used[{_text(agreement.code)}]"
        covers += f"\n  && !(principal.used has {_text(agreement.code)} && {used} >= {agreement.volume_per_day})"
        exhausted = f"principal.used has {_text(agreement.code)} && {used} >= {agreement.volume_per_day}"
        under_duty = f'{both}\n  && {_set(ordinary)}.contains(principal.basis) && principal.basis != "consent"'
        spent = f"{under_duty}\n  && {acting}\n  && {exhausted}"
        yield _forbid(f"{name} used up", spent, action='action == Action::"exchange"')
    cited = f"(!(principal has cited) || principal.cited == {_text(agreement.code)})"
    by_consent = '(principal.basis == "consent" && context.person)'
    covers += f"\n  && (!{by_consent} || ({cited} && {_consent(agreement)}))"
    given = f"principal.subject.consents[{_text(agreement.code)}]"
    sensitive = [label for label, spec in tables["labels"].items() if spec.get("sensitive")]
    named = f"(!{_set(sensitive)}.contains(resource.label) || {given}.labels.contains(resource.label))"
    by_person = f"(!{by_consent} || ({given}.fields.contains(resource.name) && {named}))"
    action = 'action == Action::"exchange"'
    yield _permit(name, f"{cited}\n  && {covers}\n  && {opens}\n  && {by_person}", action)
    # Whether it narrows on consent is known with the person only.
    decided = '(principal.basis != "consent" || context.person)'
    yield _forbid(f"{name} alone", f"{covers}\n  && {decided}", f"{opens}\n  && {by_person}", action)
    if "vital-interest" in bases:
        action = 'action == Action::"break-glass"'
        covers = f"{both}\n  && {some}\n  && {_any(_role(role, tables) for role in sorted(agreement.roles))}"
        yield _permit(f"{name} in an emergency", f"{covers}\n  && {opens}", action)
        yield _forbid(f"{name} in an emergency alone", covers, opens, action)


def _permit(name: str, when: str, action: str) -> str:
    return f'@id("{name}")\npermit (principal, {action}, resource)\nwhen {{\n  {when}\n}};'


def _consent(agreement: Agreement) -> str:
    """A consent in force, by the person or by somebody who may act for them."""
    code = _text(agreement.code)
    given, by = f"principal.subject.consents[{code}]", f"principal.subject.consents[{code}].by"
    adult = "(principal.subject has of_age_at && principal.now >= principal.subject.of_age_at)"
    until_majority = f'(!["parent", "guardian"].contains({by}.kind) || (principal.subject has of_age_at && !{adult}))'
    return f"""(principal.subject.consents has {code}
    && {given}.state == "given" && {given}.at <= principal.now && principal.now < {given}.ends
    && {given}.scope == "{agreement.scope_sha256().hex()}" && {given}.purposes.contains(principal.purpose)
    && !principal.subject.deceased
    && (if {given} has by then {by}.known && {until_majority} && !principal.subject.barred.contains({by}.who)
          && {by}.since <= {given}.at && {by}.until > principal.now else {adult}))"""


def _role(role: str, tables: Tables) -> str:
    """A role that counts: granted here to a known operator who acts in it, or the institution's word is enough for it.

    The institution's word is nothing to whoever holds a role here that excludes the other.
    """
    claimed = f"principal.caller.roles.contains({_text(role)})"
    if role == "citizen":
        return f"(principal.caller.own_token && {claimed})"
    if "granted_by" not in tables["roles"][role]:
        excluding = [each for each, spec in tables["roles"].items() if role in spec.get("excludes", ())]
        return f"(!principal.caller.own_token && {claimed} && !{_any(_holds(each) for each in excluding)})"
    holder = _holds(role)
    acting = f"(!(principal.caller has user) || principal.caller.verified && {claimed})"
    return f"(!principal.caller.own_token && {holder} && {acting})"


def _holds(role: str) -> str:
    return f"(principal.caller.holder has {_text(role)} && principal.caller.holder[{_text(role)}] > principal.now)"


def _who_may(verb: str, tables: Tables) -> str:
    return _any(_role(role, tables) for role, spec in tables["roles"].items() if verb in spec["actions"])


def _assured(level: int) -> str:
    known = "" if level <= 1 else "principal.caller.verified && "
    return f"({known}principal.caller.assurance >= {level})"


def _any(parts: Iterable[str]) -> str:
    return f"({' || '.join(parts) or 'false'})"


def _set(values: Iterable[str]) -> str:
    return f"[{', '.join(_text(value) for value in sorted(values))}]"


def _text(value: str) -> str:
    return json.dumps(value)


def _instant(at: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _kind(dataset: str) -> str:
    return "service" if dataset.startswith("service:") else "replies" if dataset == "replies" else "register"


def _label(dataset: str, field: str, tables: Tables) -> str | None:
    kind = _kind(dataset)
    if kind != "register":
        return "identifying" if field in _LABELLED_ALIKE[kind] else None
    spec = tables["datasets"].get(dataset, {"fields": {}})["fields"].get(field)
    return None if spec is None else str(spec["label"])


def _fields(datasets: Sequence[str], names: Sequence[str], tables: Tables) -> Iterable[dict[str, Any]]:
    for dataset in datasets:
        for name in names:
            attributes: dict[str, Any] = {
                "dataset": dataset,
                "name": name,
                "kind": _kind(dataset),
                "label": _label(dataset, name, tables) or "",
            }
            spec = tables["datasets"].get(dataset, {"fields": {}})["fields"].get(name, {})
            if "reduced" in spec:
                attributes["reduced"] = DETAIL.index(spec["reduced"])
            yield {"uid": {"type": "Field", "id": f"{dataset}/{name}"}, "attrs": attributes, "parents": []}


def _holders(policy: Policy) -> Iterable[dict[str, Any]]:
    for institution, user in policy.assignments.keys() | policy.unreviewed.keys():
        held: dict[str, int] = {}
        for role, valid_to in policy.assignments.get((institution, user), ()):
            held[role] = max(held.get(role, 0), _FOREVER if valid_to is None else _instant(valid_to))
        if (institution, user) in policy.unreviewed:
            held["waits_since"] = _instant(policy.unreviewed[institution, user])
        yield {"uid": {"type": "Holder", "id": f"{institution}/{user}"}, "attrs": held, "parents": []}


def _asker(at: int, case: Asked) -> dict[str, Any]:
    """Return who asks as an entity: all that the request says, and what is known of the person asked about."""
    request, who = case.request, case.request.caller
    name = f"client:{who.client_id}" if who.user is None else who.user
    caller: dict[str, Any] = {
        "institution": who.institution,
        "verified": who.user_verified,
        "assurance": who.assurance,
        "roles": sorted(who.roles),
        "own_token": who.person is not None,
        "person": str(who.person),
        "holder": {"__entity": {"type": "Holder", "id": f"{who.institution}/{name}"}},
    }
    if who.user is not None:
        caller["user"] = who.user
    if who.authenticated_at is not None:
        caller["login"] = _instant(who.authenticated_at)
    attributes: dict[str, Any] = {
        "caller": caller,
        "requester": request.requester,
        "holder": request.holder,
        "verb": request.action,
        "asked": sorted(set(request.fields)),
        "purpose": request.purpose,
        "basis": request.basis,
        "channel": request.channel,
        "now": _instant(request.at),
        "registers_subject": request.registers_subject,
        "used": dict(case.used),
        "subject": _person(case),
    }
    if request.agreement is not None:
        attributes["cited"] = request.agreement
    return {"uid": {"type": "Asker", "id": str(at)}, "attrs": attributes, "parents": []}


def _person(case: Asked) -> dict[str, Any]:
    facts, request = case.facts, case.request
    person: dict[str, Any] = {
        "known": facts.subject is not None,
        "deceased": facts.deceased,
        "sealed": facts.sealed,
        "court_order": facts.court_order,
        "export_ban": facts.export_ban,
        "id": "" if facts.subject is None else str(facts.subject),
        "restricted": any(
            _midnight(each.until + timedelta(days=1)) > _instant(request.at)
            and each.holder in ("", request.holder)
            and each.dataset in ("", request.dataset)
            for each in facts.restrictions
        ),
        "barred": sorted(facts.barred),
        "objections": sorted(facts.objections),
        "consents": _consents(facts),
    }
    if facts.birth_date is not None:
        person["of_age_at"] = _of_age_at(facts.birth_date)
    key = (request.caller.institution, request.caller.user, request.dataset)
    if request.emergency is not None:
        ends = [
            _instant(glass.expires_at)
            for glass in facts.glasses
            if (glass.institution, glass.user, glass.dataset) == key and glass.incident == request.emergency.incident
        ]
        if ends:
            person["incident_ends"] = min(ends)
    return person


def _of_age_at(born: date) -> int:
    """Midnight in Asunción (UTC-3) of the eighteenth birthday; of somebody born on 29 February, on 1 March."""
    never = (born.month, born.day) == (2, 29) and not isleap(born.year + 18)
    return _midnight(date(born.year + 18, 3, 1) if never else born.replace(year=born.year + 18))


def _midnight(day: date) -> int:
    """When a day begins in Asunción (UTC-3)."""
    return _instant(datetime(day.year, day.month, day.day, 3, tzinfo=UTC))


def _consents(facts: SubjectFacts) -> dict[str, Any]:
    """The newest record under each agreement; of two of one instant the one that is no consent."""
    newest: dict[str, Any] = {}
    for consent in sorted(facts.consents, key=lambda each: (each.given_at, each.state != "given", each.id)):
        record: dict[str, Any] = {
            "state": consent.state,
            "at": _instant(consent.given_at),
            "ends": _FOREVER if consent.expires_at is None else _instant(consent.expires_at),
            "scope": "" if consent.scope_sha256 is None else consent.scope_sha256.hex(),
            "purposes": sorted(consent.purposes),
            "fields": sorted(consent.fields),
            "labels": sorted(consent.labels),
        }
        if consent.representation is not None:
            record["by"] = {"known": False, "kind": "", "who": "", "since": 0, "until": 0}
            for mandate in facts.representations:
                if mandate.id == consent.representation:
                    ends = [each for each in (mandate.valid_to, mandate.ended_at) if each is not None]
                    record["by"] = {
                        "known": True,
                        "kind": mandate.kind,
                        "who": str(mandate.representative),
                        "since": _instant(mandate.valid_from),
                        "until": min(map(_instant, ends), default=_FOREVER),
                    }
        newest[consent.agreement] = record
    return newest
