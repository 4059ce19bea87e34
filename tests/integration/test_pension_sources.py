"""The sources of the pension case through their manifests: each simulated institution read into our own vocabulary."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from adapter_examples import permit
from test_simulator import PASSWORD, Simulator

from adapters.base import ProducerAdapter
from adapters.connections import Connection
from adapters.errors import ContractBroken
from adapters.files.adapter import FileAdapter
from adapters.manifest import load_manifest
from adapters.models import Found, Identifier, Malformed, NotFound, Rejected, RejectedRow, Row, Unavailable
from adapters.registry import SHIPPED, connect
from adapters.simulator.dossier import archive
from adapters.simulator.pension_cases import CASES
from schemas.codes import code_list

NAMES = (
    "registro-civil", "ips", "mds-beneficios", "mds-padron", "senadis", "indi", "migraciones", "dnit", "sfp", "mec",
    "mec-establecimientos", "mspbs-salud", "minna-abrazo", "mtess", "sfp-persona", "identificaciones",
)  # fmt: skip
CASE = {case.name: case for case in CASES}
EVERYBODY = archive(300, 1)
REGISTERS = [
    ("dnit", "ruc"),
    ("sfp", "payroll"),
    ("mds-padron", "pension-roll"),
    ("mds-padron", "tekopora-participation"),
    ("mec-establecimientos", "school-establishments"),
]


@pytest.fixture(scope="module")
def simulators() -> Iterator[dict[str, Simulator]]:
    with ThreadPoolExecutor(4) as pool:
        running = dict(zip(NAMES, pool.map(Simulator, NAMES), strict=True))
    yield running
    for simulator in running.values():
        simulator.kill()


class Deployment(NamedTuple):
    """Where the institutions are, and the folder with what opens them."""

    simulators: dict[str, Simulator]
    secrets: Path


@pytest.fixture(scope="module")
def deployment(simulators: dict[str, Simulator], tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    folder = tmp_path_factory.mktemp("pension")
    for name in NAMES:
        secret = load_manifest(SHIPPED / f"{name}.yaml").auth["secret"]
        (folder / secret).write_text(PASSWORD, encoding="utf-8")
    return Deployment(simulators, folder)


@asynccontextmanager
async def connected(deployment: Deployment, name: str) -> AsyncIterator[ProducerAdapter]:
    manifest = load_manifest(SHIPPED / f"{name}.yaml")
    ready = deployment.simulators[name].ready
    connection = Connection(ready["address"], ready.get("host_key", ""), manifest.source)
    adapter = connect(manifest, connection, deployment.secrets)
    if isinstance(adapter, FileAdapter):
        adapter.still_s = 0.001  # nobody is writing while a test reads
    try:
        yield adapter
    finally:
        await adapter.close()


async def ask(deployment: Deployment, name: str, dataset: str, cedula: str, **presented: str) -> Any:
    async with connected(deployment, name) as adapter:
        given = permit("disclosure.fetch", adapter.institution, dataset)
        return await adapter.fetch(given, dataset, Identifier("cedula", cedula), presented)


def somebody(wanted: str) -> str:
    """Somebody drawn who has this in the dossier."""
    named = {case.person.cedula for case in CASES}
    return next(number for number, item in EVERYBODY.items() if number not in named and getattr(item, wanted))


@pytest.mark.parametrize(
    ("name", "dataset", "case", "facts"),
    [
        ("identificaciones", "identity", "naturalised-14-years", {"nationality": "PARAGUAYA NATURALIZADA"}),
        ("sfp-persona", "identity", "on-payroll", {"origin": "copy", "birth_date": "1960-09-27"}),
        ("sfp-persona", "identity", "65-clear", {"origin": "register", "given_names": "Ramona Élida"}),
        ("registro-civil", "birth", "birth-dates-differ", {"birth_date": "1966-05-10", "surnames": "Arévalos Ñanduá"}),
        ("registro-civil", "death", "dead-on-roll", {"death_date": "2025-08-03"}),
        ("mds-beneficios", "pension-roll", "dead-on-roll", {"status": "active", "paid_until": "2026-10"}),
        ("mds-beneficios", "pension-roll", "alive-on-roll", {"status": "active", "since": "2021-04-01"}),
        (
            "ips", "social-insurance", "insured-contributing",
            {"insured_type": "holder", "enrolled": True, "last_period": "2026-10", "employers": 1},
        ),
        ("ips", "social-insurance", "insured-once", {"enrolled": False, "last_period": "2017-06"}),
        (
            "ips", "social-insurance", "other-pension",
            {"insured_type": "pensioner", "enrolled": True, "employers": 0, "life_certificate_until": "2027-01-31"},
        ),
        ("mtess", "employment", "insured-contributing", {"status": "active", "since": "2003-02-01"}),
        ("mtess", "employment", "insured-once", {"status": "ended"}),
        (
            "indi", "indigenous-community", "55-indigenous-registered",
            {"registered": True, "community_number": "INDI-0002", "people": "Nivaclé"},
        ),
        ("indi", "indigenous-community", "55-indigenous-not-registered", {"registered": False}),
        (
            "migraciones", "residence", "foreigner-30-years",
            {"entry_date": "1990-03-05", "resolution_date": "1990-02-14", "book": "permanent"},
        ),
        ("migraciones", "residence", "naturalised-3-years", {"entry_date": "2023-07-03"}),
        ("mspbs-salud", "health-controls", "65-clear", {"controls": 1, "last_control_on": "2026-09-02"}),
    ],
)  # fmt: skip
async def test_what_an_institution_says_of_a_named_applicant(
    deployment: Deployment, name: str, dataset: str, case: str, facts: dict[str, Any]
) -> None:
    person = CASE[case].person
    found = await ask(deployment, name, dataset, person.cedula or "")
    assert type(found) is Found, found
    assert facts.items() <= found.facts.items()
    assert found.facts.keys() <= code_list("datasets")[dataset]["fields"].keys()
    assert found.facts.get("cedula", person.cedula) == person.cedula


@pytest.mark.parametrize(
    ("name", "dataset", "case"),
    [
        ("registro-civil", "death", "alive-on-roll"),
        ("registro-civil", "birth", "foreigner-30-years"),
        ("mds-beneficios", "pension-roll", "65-clear"),
        ("mds-beneficios", "tekopora-participation", "65-clear"),
        ("ips", "social-insurance", "65-clear"),
        ("indi", "indigenous-community", "65-clear"),
        ("migraciones", "residence", "65-clear"),
        ("mec", "school-enrolment", "65-clear"),
        ("mspbs-salud", "vaccination", "65-clear"),
        ("minna-abrazo", "abrazo-participation", "65-clear"),
        ("mtess", "employment", "65-clear"),
    ],
)
async def test_nothing_about_somebody_is_not_found(deployment: Deployment, name: str, dataset: str, case: str) -> None:
    outcome = await ask(deployment, name, dataset, CASE[case].person.cedula or "")
    assert type(outcome) is NotFound, outcome


@pytest.mark.parametrize(
    ("name", "dataset", "wanted", "field"),
    [
        ("mec", "school-enrolment", "enrolment", "establishment"),
        ("mspbs-salud", "vaccination", "doses", "last_vaccine"),
        ("minna-abrazo", "abrazo-participation", "abrazo", "since"),
        ("mds-beneficios", "tekopora-participation", "tekopora", "household"),
    ],
)
async def test_what_an_institution_says_of_somebody_drawn(
    deployment: Deployment, name: str, dataset: str, wanted: str, field: str
) -> None:
    found = await ask(deployment, name, dataset, somebody(wanted))
    assert type(found) is Found, found
    assert found.facts[field]


@pytest.mark.parametrize(
    ("case", "facts"),
    [
        ("60-severe-certificate", {"match": True, "degree": "severe", "valid_until": "2029-05-06"}),
        ("60-moderate-certificate", {"match": True, "degree": "moderate"}),
        ("60-expired-certificate", {"match": True, "degree": "severe", "valid_until": "2024-02-11"}),
    ],
)
async def test_a_certificate_is_matched_at_the_source(deployment: Deployment, case: str, facts: dict[str, Any]) -> None:
    found = await certificate(deployment, case)
    assert type(found) is Found, found
    assert facts.items() <= found.facts.items()


async def test_of_somebody_elses_certificate_no_more_is_told(deployment: Deployment) -> None:
    found = await certificate(deployment, "60-certificate-of-another")
    assert type(found) is Found, found
    assert found.facts == {"cedula": "29900005", "certificate_number": "2024-000117", "match": False}


async def certificate(deployment: Deployment, case: str) -> Any:
    person = CASE[case].person
    return await ask(
        deployment,
        "senadis",
        "disability-certificate",
        person.cedula or "",
        certificate_number=CASE[case].shows_certificate or "",
        given_names=person.given_names,
        surnames=person.surnames,
    )


@pytest.mark.parametrize("missing", ["certificate_number", "given_names", "surnames"])
async def test_a_certificate_is_not_asked_for_without_all_the_person_shows(
    deployment: Deployment, missing: str
) -> None:
    shown = {"certificate_number": "2024-000117", "given_names": "Porfirio", "surnames": "Cabrera Noguera"}
    del shown[missing]
    outcome = await ask(deployment, "senadis", "disability-certificate", "29900002", **shown)
    assert type(outcome) is Rejected
    assert outcome.code == "incomplete-question"


@pytest.mark.parametrize(("switch", "kind"), [("fail_503", Unavailable), ("garbage", Malformed)])
@pytest.mark.parametrize(
    ("name", "dataset"),
    [("registro-civil", "birth"), ("ips", "social-insurance"), ("indi", "indigenous-community")],
)
async def test_an_institution_that_misbehaves(
    deployment: Deployment, name: str, dataset: str, switch: str, kind: type
) -> None:
    deployment.simulators[name].switch(**{switch: -1})
    outcome = await ask(deployment, name, dataset, CASE["65-clear"].person.cedula or "")
    deployment.simulators[name].switch(**{switch: 0})
    assert type(outcome) is kind, outcome


@pytest.mark.parametrize(
    ("name", "dataset", "case"),
    [("registro-civil", "death", "dead-on-roll"), ("migraciones", "residence", "foreigner-30-years")],
)
async def test_a_token_that_ends_is_got_again(deployment: Deployment, name: str, dataset: str, case: str) -> None:
    cedula = Identifier("cedula", CASE[case].person.cedula or "")
    async with connected(deployment, name) as adapter:
        given = permit("disclosure.fetch", adapter.institution, dataset)
        for life, kind in ((3600, Found), (0, Unavailable), (3600, Found)):
            deployment.simulators[name].switch(token_life_s=life)
            assert type(await adapter.fetch(given, dataset, cedula)) is kind


# Registers ----------------------------------------------------------------------------------------


async def take(deployment: Deployment, name: str, dataset: str) -> list[Row | RejectedRow]:
    """Take every file of a register there is."""
    rows: list[Row | RejectedRow] = []
    async with connected(deployment, name) as adapter:
        given, taken = permit("register.take", adapter.institution, dataset), set[bytes]()
        while True:
            register = await adapter.bulk(given, dataset, taken)
            if type(register) is NotFound:
                return rows
            if isinstance(register, Rejected | Unavailable | Malformed):
                raise ContractBroken(register.reason)
            taken.add(register.sha256)
            try:
                async for batch in register.rows():
                    rows.extend(batch)
            finally:
                await register.close()


@pytest.mark.parametrize(("name", "dataset"), REGISTERS)
async def test_every_row_of_a_register_is_read(deployment: Deployment, name: str, dataset: str) -> None:
    rows = await take(deployment, name, dataset)
    assert not [row for row in rows if isinstance(row, RejectedRow)]
    expected = {
        "ruc": sum(item.taxpayer is not None for item in EVERYBODY.values()) + 4,
        "payroll": sum(3 if item.post.contract == "PERMANENTE" else 1 for item in EVERYBODY.values() if item.post),
        "pension-roll": sum(item.pension is not None for item in EVERYBODY.values()),
        "tekopora-participation": sum(item.tekopora is not None for item in EVERYBODY.values()),
    }
    assert len(rows) == expected.get(dataset, len(rows))
    assert rows


async def test_the_registers_know_the_named_applicants(deployment: Deployment) -> None:
    found = {
        dataset: [row.facts for row in await take(deployment, name, dataset) if isinstance(row, Row)]
        for name, dataset in REGISTERS[:3]
    }
    taxpayers = {facts["cedula"]: facts for facts in found["ruc"]}
    assert taxpayers["29900018"]["status"] == "active"
    assert taxpayers["29900019"]["status"] == "cancelled"
    assert taxpayers["29900018"]["ruc"].startswith("29900018-")
    pay = [facts for facts in found["payroll"] if facts["cedula"] == "29900012"]
    assert sum(facts["accrued"] for facts in pay) == 4_887_500
    assert not any("disab" in name for facts in pay for name in facts)
    assert "29900016" in {facts["cedula"] for facts in found["pension-roll"]}


@contextmanager
def spoilt(simulator: Simulator) -> Iterator[None]:
    simulator.switch(garbage=1)
    simulator.control.post("/_control/publish").raise_for_status()
    yield
    simulator.control.post("/_control/publish").raise_for_status()


@pytest.mark.parametrize(
    ("name", "dataset", "column"), [("dnit", "ruc", "ruc dv"), ("mds-padron", "pension-roll", "cedula")]
)
async def test_too_many_bad_rows_are_named(deployment: Deployment, name: str, dataset: str, column: str) -> None:
    with spoilt(deployment.simulators[name]):
        rows = await take(deployment, name, dataset)
    rejects = [row for row in rows if isinstance(row, RejectedRow)]
    assert len(rejects) > load_manifest(SHIPPED / f"{name}.yaml").bulk[dataset].reject_over * len(rows)
    assert {reject.column for reject in rejects} == {column}


@pytest.mark.parametrize(
    ("name", "dataset", "why"),
    [
        ("sfp", "payroll", "not the md5 sum agreed"),
        ("mec-establecimientos", "school-establishments", "the header lacks codigo_establecimiento"),
    ],
)
async def test_what_is_not_the_file_agreed_is_refused(
    deployment: Deployment, name: str, dataset: str, why: str
) -> None:
    with spoilt(deployment.simulators[name]), pytest.raises(ContractBroken, match=why):
        await take(deployment, name, dataset)
