"""What holds for every decision, whatever the request, the person and the agreements."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta

from consent_examples import AT, IDENTITY, PERSON, agreement, caller, consent, request
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.decision import decide
from consent.models import (
    FETCH,
    POLL,
    REFERRAL_FIELDS,
    REPLIES,
    REPLY_FIELDS,
    SEND,
    TAKE,
    AgreedBasis,
    Agreement,
    ConsentFact,
    Request,
    SubjectFacts,
)
from consent.policy import Policy, build_policy, dataset_labels
from schemas.codes import code_list

ACTIONS = (FETCH, SEND, POLL, TAKE)
DATASETS = {
    "identity": (*IDENTITY, "profession"),
    "birth-entry": ("cedula", "entry_act"),
    "service:tekopora": REFERRAL_FIELDS,
    REPLIES: REPLY_FIELDS,
}
FIELDS = sorted({field for fields in DATASETS.values() for field in fields})
BASES = tuple(code_list("legal-bases"))
PURPOSES = ("service-provision", "public-benefit")
INSTITUTIONS = ("MDS", "PN-IDENT")
MOMENTS = st.integers(-3, 3).map(lambda days: AT + timedelta(days=days))
ENDS = st.none() | MOMENTS
STATUSES = st.sampled_from(("active", "active", "suspended", "draft"))


def some(*values: str) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(values), min_size=1)


@st.composite
def agreements(
    draw: st.DrawFn,
    status: st.SearchStrategy[str] = STATUSES,
    valid_from: st.SearchStrategy[datetime] = MOMENTS,
    valid_to: st.SearchStrategy[datetime | None] = ENDS,
) -> Agreement:
    dataset = draw(st.sampled_from(tuple(DATASETS)))
    return agreement(
        code=draw(st.sampled_from("ABC")),
        requester=draw(st.sampled_from(INSTITUTIONS)),
        holder=draw(st.sampled_from(INSTITUTIONS)),
        datasets={dataset: draw(some(*DATASETS[dataset]))},
        purposes=draw(some(*PURPOSES)),
        bases=tuple(AgreedBasis(basis, "norm") for basis in sorted(draw(some(*BASES)))),
        minimum_assurance=draw(st.integers(1, 3)),
        labels=frozenset({"identifying"}) | draw(st.frozensets(st.just("economic"))),
        roles=draw(some("operator", "system")),
        valid_from=draw(valid_from),
        valid_to=draw(valid_to),
        status=draw(status),
    )


@st.composite
def requests(draw: st.DrawFn) -> Request:
    dataset = draw(st.sampled_from(tuple(DATASETS)))
    return request(
        action=draw(st.sampled_from(ACTIONS)),
        caller=caller(
            institution=draw(st.sampled_from(INSTITUTIONS)),
            roles=draw(some("operator", "system", "intake", "auditor", "intermediary")),
            user_verified=draw(st.booleans()),
            assurance=draw(st.integers(0, 3)),
        ),
        on_behalf_of=draw(st.sampled_from((None, *INSTITUTIONS))),
        holder=draw(st.sampled_from(INSTITUTIONS)),
        dataset=dataset,
        fields=tuple(draw(st.lists(st.sampled_from(FIELDS), max_size=6))),
        purpose=draw(st.sampled_from((*PURPOSES, "nonsense"))),
        basis=draw(st.sampled_from((*BASES, "nonsense"))),
        agreement=draw(st.sampled_from((None, None, "A", "B"))),
        registers_subject=draw(st.booleans()),
    )


@st.composite
def consents(draw: st.DrawFn) -> ConsentFact:
    return consent(
        agreement=draw(st.sampled_from("ABC")),
        purposes=draw(some(*PURPOSES)),
        fields=draw(some(*FIELDS)),
        state=draw(st.sampled_from(("given", "given", "withdrawn", "refused", "expired"))),
        given_at=draw(MOMENTS),
        expires_at=draw(ENDS),
    )


PERSONS = st.builds(
    SubjectFacts,
    subject=st.sampled_from((None, PERSON)),
    birth_date=st.sampled_from((None, date(1980, 1, 1), date(2015, 1, 1))),
    deceased=st.booleans(),
    sealed=st.booleans(),
    objections=st.frozensets(st.sampled_from(PURPOSES)),
    consents=st.lists(consents(), max_size=3).map(tuple),
)
POLICIES = st.builds(
    build_policy, st.lists(agreements(), max_size=4), st.frozensets(st.sampled_from(INSTITUTIONS), max_size=1)
)


@st.composite
def likely(draw: st.DrawFn) -> tuple[Request, SubjectFacts, Policy]:
    """Draw a request that an agreement was made for, then perhaps spoil a part of it, so that permits are common."""
    made = draw(agreements(status=st.just("active"), valid_from=st.just(AT), valid_to=st.none()))
    dataset, fields = next(iter(made.datasets.items()))
    asked = request(
        action={"service:tekopora": SEND, REPLIES: POLL}.get(dataset, FETCH),
        caller=caller(institution=made.requester, roles=made.roles | {"system"}, user_verified=True, assurance=3),
        holder=made.holder,
        dataset=dataset,
        fields=(*sorted(fields), *draw(st.lists(st.sampled_from(FIELDS), max_size=2))),
        purpose=min(made.purposes),
        basis=draw(st.sampled_from(made.bases)).basis,
    )
    spoiled = draw(st.sampled_from(("nothing", "nothing", "nothing", "basis", "purpose", "holder", "caller")))
    if spoiled != "nothing":
        asked = replace(asked, **{spoiled: getattr(draw(requests()), spoiled)})
    answer = consent(agreement=made.code, purposes=made.purposes, fields=draw(some(*fields)))
    facts = SubjectFacts(subject=PERSON, birth_date=date(1980, 1, 1), consents=(answer,))
    return asked, draw(st.just(facts) | PERSONS), build_policy([*draw(st.lists(agreements(), max_size=1)), made])


CASES = likely() | likely() | st.tuples(requests(), PERSONS, POLICIES)


@given(CASES)
@settings(max_examples=200, deadline=None)
def test_what_is_released_was_asked_and_agreed_and_a_permit_exists_iff_not_denied(
    case: tuple[Request, SubjectFacts, Policy],
) -> None:
    asked, facts, policy = case
    answer = decide(asked, facts, policy)
    assert (answer.permit is None) == (answer.effect == "deny")
    assert (answer.reasons == ()) == (answer.effect != "deny")
    assert set(answer.reasons) <= set(code_list("denial-reasons"))
    assert set(answer.withheld.values()) <= set(code_list("withheld-reasons"))
    assert answer.hides_subject == any(code_list("denial-reasons")[code]["subject"] for code in answer.reasons)
    if answer.permit is None:
        assert answer.released == frozenset()
        return
    assert answer.released
    assert answer.permit.released == answer.released
    assert answer.released | answer.withheld.keys() == frozenset(asked.fields)
    assert answer.released.isdisjoint(answer.withheld)
    assert answer.effect == ("permit_redacted" if answer.withheld else "permit")
    assert answer.agreement is not None
    covering = policy.agreements[answer.agreement.code]
    labels = dataset_labels(asked.dataset)
    assert covering.status == "active"
    assert answer.released <= covering.datasets[asked.dataset]
    assert {labels[field] for field in answer.released} <= covering.labels
    assert asked.purpose in covering.purposes
    assert asked.basis in {agreed.basis for agreed in covering.bases}
    assert (covering.requester, covering.holder) == (asked.requester, asked.holder)
    assert covering.valid_from <= asked.at
    assert covering.valid_to is None or asked.at < covering.valid_to


@given(CASES)
@settings(max_examples=150, deadline=None)
def test_a_sealed_person_is_never_permitted(case: tuple[Request, SubjectFacts, Policy]) -> None:
    asked, facts, policy = case
    assert decide(asked, replace(facts, sealed=True), policy).permit is None


@given(CASES, st.sampled_from(INSTITUTIONS))
@settings(max_examples=100, deadline=None)
def test_nothing_passes_through_a_suspended_institution(
    case: tuple[Request, SubjectFacts, Policy], stopped: str
) -> None:
    asked, facts, policy = case
    answer = decide(asked, facts, replace(policy, suspended=frozenset({stopped})))
    assert answer.permit is None or stopped not in (asked.caller.institution, asked.requester, asked.holder)


@given(CASES)
@settings(max_examples=150, deadline=None)
def test_without_a_consent_given_nothing_is_released_on_consent(case: tuple[Request, SubjectFacts, Policy]) -> None:
    asked, facts, policy = case
    gone = tuple(replace(each, state="withdrawn") for each in facts.consents)
    answer = decide(replace(asked, basis="consent"), replace(facts, consents=gone), policy)
    assert answer.permit is None


@given(CASES, PERSONS)
@settings(max_examples=150, deadline=None)
def test_a_refusal_that_names_its_reason_is_the_same_for_every_person(
    case: tuple[Request, SubjectFacts, Policy], somebody_else: SubjectFacts
) -> None:
    asked, facts, policy = case
    answer, other = decide(asked, facts, policy), decide(asked, somebody_else, policy)
    if answer.effect == "deny" and not answer.hides_subject:
        assert (other.reasons, other.withheld, other.agreement) == (answer.reasons, answer.withheld, answer.agreement)


@given(CASES)
@settings(max_examples=50, deadline=None)
def test_the_same_input_gives_the_same_decision(case: tuple[Request, SubjectFacts, Policy]) -> None:
    first, second = decide(*case), decide(*case)
    assert first.id != second.id
    assert replace(first, permit=None) == replace(second, id=first.id, permit=None)


def test_the_cases_drawn_are_permitted_often_enough_to_mean_something() -> None:
    effects: list[str] = []

    @given(CASES)
    @settings(max_examples=100, deadline=None, database=None, derandomize=True)
    def draw(case: tuple[Request, SubjectFacts, Policy]) -> None:
        effects.append(decide(*case).effect)

    draw()
    assert sum(effect != "deny" for effect in effects) >= 15
