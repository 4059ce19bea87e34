"""Consents, representatives, objections and protective flags over HTTP and on the command line."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from adapters.simulator.population import SimPerson
from gateway.cli.demo.clients import Caller
from schemas.canonical import canonical_json, sha256
from schemas.ids import uuid7
from tests.acceptance.bad_input import adults, newcomer, subject
from tests.acceptance.command_line import Siis, run
from tests.acceptance.governed import appoint, call
from tests.house import House, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
OFFICER = "data-protection-officer"
NOBODY = "77777777"
SCOPES = ("consents.manage", "protection.manage", "disclosures.create")


@pytest.fixture(scope="module")
def siis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siis]:
    made = Siis(tmp_path_factory.mktemp("siis"), "es", None)
    yield made
    made.end()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def at_house(siis: Siis, house: House) -> Siis:
    return siis.on(house.settings.data_dir)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system(house: House) -> Caller:
    """A system of the SNPP, whose officer (ofi) the running gateway knows."""
    made = await newcomer(house, "SNPP", *SCOPES)
    await appoint(house, "SNPP", "ofi", OFFICER)

    async def known() -> bool:
        answer = await call(
            house, made, "POST", "protection-flags/search", {"subject": subject(NOBODY)}, operator="ofi", role=OFFICER
        )
        return answer.status_code == 200

    await until(known)
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stranger(house: House) -> Caller:
    return await newcomer(house, "MEC", *SCOPES)


def grown(house: House, place: int) -> str:
    """The cédula of an adult that no other test of this folder asks about: they take theirs from the other end."""
    return str(adults(house)[-1 - place].cedula)


def child(house: House) -> SimPerson:
    year = datetime.now(UTC).year
    return next(p for p in house.people if p.cedula and not p.deceased_on and 3 < year - p.birth_date.year < 15)


def answering(cedula: str, **changes: Any) -> dict[str, Any]:
    return {
        "subject": subject(cedula),
        "agreement": "DEMO-SNPP-IDENT",
        "purposes": ["service-provision"],
        "fields": ["given_names", "birth_date"],
        "text": {"version": "1", "language": "es"},
        "channel": "in-person",
        "proof_reference": "form-17",
        **changes,
    }


async def opens(house: House, system: Caller, cedula: str) -> bool:
    """Whether the person's consent opens their given names to the SNPP now."""
    asked = {"subject": subject(cedula), "dataset": "identity", "fields": ["given_names"]}
    answer = await call(
        house, system, "POST", "disclosures", asked | {"purpose": "service-provision", "basis": "consent"}
    )
    assert answer.status_code in (200, 404), answer.text
    return answer.status_code == 200


async def officer(house: House, system: Caller, path: str, body: dict[str, Any]) -> httpx.Response:
    return await call(house, system, "POST", path, body, operator="ofi", role=OFFICER)


async def test_a_consent_opens_until_the_person_withdraws_it_and_has_a_receipt(house: House, system: Caller) -> None:
    cedula, key = grown(house, 0), str(uuid7())
    assert not await opens(house, system, cedula)
    answer = await call(house, system, "POST", "consents", answering(cedula), operator="beto", key=key)
    assert answer.status_code == 201, answer.text
    given = answer.json()
    again = await call(house, system, "POST", "consents", answering(cedula), operator="beto", key=key)
    assert (again.json(), again.headers["Idempotency-Replayed"]) == (given, "true")
    assert await opens(house, system, cedula)
    consent = f"consents/{given['consent']}"
    shown = (await call(house, system, "GET", consent)).json()
    assert (shown["state"], shown["in_force"], shown["recorded_by"]) == ("given", True, "SNPP/beto")
    receipt = (await call(house, system, "GET", f"{consent}/receipt")).json()
    assert sha256(canonical_json(receipt["record"])).hex() == receipt["record_sha256"] == given["record_sha256"]
    assert sha256(receipt["text"].encode()).hex() == receipt["text_sha256"]
    assert "Servicio Nacional de Promoción Profesional" in receipt["text"]
    assert cedula not in receipt["text"] + str(receipt["record"])
    ended = await call(house, system, "POST", f"{consent}/steps", {"step": "withdraw"})
    assert (ended.status_code, ended.json()["ended"]) == (200, [given["consent"]])
    assert not await opens(house, system, cedula)
    refused = await call(house, system, "POST", f"{consent}/steps", {"step": "withdraw"})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:siis:problem:not-in-force")


async def test_a_persons_consents_come_in_pages_and_only_to_the_parties(
    house: House, system: Caller, stranger: Caller
) -> None:
    cedula = grown(house, 1)
    ids = [
        (await call(house, system, "POST", "consents", answering(cedula, state=state))).json()["consent"]
        for state in ("requested", "refused", "given")
    ]
    body = {"subject": subject(cedula)}
    first = (await call(house, system, "POST", "consents/search?limit=2", body)).json()
    rest = (await call(house, system, "POST", f"consents/search?limit=2&after={first['next']}", body)).json()
    assert [each["id"] for each in (*first["consents"], *rest["consents"])] == ids
    assert ([each["in_force"] for each in rest["consents"]], rest["next"]) == ([True], None)
    seen = (await call(house, stranger, "POST", "consents/search", body)).json()
    unknown = (await call(house, stranger, "POST", "consents/search", {"subject": subject(NOBODY)})).json()
    assert seen | {"receipt": None} == unknown | {"receipt": None} == {"consents": [], "receipt": None, "next": None}
    for path in (ids[2], f"{ids[2]}/receipt", str(uuid7()), "no-number"):
        answer = await call(house, stranger, "GET", f"consents/{path}")
        assert answer.status_code == 404
        assert answer.content == (await call(house, stranger, "GET", f"consents/{uuid7()}")).content


@pytest.mark.parametrize(
    ("changes", "status", "pointer", "allowed"),
    [
        ({"channel": "pigeon"}, 422, "/channel", ["in-person", "paper", "phone", "web"]),
        ({"purposes": ["curiosity"]}, 422, "/purposes", ["service-provision"]),
        ({"fields": ["profession"]}, 422, "/fields", ["birth_date", "cedula", "given_names", "origin", "surnames"]),
        ({"labels": ["health"]}, 422, "/labels", None),
        ({"agreement": "DEMO-MDS-IDENT"}, 422, "/agreement", None),
        ({"agreement": "NOBODY-KNOWS-IT"}, 422, "/agreement", None),
        ({"representation": "01980000-0000-7000-8000-000000000001"}, 422, "/representation", None),
        ({"expires_at": "2020-01-01T00:00:00Z"}, 422, "/expires_at", None),
        ({"subject": {"system": "cedula", "value": "1.234"}}, 422, "/subject/value", None),
        ({"subject": None}, 400, "/subject", None),
        ({"state": "withdrawn"}, 400, "/state", None),
        ({"expires_at": "tomorrow"}, 400, "/expires_at", None),
        ({"purposes": []}, 400, "/purposes", None),
        ({"recorded_by": "me"}, 400, "/recorded_by", None),
    ],
)
async def test_an_answer_that_cannot_be_is_refused_with_what_could_stand_there(
    house: House, system: Caller, changes: dict[str, Any], status: int, pointer: str, allowed: list[str] | None
) -> None:
    answer = await call(house, system, "POST", "consents", answering(grown(house, 2), **changes))
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert told["errors"][0]["pointer"] == pointer
    assert told.get("allowed") == allowed
    assert told["receipt"]["entry_id"]


async def test_a_sealed_person_and_an_unknown_one_look_the_same_to_who_is_not_entitled(
    house: House, system: Caller
) -> None:
    cedula = grown(house, 3)
    given = (await call(house, system, "POST", "consents", answering(cedula))).json()["consent"]
    flag = {"subject": subject(cedula), "kind": "sealed"}
    denied = await call(house, system, "POST", "protection-flags", flag, operator="beto")
    assert denied.status_code == 403
    assert (await officer(house, system, "protection-flags", flag)).json()["changed"]
    assert not (await officer(house, system, "protection-flags", flag)).json()["changed"]
    asked: tuple[tuple[str, dict[str, Any]], ...] = (
        ("consents", answering("")),
        ("objections", {"purpose": "public-benefit"}),
        ("consents/search", {}),
        ("objections/search", {}),
        ("representatives/search", {}),
    )
    for path, body in asked:
        pair = [
            await call(house, system, "POST", path, body | {"subject": subject(value)}) for value in (cedula, NOBODY)
        ]
        assert len({answer.status_code for answer in pair}) == 1
        contents = [answer.json() for answer in pair]
        for content in contents:
            content.pop("receipt", None)
        assert contents[0] == contents[1]
    assert (await call(house, system, "GET", f"consents/{given}")).status_code == 404
    seen = await officer(house, system, "protection-flags/search", {"subject": subject(cedula)})
    assert [each["kind"] for each in seen.json()["protection_flags"]] == ["sealed"]
    assert (await officer(house, system, "protection-flags/lift", flag)).json()["changed"]
    assert await opens(house, system, cedula)


@pytest.mark.parametrize(
    ("flag", "pointer"),
    [
        ({"kind": "shy"}, "/kind"),
        ({"kind": "court-order"}, "/reference"),
        ({"kind": "aggressor"}, "/target"),
        ({"kind": "sealed", "target": {"institution": "MEC"}}, "/target"),
        ({"kind": "aggressor", "target": {"institution": "ATLANTIS"}}, "/target/institution"),
    ],
)
async def test_a_flag_that_cannot_be_is_refused(
    house: House, system: Caller, flag: dict[str, Any], pointer: str
) -> None:
    body = {"subject": subject(grown(house, 4)), **flag}
    for path in ("protection-flags", "protection-flags/lift"):
        answer = await officer(house, system, path, body)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


async def test_a_parent_consents_for_a_child_until_blocked(house: House, system: Caller) -> None:
    ward, parent = child(house), grown(house, 5)
    cedula = str(ward.cedula)
    alone = await call(house, system, "POST", "consents", answering(cedula))
    assert (alone.status_code, alone.json()["errors"][0]["pointer"]) == (422, "/representation")
    body = {
        "subject": subject(cedula),
        "representative": subject(parent),
        "kind": "parent",
        "proof_reference": "acta 12, folio 3",
    }
    assert (await call(house, system, "POST", "representatives", body, operator="beto")).status_code == 403
    added = await officer(house, system, "representatives", body)
    assert added.status_code == 201, added.text
    mandate = added.json()["representation"]
    of_age = date(ward.birth_date.year + 18, 3, 1) if ward.birth_date.timetuple()[1:3] == (2, 29) else None
    of_age = of_age or ward.birth_date.replace(year=ward.birth_date.year + 18)
    assert added.json()["valid_to"] == f"{of_age}T03:00:00+00:00"
    given = await call(house, system, "POST", "consents", answering(cedula, representation=mandate))
    assert given.json()["expires_at"] == added.json()["valid_to"]
    assert await opens(house, system, cedula)
    [listed] = (await officer(house, system, "representatives/search", {"subject": subject(cedula)})).json()[
        "representatives"
    ]
    assert (listed["id"], listed["in_force"]) == (mandate, True)
    bad = await officer(house, system, f"representatives/{mandate}/steps", {"step": "block", "reason": "ended"})
    assert (bad.status_code, bad.json()["allowed"]) == (422, ["conflict-of-interest", "court-order"])
    step = {"step": "block", "reason": "conflict-of-interest"}
    assert (await officer(house, system, f"representatives/{mandate}/steps", step)).status_code == 200
    assert not await opens(house, system, cedula)
    assert (await officer(house, system, f"representatives/{mandate}/steps", step)).status_code == 404


async def test_an_objection_closes_its_purpose_until_it_is_withdrawn(house: House, system: Caller) -> None:
    cedula = grown(house, 6)
    await call(house, system, "POST", "consents", answering(cedula))
    body = {"subject": subject(cedula), "purpose": "service-provision"}
    assert (await call(house, system, "POST", "objections", body)).json()["changed"]
    assert not await opens(house, system, cedula)
    shown = (await call(house, system, "POST", "objections/search", {"subject": subject(cedula)})).json()
    assert [each["purpose"] for each in shown["objections"]] == ["service-provision"]
    assert (await call(house, system, "POST", "objections/withdraw", body)).json()["changed"]
    assert await opens(house, system, cedula)
    unknown = await call(house, system, "POST", "objections", body | {"purpose": "curiosity"})
    assert (unknown.status_code, unknown.json()["errors"][0]["pointer"]) == (422, "/purpose")
    assert "service-provision" in unknown.json()["allowed"]


async def test_a_published_text_is_what_consents_must_cite(house: House, stranger: Caller) -> None:
    minna = await newcomer(house, "MINNA", "consents.manage")
    await appoint(house, "MINNA", "ofelia", OFFICER)
    text = {"agreement": "DEMO-MINNA-MSPBS-CONSENT", "version": "1", "language": "es", "text": "¿Acepta que el MINNA…?"}
    published: list[httpx.Response] = []

    async def known() -> bool:
        published.append(await call(house, minna, "POST", "consent-texts", text, operator="ofelia", role=OFFICER))
        return published[-1].status_code == 201

    await until(known)
    assert published[-1].json()["changed"]
    other = await call(house, minna, "POST", "consent-texts", text | {"text": "X"}, operator="ofelia", role=OFFICER)
    assert (other.status_code, other.json()["type"]) == (409, "urn:siis:problem:text-published")
    assert (await call(house, minna, "POST", "consent-texts", text, operator="beto")).status_code == 403
    listed = (await call(house, minna, "GET", f"consent-texts?agreement={text['agreement']}")).json()
    assert [each["text"] for each in listed["consent_texts"]] == [text["text"]]
    assert (await call(house, stranger, "GET", f"consent-texts?agreement={text['agreement']}")).json() == {
        "consent_texts": [],
        "next": None,
    }
    health = {"agreement": text["agreement"], "fields": ["controls"], "labels": ["health"]}
    cedula = grown(house, 7)
    bad = await call(
        house, minna, "POST", "consents", answering(cedula, **health, text={"version": "9", "language": "es"})
    )
    assert (bad.status_code, bad.json()["allowed"]) == (422, ["1"])
    good = await call(house, minna, "POST", "consents", answering(cedula, **health))
    receipt = (await call(house, minna, "GET", f"consents/{good.json()['consent']}/receipt")).json()
    assert text["text"] in receipt["text"]


async def test_the_command_line_does_the_same(house: House, at_house: Siis, system: Caller, tmp_path: Path) -> None:
    cedula, other = grown(house, 8), grown(house, 9)
    terms = ["--purpose", "service-provision", "--field", "given_names", "--text", "1", "--proof", "form-1"]
    given = await run(at_house, "consent", "give", cedula, "DEMO-SNPP-IDENT", *terms, "--json")
    assert given.code == 0, given.err
    consent = given.json()["consent"]
    assert await opens(house, system, cedula)
    listed = (await run(at_house, "consent", "list", cedula, "--json")).json()
    assert [(each["id"], each["in_force"]) for each in listed] == [(consent, True)]
    receipt = await run(at_house, "consent", "receipt", consent)
    assert "CONSTANCIA DE CONSENTIMIENTO" in receipt.out
    assert cedula not in receipt.out
    assert consent in (await run(at_house, "consent", "show", consent)).out
    for kind, reason in (("sealed", ("seal", "unseal")), ("export-ban", ("keep", "release"))):
        on, off = reason
        assert kind in (await run(at_house, "protection", on, cedula)).out
        assert not await opens(house, system, cedula)
        assert (await run(at_house, "protection", off, cedula, "--json")).json()["changed"]
    assert (await run(at_house, "protection", "bar", cedula, "--institution", "SNPP")).code == 0
    shown = (await run(at_house, "protection", "show", cedula, "--json")).json()
    assert [each["target"] for each in shown["protection_flags"]] == ["SNPP"]
    assert not await opens(house, system, cedula)
    assert (await run(at_house, "protection", "unbar", cedula, "--institution", "SNPP")).code == 0
    assert (await run(at_house, "protection", "object", cedula, "service-provision")).code == 0
    assert not await opens(house, system, cedula)
    assert (await run(at_house, "protection", "withdraw-objection", cedula, "service-provision")).code == 0
    assert await opens(house, system, cedula)
    ended = await run(at_house, "consent", "withdraw", consent)
    assert ended.code == 0, ended.err
    assert not await opens(house, system, cedula)
    mandate = await run(
        at_house, "protection", "represent", cedula, other, "--kind", "proxy", "--proof", "poder 9", "--json"
    )
    assert mandate.code == 0, mandate.err
    number = mandate.json()["representation"]
    assert (await run(at_house, "protection", "block", number, "--reason", "conflict-of-interest")).code == 0
    words = tmp_path / "text"
    words.write_text("¿Acepta?\n", encoding="utf-8")
    bad: tuple[tuple[int, list[str]], ...] = (
        (1, ["consent", "withdraw", consent]),
        (1, ["consent", "show", str(uuid7())]),
        (1, ["protection", "seal", NOBODY]),
        (1, ["protection", "end", number]),
        (2, ["consent", "give", "1.234", "DEMO-SNPP-IDENT", *terms]),
        (2, ["consent", "give", cedula, "NOBODY-KNOWS-IT", *terms]),
        (2, ["consent", "revoke", consent, "--reason", "boredom"]),
        (2, ["consent", "show", "no-number"]),
        (2, ["consent", "text", "NOBODY-KNOWS-IT", "1", str(words)]),
        (2, ["protection", "bar", cedula]),
        (2, ["protection", "order", cedula]),
        (2, ["protection", "bar", cedula, "--institution", "ATLANTIS"]),
    )
    for code, command in bad:
        refused = await run(at_house, *command)
        assert refused.code == code, (command, refused.err)
        assert refused.err
        assert "Traceback" not in refused.err
