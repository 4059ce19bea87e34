"""The command line beside a running house: trial questions, referrals followed and imported, clients come and go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.cli.demo.clients import Caller, callers, key_file
from gateway.identity.models import Issuer
from schemas.ids import uuid7
from tests.acceptance.bad_input import DISCLOSURES, REFERRALS, adults, asking, entries, new_key, referring
from tests.acceptance.command_line import Ended, Siis, run
from tests.house import House, until

on_the_loop = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(scope="module")
def siis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siis]:
    """The command line in Spanish, on no data folder yet."""
    made = Siis(tmp_path_factory.mktemp("siis"), "es", None)
    yield made
    made.end()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def at_house(siis: Siis, house: House) -> Siis:
    """The command line on the data folder of the running house."""
    return siis.on(house.settings.data_dir)


@on_the_loop
async def test_the_connected_systems_are_listed(at_house: Siis) -> None:
    listed = (await run(at_house, "adapter", "list", "--json")).json()
    connected = {adapter["name"]: adapter["kind"] for adapter in listed if adapter["connected"]}
    assert connected == {
        "identificaciones": "rest",
        "identificaciones-soap": "soap",
        "mds": "soap",
        "minna": "file",
        "mspbs": "rest",
    }
    assert "identificaciones-soap" in (await run(at_house, "adapter", "list")).out


@on_the_loop
async def test_a_trial_question_is_decided_logged_and_answered_like_any(house: House, at_house: Siis) -> None:
    person, since = adults(house)[30], uuid7()
    trial = ("adapter", "try", "identificaciones", "identity", "--subject", str(person.cedula))
    ended = await run(at_house, *trial, "--json")
    assert ended.code == 0, ended.err
    assert ended.json()["facts"]["given_names"] == person.given_names
    [entry] = await entries(house, "disclosure.released", since)
    assert entry["id"] == ended.json()["receipt"]
    assert (entry["actor"]["client"], entry["actor"]["institution"]) == ("siis-cli", "MDS")
    assert person.surnames in (await run(at_house, *trial)).out


@pytest.mark.parametrize(
    ("name", "dataset", "more", "code", "text"),
    [
        ("nobody", "identity", (), 2, "nobody"),
        ("identificaciones", "tax-returns", (), 2, "identity"),
        ("identificaciones", "replies", (), 2, "identity"),
        ("identificaciones", "birth-entry", (), 2, "dataset-not-connected"),
        ("mds", "identity", (), 2, "dataset-not-connected"),
        ("identificaciones", "identity", ("--institution", "MEC"), 1, "agreement"),
        ("identificaciones", "identity", ("--institution", "NADIE"), 1, "agreement"),
        ("identificaciones", "identity", ("--purpose", "curiosity"), 2, "unknown-purpose"),
        ("identificaciones", "identity", ("--subject", "99999999"), 1, "not-found"),
        ("identificaciones", "identity", ("--subject", "1.234.567"), 2, "/subject/value"),
        ("identificaciones", "identity", ("--subject", ""), 2, "/subject/value"),
        ("identificaciones", "identity", ("--subject", "1" * 30), 2, "/subject/value"),
    ],
)
@on_the_loop
async def test_a_trial_question_that_is_wrong_or_refused_prints_nothing_of_the_person(
    house: House, at_house: Siis, name: str, dataset: str, more: tuple[str, ...], code: int, text: str
) -> None:
    person = adults(house)[30]
    subject = () if "--subject" in more else ("--subject", str(person.cedula))
    ended = await run(at_house, "adapter", "try", name, dataset, *subject, *more, "--json")
    assert (ended.code, ended.out) == (code, "")
    assert text in ended.err
    assert "Traceback" not in ended.err
    assert person.given_names not in ended.err


@on_the_loop
async def test_a_referral_can_be_followed_and_shows_no_private_text(house: House, at_house: Siis) -> None:
    utgs = callers(house.http, house.issuer, house.settings.data_dir)["demo-utgs"]
    reason = {"code": "protection-gap", "text": "Motivo que solo leen las partes"}
    body = referring(adults(house)[31], reason=reason)
    referral_id = (await utgs.post(REFERRALS, body, key=str(uuid7()))).json()["id"]
    since = uuid7()
    ended = await run(at_house, "referral", "trace", referral_id, "--json")
    assert ended.code == 0, ended.err
    told = ended.json()
    assert (told["id"], told["requester"], told["recipient"]) == (referral_id, "UTGS", "MSPBS")
    assert told["events"][0]["type"] == "create"
    assert "Motivo que solo" not in ended.out
    assert len(await entries(house, "referral.read", since)) == 1
    table = await run(at_house, "referral", "trace", referral_id)
    assert told["events"][0]["entry_id"] in table.out
    assert "Motivo que solo" not in table.out


@pytest.mark.parametrize(
    ("given", "code"),
    [("0199a1b2-c3d4-7abc-8def-0123456789ab", 1), ("garbage", 2), ("", 2), ("00000000000000000000000000000000", 2)],
)
@on_the_loop
async def test_a_referral_that_is_not_there_cannot_be_followed(at_house: Siis, given: str, code: int) -> None:
    ended = await run(at_house, "referral", "trace", given, "--json")
    assert (ended.code, ended.out) == (code, "")
    assert ended.err


@on_the_loop
async def test_the_chilean_messages_are_imported_once_and_can_be_followed(
    house: House, at_house: Siis, samples: Path
) -> None:
    folder = samples / "referral" / "cl-minsal-tei"
    files = [folder / f"Bundle-EjemploBundle{name}.json" for name in ("Inicio", "Referencia", "Revisar")]
    command = ("referral", "import", *files, "--institution", "UTGS", "--json")
    first, again = await run(at_house, *command), await run(at_house, *command)
    assert (first.code, again.code) == (0, 0), first.err
    ids = [json.loads(line)["id"] for line in first.out.splitlines()]
    assert ids[0] != ids[1] == ids[2]
    assert [json.loads(line)["id"] for line in again.out.splitlines()] == ids
    assert all(json.loads(line)["notices"] for line in first.out.splitlines()), "what was kept is not named"

    async def delivered() -> bool:
        told = (await run(at_house, "referral", "trace", ids[1], "--json")).json()
        return bool(told["delivery"] == "transmitted")

    await until(delivered)
    told = (await run(at_house, "referral", "trace", ids[1], "--json")).json()
    assert "review" in [event["type"] for event in told["events"]]


@on_the_loop
async def test_garbage_is_not_imported_and_keeps_nothing_else_out(
    at_house: Siis, samples: Path, tmp_path: Path
) -> None:
    good = samples / "referral" / "cl-minsal-tei" / "Bundle-EjemploBundleInicio.json"
    bad = {"empty": b"", "bytes": b"\xff\xfe\x00", "no message": b"{}", "deep": b"[" * 100_000}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    ended = await run(
        at_house, "referral", "import", *(tmp_path / name for name in bad), good, "--institution", "UTGS", "--json"
    )
    assert ended.code == 1
    told = [json.loads(line) for line in ended.out.splitlines()]
    assert [each["taken"] for each in told] == [False] * 4 + [True]
    assert all(each["text"] for each in told)
    assert "Traceback" not in ended.err


@on_the_loop
async def test_a_file_that_cannot_be_read_stops_before_anything_is_imported(
    at_house: Siis, samples: Path, tmp_path: Path
) -> None:
    good = samples / "referral" / "cl-minsal-tei" / "Bundle-EjemploBundleInicio.json"
    for unreadable in (tmp_path / "missing", tmp_path):
        ended = await run(at_house, "referral", "import", good, unreadable)
        assert (ended.code, ended.out) == (2, "")
        assert str(unreadable) in ended.err


@on_the_loop
async def test_another_institution_is_not_told_of_the_referral_it_did_not_send(at_house: Siis, samples: Path) -> None:
    file = samples / "referral" / "cl-minsal-tei" / "Bundle-EjemploBundleInicio.json"
    await run(at_house, "referral", "import", file, "--institution", "UTGS")
    ended = await run(at_house, "referral", "import", file, "--institution", "MEC", "--json")
    assert ended.code == 1
    assert ended.json()["taken"] is False


@on_the_loop
async def test_the_log_of_the_running_house_is_proven(at_house: Siis) -> None:
    ended = await run(at_house, "audit", "verify", "--json")
    assert ended.code == 0, ended.out
    assert ended.json()["ok"] is True
    assert ended.json()["problems"] == []


@pytest.mark.parametrize("claimed", ["ana [/bold]", "ana [conceal]", "ana\x1b[8m", "ana\x9b8m", "ana\r\nbeatriz"])
@on_the_loop
async def test_what_a_caller_claims_cannot_disturb_whoever_reads_the_log(
    house: House, at_house: Siis, claimed: str
) -> None:
    mds = callers(house.http, house.issuer, house.settings.data_dir)["demo-mds"]
    body = asking(adults(house)[33], operator={"id": claimed, "roles": ["operator"]})
    assert (await mds.post(DISCLOSURES, body)).status_code in (200, 400)
    for command in (("audit", "show"), ("audit", "show", "--json")):
        ended = await run(at_house, *command, "--limit", "1", "--type", "disclosure.released")
        assert ended.code == 0, ended.err[-200:]
        assert all(character.isprintable() or character == "\n" for character in ended.out)
        if "[" in claimed and claimed.isprintable():
            assert claimed in ended.out


@on_the_loop
async def test_a_client_is_added_served_given_a_new_key_and_disabled(
    house: House, at_house: Siis, tmp_path: Path
) -> None:
    keys = {}
    for name in ("first", "second"):
        private, public = new_key()
        keys[name] = (tmp_path / f"{name}.pem", tmp_path / f"{name}.pub.pem")
        for path, content in zip(keys[name], (private, public), strict=True):
            path.write_bytes(content)
    client_id = f"typed-{uuid7()}"
    added = await run(
        at_house, "client", "add", "Sistema Ñandutí", "--institution", "MDS", "--public-key", keys["first"][1],
        "--scope", "disclosures.create", "--id", client_id,
    )  # fmt: skip
    assert added.code == 0, added.err
    assert client_id in added.out

    async def token(name: str) -> Ended:
        return await run(at_house, "client", "token", client_id, "--key", keys[name][0], "--url", house.issuer.url)

    async def works(name: str, code: int) -> None:
        async def ends() -> bool:
            return (await token(name)).code == code

        await until(ends, within_s=20)

    async def listed() -> dict[str, Any]:
        told: list[dict[str, Any]] = (await run(at_house, "client", "list", "--json")).json()
        return next(client for client in told if client["id"] == client_id)

    await works("first", 0)
    caller = Caller(house.http, house.issuer, client_id, b"", (await token("first")).out.strip())
    assert (await caller.post(DISCLOSURES, asking(adults(house)[32]))).status_code == 200
    rotated = await run(at_house, "client", "rotate", client_id, "--public-key", keys["second"][1], "--grace", "0h")
    assert rotated.code == 0, rotated.err
    await works("first", 1)
    await works("second", 0)
    assert sorted(key["usable"] for key in (await listed())["keys"]) == [False, True]
    assert (await run(at_house, "client", "disable", client_id)).code == 0
    await works("second", 1)
    assert (await listed())["active"] is False
    assert (await run(at_house, "client", "disable", client_id)).code == 1
    again = await run(
        at_house, "client", "add", "Otro", "--institution", "MDS", "--public-key", keys["first"][1], "--id", client_id
    )
    assert again.code == 1
    private = await run(at_house, "client", "add", "Otro", "--institution", "MDS", "--public-key", keys["first"][0])
    assert private.code == 2
    assert "PRIVATE" not in private.err


@on_the_loop
async def test_a_token_is_not_given_to_a_wrong_key_nor_asked_of_nobody(
    house: House, at_house: Siis, tmp_path: Path
) -> None:
    key = key_file(house.settings.data_dir, "demo-mds")
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(b"\x00\xff")
    nobody = Issuer("http://127.0.0.1:1").url
    cases: list[tuple[str, Path, str, int]] = [
        ("demo-mds", key, house.issuer.url, 0),
        ("demo-mec", key, house.issuer.url, 1),
        ("nobody", key, house.issuer.url, 1),
        ("demo-mds", key, nobody, 1),
        ("demo-mds", garbage, house.issuer.url, 2),
        ("demo-mds", tmp_path / "missing.pem", house.issuer.url, 2),
    ]
    for client_id, path, url, code in cases:
        ended = await run(at_house, "client", "token", client_id, "--key", path, "--url", url)
        assert ended.code == code, (client_id, path.name, url)
        assert bool(ended.out) is (code == 0)
        assert "Traceback" not in ended.err
