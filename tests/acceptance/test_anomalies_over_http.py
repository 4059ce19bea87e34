"""The anomaly report over HTTP and on the command line: for auditors, on record first, and naming nobody looked up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from schemas.ids import uuid7
from tests.acceptance.bad_input import DISCLOSURES, adults, asking, entries, newcomer
from tests.acceptance.command_line import Siis, run
from tests.acceptance.governed import appoint, call
from tests.house import House, until

pytestmark = pytest.mark.asyncio(loop_scope="session")


def period(**changes: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "since": (now - timedelta(days=1)).isoformat(),
        "until": (now + timedelta(days=1)).isoformat(),
        **changes,
    }


@pytest.fixture(scope="module")
def siis(tmp_path_factory: pytest.TempPathFactory, house: House) -> Iterator[Siis]:
    made = Siis(tmp_path_factory.mktemp("siis"), "es", house.settings.data_dir)
    yield made
    made.end()


async def test_an_auditor_is_shown_what_stands_out_and_never_whom_it_is_about(house: House, siis: Siis) -> None:
    user, since = f"aud-{uuid7()}", uuid7()
    system = await newcomer(house, "MDS", "audit.read", "disclosures.create")
    await appoint(house, "MDS", user, "auditor")
    curious, person = f"op-{uuid7()}", adults(house)[83]
    for _time in range(5):
        body = asking(person, operator={"id": curious})
        assert (await system.post(DISCLOSURES, body)).status_code in (200, 404)

    async def asked(body: Any, operator: str | None = user) -> httpx.Response:
        return await call(house, system, "POST", "audit/anomalies", body, operator=operator, role="auditor")

    async def known() -> bool:
        return (await asked(period())).status_code == 200

    await until(known)
    told = (await asked(period())).json()
    [finding] = [each for each in told["findings"] if each["user"] == curious and each["rule"] == "no-case"]
    assert (finding["institution"], finding["count"], len(finding["entries"])) == ("MDS", 5, 5)
    assert {each["institution"] for each in told["findings"]} <= {"MDS", None}
    for personal in (person.cedula, person.given_names, person.surnames):
        assert str(personal) not in json.dumps(told, ensure_ascii=False)
    noted = await entries(house, "log.anomalies_read", since)
    assert told["receipt"]["entry_id"] in {each["id"] for each in noted}
    assert (await asked(period(institution="MTESS"))).status_code == 404
    assert (await asked(period(until="2020-01-01T00:00:00Z"))).json()["type"] == "urn:siis:problem:bad-period"
    assert (await asked({"since": "ayer"})).status_code == 400
    assert (await asked(period(), operator=None)).status_code == 403
    ended = await run(siis, "audit", "anomalies", "--since", "2020-01-01", "--until", "2100-01-01", "--json")
    assert curious in {each["user"] for each in ended.json()["findings"]}
    plain = await run(siis, "audit", "anomalies", "--since", "2020-01-01", "--until", "2100-01-01")
    assert "no es una acusación" in plain.out
    assert curious in plain.out


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (("--since", "ayer", "--until", "2026-01-01"), 2, "Se esperaba una hora"),
        (("--since", "2026-01-01", "--until", "2026-01-01"), 2, "posterior"),
        (("--since", "2026-01-01", "--until", "2026-01-02", "--institution", "NADIE"), 2, "MSPBS"),
        (("--since", "2019-01-01", "--until", "2019-01-02"), 0, "Nada pasó de los umbrales"),
    ],
)
async def test_the_command_says_what_it_cannot_use(siis: Siis, options: tuple[str, ...], code: int, text: str) -> None:
    ended = await run(siis, "audit", "anomalies", *options)
    assert ended.code == code, ended.err
    assert text in ended.out + ended.err
    assert "Traceback" not in ended.err
