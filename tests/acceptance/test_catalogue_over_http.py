"""The catalogue over HTTP, as HSDS and on the command line: who reads, who changes, what is refused, what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.catalogue.models import KINDS
from gateway.cli.demo.clients import Caller
from gateway.standards.hsds.layout import make_id
from schemas.codes import code_list
from schemas.ids import uuid7
from tests.acceptance.bad_input import entries, newcomer, problem
from tests.acceptance.command_line import Siis, run
from tests.acceptance.governed import appoint, call
from tests.house import House, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
ADMINISTRATOR = "administrator"


@pytest.fixture(scope="module")
def siis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siis]:
    made = Siis(tmp_path_factory.mktemp("siis"), "es", None)
    yield made
    made.end()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def at_house(siis: Siis, house: House) -> Siis:
    return siis.on(house.settings.data_dir)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def coordinator(house: House) -> Caller:
    """A system of the coordinator with an administrator (cata) whom the running gateway knows."""
    system = await newcomer(house, "UTGS", "catalogue.manage")
    await appoint(house, "UTGS", "cata", ADMINISTRATOR)

    async def known() -> bool:
        return (await change(house, system, {})).status_code == 409

    await until(known)
    return system


async def get(house: House, path: str, **headers: str) -> httpx.Response:
    """Read as anybody does, without a token."""
    return await house.http.get(f"{house.issuer.url}{path}", headers=headers)


async def change(
    house: House, system: Caller, message: Any, *, what: str = "changes", key: str | None = None
) -> httpx.Response:
    path = f"catalogue/{what}"
    return await call(house, system, "POST", path, message, operator="cata", role=ADMINISTRATOR, key=key)


def soup(**fields: Any) -> dict[str, Any]:
    return {"es": "Comedor popular", "institution": "MDS", "categories": [], "response_days": 3, **fields}


@pytest.mark.parametrize("kind", KINDS)
async def test_everybody_reads_the_catalogue(house: House, kind: str) -> None:
    answer = await get(house, f"/api/v1/catalogue/{kind}")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "public, max-age=15"
    found = {each["code"]: each for each in answer.json()[kind]}
    shipped = code_list("service-routes" if kind == "routes" else kind)
    assert found.keys() >= shipped.keys()
    again = await get(house, f"/api/v1/catalogue/{kind}", **{"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    code = next(iter(shipped))
    assert (await get(house, f"/api/v1/catalogue/{kind}/{code}")).json()["es"] == shipped[code]["es"]


@pytest.mark.parametrize("path", ["soups", "services/soup-of-nobody", "soups/x"])
async def test_what_is_not_there_is_not_found(house: House, path: str) -> None:
    problem(await get(house, f"/api/v1/catalogue/{path}"), 404, "not-found")


async def test_a_change_is_made_once_logged_counts_in_seconds_and_keeps_its_history(
    house: House, coordinator: Caller
) -> None:
    since, key = uuid7(), str(uuid7())
    message = {"services": {"soup-kitchen": soup()}}
    done = await change(house, coordinator, message, key=key)
    assert done.status_code == 201, done.text
    assert done.json()["changed"] == {"services": ["soup-kitchen"]}
    again = await change(house, coordinator, message, key=key)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
    problem(await change(house, coordinator, {"services": {}}, key=key), 409, "idempotency-key-reused")
    problem(await change(house, coordinator, message), 409, "nothing-changes")
    [entry] = await entries(house, "catalogue.changed", since)
    assert entry["id"] == done.json()["receipt"]["entry_id"]
    assert (entry["actor"]["institution"], entry["actor"]["user"]) == ("UTGS", "cata")

    async def shown() -> bool:
        return (await get(house, "/api/v1/catalogue/services/soup-kitchen")).status_code == 200

    await until(shown)
    second = await change(house, coordinator, {"services": {"soup-kitchen": soup(response_days=5)}})
    assert second.status_code == 201
    path = "catalogue/services/soup-kitchen/revisions"
    told = (await call(house, coordinator, "GET", path, operator="cata", role=ADMINISTRATOR)).json()["revisions"]
    assert [each["changed"]["response_days"] for each in told] == [
        {"before": None, "after": 3},
        {"before": 3, "after": 5},
    ]
    assert told[0]["by"] == "cata"


async def test_the_catalogue_of_a_day_before_it_was_there_is_empty(house: House) -> None:
    answer = await get(house, "/api/v1/catalogue/services?on=2020-01-01")
    assert answer.json() == {"services": []}
    problem(await get(house, "/api/v1/catalogue/services?on=ayer"), 422, "bad-page", pointer="/on")


@pytest.mark.parametrize(
    ("message", "status", "code", "pointer"),
    [
        ({"services": {"x": soup(institution="NADIE")}}, 422, "bad-catalogue", "/services/x/institution"),
        ({"services": {"x": soup(from_age=9, to_age=8)}}, 422, "bad-catalogue", "/services/x/to_age"),
        ({"services": {"x": soup(cost=1)}}, 400, "invalid-message", "/services/x/cost"),
        (
            {"locations": {"x": {"es": "x", "institution": "MDS", "district": "166", "offers": []}}},
            422,
            "bad-catalogue",
            "/locations/x/district",
        ),
        (
            {"services": {"good": soup()}, "routes": {"x": {"es": "x", "steps": [{"id": "a", "service": "lost"}]}}},
            422,
            "bad-catalogue",
            "/routes/x/steps/0/service",
        ),
    ],
)
async def test_a_wrong_change_is_refused_whole_with_place_and_choices(
    house: House, coordinator: Caller, message: dict[str, Any], status: int, code: str, pointer: str
) -> None:
    answer = await change(house, coordinator, message)
    told = problem(answer, status, code, pointer=pointer)
    if pointer.endswith(("institution", "district", "service")):
        assert told["errors"][0]["allowed"]
    assert (await change(house, coordinator, {"services": {"good": None}})).status_code == 409


async def test_nobody_else_changes_it(house: House, coordinator: Caller) -> None:
    message = {"services": {"x": soup()}}
    path = "catalogue/changes"
    assert (await house.http.post(f"{house.issuer.url}/api/v1/{path}", json=message)).status_code == 401
    told = await call(house, coordinator, "POST", path, message)
    assert told.json()["reasons"][0]["code"] == "role"
    without = await newcomer(house, "UTGS", "referrals.read")
    assert (await call(house, without, "POST", path, message, operator="cata", role=ADMINISTRATOR)).status_code == 403
    # An administrator of another institution manages that one, not the catalogue.
    other = await newcomer(house, "MINNA", "catalogue.manage")
    await appoint(house, "MINNA", "nina", ADMINISTRATOR)
    refused = await call(house, other, "POST", path, message, operator="nina", role=ADMINISTRATOR)
    problem(refused, 403, "denied")
    theirs = "catalogue/services/abrazo/revisions"

    async def hidden() -> bool:
        answer = await call(house, other, "GET", theirs, operator="nina", role=ADMINISTRATOR)
        return answer.status_code == 404

    await until(hidden)


async def test_hsds_is_taken_over_http_and_names_what_is_not_kept(
    house: House, coordinator: Caller, samples: Path
) -> None:
    example = json.loads((samples / "referral/hsds/examples/service_full.json").read_text(encoding="utf-8"))
    done = await change(house, coordinator, example, what="imports")
    assert done.status_code == 201, done.text
    assert done.json()["changed"]["services"] == ["community-counselling"]
    named = {each["where"]: each["rule"] for each in done.json()["not_kept"]}
    assert named["contacts/1e7efce3-639b-4880-940c-b95cd30cdb50"] == "names-a-person"
    problem(await change(house, coordinator, example, what="imports"), 409, "nothing-changes")
    lost = {"id": "00000000-0000-4000-8000-00000000000a", "name": "x", "status": "active"}
    wrong = await change(house, coordinator, {"contents": [lost]}, what="imports")
    problem(wrong, 422, "bad-catalogue", pointer=f"/services/{lost['id']}/organization_id")


# HSDS


async def pages(house: House, path: str) -> list[dict[str, Any]]:
    """Read a collection page by page, as its readers do."""
    found: list[dict[str, Any]] = []
    number = 1
    while True:
        told = (await get(house, f"/hsds/{path}{'&' if '?' in path else '?'}page={number}&per_page=7")).json()
        assert (told["page_number"], told["size"]) == (number, len(told["contents"]))
        assert told["first_page"] is (number == 1)
        found += told["contents"]
        if told["last_page"]:
            assert (told["total_items"], told["total_pages"]) == (len(found), number if found else 0)
            return found
        number += 1


async def test_hsds_says_what_it_is(house: House) -> None:
    told = (await get(house, "/hsds/")).json()
    assert told["version"] == "3.0"
    assert told["openapi_url"].startswith(house.issuer.url)
    assert (await get(house, "/hsds")).json() == told


async def test_hsds_shows_services_in_pages_and_whole(house: House) -> None:
    listed = {each["id"]: each for each in await pages(house, "services")}
    abrazo = listed[make_id("services", "abrazo")]
    assert (abrazo["name"], abrazo["status"], abrazo["wait_time"]) == (
        "Programa Abrazo",
        "active",
        "Respuesta en 20 días",
    )
    assert abrazo["organization"]["name"] == code_list("institutions")["MINNA"]["es"]
    assert "official" not in abrazo["alert"]
    whole = (await get(house, f"/hsds/services/{abrazo['id']}")).json()
    assert {each["document"] for each in whole["required_documents"]} >= {"Certificado de nacimiento"}
    place = {each["location"]["name"] for each in whole["service_at_locations"]}
    assert "Centro Abrazo, Villeta" in place
    assert "1116" in {each["extent"] for each in whole["service_areas"]}
    minimal = (await get(house, "/hsds/services?minimal=true")).json()["contents"]
    assert minimal[0].keys() == {"id", "last_modified"}
    full = (await get(house, "/hsds/services?full=true&per_page=1")).json()["contents"]
    assert "attributes" in full[0]


async def test_hsds_shows_organizations_places_and_taxonomies(house: House) -> None:
    names = {each["name"] for each in await pages(house, "organizations")}
    assert code_list("institutions")["SENASA"]["es"] in names
    one = (await get(house, f"/hsds/organizations/{make_id('institutions', 'MINNA')}")).json()
    assert one["organization_identifiers"][0]["identifier"] == "MINNA"
    assert {each["name"] for each in one["services"]} >= {"Programa Abrazo"}
    given = await pages(house, f"service_at_locations?organization_id={make_id('institutions', 'MINNA')}")
    assert {each["location"]["name"] for each in given} >= {"Centro Abrazo, Villeta"}
    at = (await get(house, f"/hsds/service_at_locations/{given[0]['id']}")).json()
    assert at["location"]["addresses"][0]["country"] == "PY"
    taxonomies = await pages(house, "taxonomies")
    terms = await pages(house, f"taxonomy_terms?taxonomy_id={make_id('taxonomy', 'routes')}")
    assert {each["code"] for each in terms} == code_list("service-routes").keys()
    assert terms[0]["taxonomy_detail"] in taxonomies
    term = (await get(house, f"/hsds/taxonomy_terms/{terms[0]['id']}")).json()
    assert term["name"] == terms[0]["name"]


@pytest.mark.parametrize(
    ("asked", "code", "there"),
    [
        ("search=abrazo", "abrazo", True),
        ("search=PENSION", "universal-pension", True),
        ("search=abrazo", "vaccination", False),
        (f"organization_id={make_id('institutions', 'MDS')}", "tekopora", True),
        (f"organization_id={make_id('institutions', 'MDS')}", "abrazo", False),
        (f"taxonomy_term_id={make_id('term', 'life-cycle', 'age-0-4')}", "vaccination", True),
        (f"taxonomy_term_id={make_id('term', 'life-cycle', 'age-0-4')}", "abrazo", False),
        (f"taxonomy_id={make_id('taxonomy', 'routes')}", "shelter", True),
        (f"taxonomy_id={make_id('taxonomy', 'routes')}", "indigenous-card", False),
        ("modified_after=2100-01-01", "abrazo", False),
        ("modified_after=2020-01-01T00:00:00Z", "abrazo", True),
    ],
)
async def test_hsds_filters(house: House, asked: str, code: str, there: bool) -> None:
    assert (make_id("services", code) in {each["id"] for each in await pages(house, f"services?{asked}")}) is there


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("services?page=0", "/page"),
        ("services?per_page=1000", "/per_page"),
        ("services?per_page=x", "/per_page"),
        ("services?full=perhaps", "/full"),
        ("services?modified_after=x", "/modified_after"),
        ("services?format=ndjson", "/format"),
        ("service_at_locations?postcode=1000", "/postcode"),
    ],
)
async def test_hsds_refuses_what_it_does_not_do(house: House, path: str, pointer: str) -> None:
    problem(await get(house, f"/hsds/{path}"), 422, "bad-page", pointer=pointer)


@pytest.mark.parametrize("path", ["services/x", "organizations/00000000-0000-4000-8000-000000000000", "soups"])
async def test_hsds_does_not_find_what_is_not_there(house: House, path: str) -> None:
    problem(await get(house, f"/hsds/{path}"), 404, "not-found")


async def test_a_page_behind_the_last_one_is_empty(house: House) -> None:
    told = (await get(house, "/hsds/services?page=1000")).json()
    assert (told["empty"], told["contents"], told["last_page"]) == (True, [], True)


# The command line


async def test_the_command_line_exports_imports_checks_and_shows(house: House, at_house: Siis, tmp_path: Path) -> None:
    counted = (await run(at_house, "catalogue", "show", "--json")).json()
    assert counted["routes"] == 4
    for form in ("hsds-json", "hsds-csv", "yaml"):
        out = tmp_path / form
        assert (await run(at_house, "catalogue", "export", str(out), "--format", form)).code == 0
        given = out / "catalogue.yaml" if form == "yaml" else out
        checked = (await run(at_house, "catalogue", "check", str(given), "--json")).json()
        assert checked == {"changed": {}, "not_kept": [], "mistakes": []}
        ended = await run(at_house, "catalogue", "import", str(given))
        assert (ended.code, ended.out.strip()) == (0, "Nada cambia: el catálogo ya dice eso.")
    assert (await run(at_house, "catalogue", "export", str(tmp_path))).code == 2
    since = uuid7()
    file = tmp_path / "new.yaml"
    file.write_text('services:\n  stew: {es: "Olla popular", institution: MDS, categories: [], response_days: 2}\n')
    assert "stew" in (await run(at_house, "catalogue", "check", str(file))).out
    assert (await run(at_house, "catalogue", "show", "services", "stew")).code == 1
    taken = (await run(at_house, "catalogue", "import", str(file), "--json")).json()
    [entry] = await entries(house, "catalogue.changed", since)
    assert entry["id"] == taken["receipt"]["entry_id"]
    assert entry["actor"]["channel"] == "command-line"
    assert (await run(at_house, "catalogue", "show", "services", "stew", "--json")).json()["response_days"] == 2
    assert "Olla popular" in (await run(at_house, "catalogue", "show", "services")).out
    [told] = (await run(at_house, "catalogue", "history", "services", "stew", "--json")).json()
    assert told["changed"]["es"] == {"before": None, "after": "Olla popular"}
    assert "response_days" in (await run(at_house, "catalogue", "history", "services", "stew")).out
    assert (await run(at_house, "catalogue", "check")).code == 0


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.yaml", 'services: {a: {es: "x", institution: NADIE, categories: [], response_days: 2}}', "MINNA"),
        ("x.yaml", "services: {a: {es: x}}", "/services/a/institution"),
        ("x.yaml", "[", "x.yaml"),
        ("x.yaml", "on: 1", "x.yaml"),
        ("x.json", "{", "x.json"),
        ("services.csv", "id,name,status\n00000000-0000-4000-8000-00000000000a,Sopa,active\n", "organization_id"),
    ],
)
async def test_a_wrong_file_is_refused_with_place_and_choices(
    at_house: Siis, tmp_path: Path, name: str, content: str, told: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    for command in ("import", "check"):
        ended = await run(at_house, "catalogue", command, str(tmp_path / name))
        assert ended.code == 2
        assert told in ended.err


async def test_what_is_not_there_is_said_so(at_house: Siis, tmp_path: Path) -> None:
    assert (await run(at_house, "catalogue", "import", str(tmp_path / "absent.json"))).code == 2
    assert (await run(at_house, "catalogue", "show", "soups")).code == 2
    assert (await run(at_house, "catalogue", "history", "services", "none")).code == 1
    assert (await run(at_house, "catalogue", "show", "--on", "ayer")).code == 2
    assert (await run(at_house, "catalogue", "show", "--on", "2020-01-01")).code == 0
