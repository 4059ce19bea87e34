"""A crossing beside a running house: who is unknown here or not to be told of is never taken for free of everything."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from adapters.simulator import pension_cases
from tests.acceptance.command_line import Siis, run
from tests.house import House

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def at_house(tmp_path_factory: pytest.TempPathFactory, house: House) -> AsyncIterator[Siis]:
    """The command line on the data folder of the running house."""
    made = Siis(tmp_path_factory.mktemp("siis"), "es", None)
    yield made.on(house.settings.data_dir)
    made.end()


@pytest.mark.parametrize("name", ["65-clear", "dead-on-roll", "on-payroll"])
async def test_of_somebody_not_registered_nothing_is_said_to_be_absent(at_house: Siis, name: str) -> None:
    case = next(case for case in pension_cases.CASES if case.name == name)
    ended = await run(at_house, "crossing", "pension", str(case.person.cedula), "--json")
    assert ended.code == 1, ended.err
    told = ended.json()
    assert told["verdict"] == "incomplete"
    assert told["absent"] == []
    assert {"death", "payroll", "ruc"} <= {word for text in told["missing"] for word in text.split()}
