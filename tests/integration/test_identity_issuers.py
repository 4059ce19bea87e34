"""Outside issuers: whom their tokens speak for, how their keys are kept, how one is registered and ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
import yaml
from integration.identity_database import Clock, Deployment, deploy
from integration.identity_database import register as register_client
from integration.outside_issuer import House, citizens, document, house, serve, until
from joserfc.jwk import ECKey, OctKey, RSAKey
from joserfc.util import urlsafe_b64encode
from prometheus_client import REGISTRY
from typer.testing import CliRunner, Result

from adapters.errors import ContractBroken, ManifestError
from adapters.yamlfile import read_yaml
from gateway.cli import issuer as command
from gateway.cli.mistakes import told
from gateway.database import Database
from gateway.identity import issuer_keys, issuers, service
from gateway.identity.errors import DirectoryUnavailable, TokenError
from gateway.identity.issuer_keys import KEEP_SECONDS, MAX_AGE_SECONDS, MAX_BYTES, RETRY_SECONDS, read_keys
from gateway.identity.issuers import Registration, read_registration
from gateway.vault import load_epochs, load_kek

pytest_plugins = ["integration.identity_fixtures"]


@pytest.fixture
async def staff(deployment: Deployment) -> AsyncIterator[House]:
    """An issuer that vouches for the staff of an institution."""
    async with house(deployment) as running:
        yield running


# Whom a token speaks for


async def test_a_token_of_staff_says_what_was_agreed_and_no_more(staff: House) -> None:
    found = staff.foreign.check(staff.token())
    assert (found.client_id, found.institution, found.issuer) == ("mds-sistema", "MDS", staff.issuer.url)
    assert found.subject == "8d1c4f0e-funcionaria"
    assert found.roles == {"operator"}
    assert found.scopes == {"disclosures.create"}
    assert found.assurance == 2
    assert found.auth_time == staff.clock() - timedelta(seconds=120)
    assert found.expires_at == staff.clock() + timedelta(seconds=300)
    assert found.token_id == "onrtac:51f1"
    assert (found.person_system, found.person_value) == (None, None)


async def test_a_citizen_comes_as_a_citizen_whatever_roles_the_token_claims(deployment: Deployment) -> None:
    async with house(deployment, citizens) as running:
        roles = {"roles": ["administrator", "operator", "siis-operadora"]}
        found = running.foreign.check(running.token(documento={"numero": "0001234567"}, realm_access=roles, acr="9"))
        assert (found.person_system, found.person_value) == ("cedula", "1234567")
        assert (found.roles, found.institution, found.client_id) == ({"citizen"}, None, None)
        assert (found.scopes, found.assurance) == ({"rights.manage"}, 1)
        for numero in ("1.234.567", "", 1234567, None):
            with pytest.raises(TokenError, match=r"^claims$"):
                running.foreign.check(running.token(documento={"numero": numero}))


async def test_the_door_lets_a_token_of_staff_in_and_not_with_a_client_of_ours_disabled(
    staff: House, deployment: Deployment
) -> None:
    await deployment.foreign.load()
    await deployment.directory.load()
    stop = asyncio.Event()
    task = asyncio.create_task(deployment.foreign.run(stop))
    try:
        await until(lambda: _let_in(deployment, staff.token()))
        caller = deployment.checker.check("Bearer " + staff.token())
        assert (caller.client_id, caller.institution, caller.assurance) == ("mds-sistema", "MDS", 2)
        # Our own name on a stranger's signature is ours to judge.
        with pytest.raises(TokenError):
            deployment.checker.check("Bearer " + staff.token(header={"kid": deployment.ring.current.kid}))
        async with deployment.database.transaction() as connection:
            await service.disable_client(connection, client_id="mds-sistema", now=staff.clock())
        await deployment.directory.load()
        with pytest.raises(TokenError, match=r"^client-disabled$"):
            deployment.checker.check("Bearer " + staff.token())
    finally:
        stop.set()
        await task


def _let_in(deployment: Deployment, token: str) -> bool:
    try:
        deployment.checker.check("Bearer " + token)
    except TokenError:
        return False
    return True


# Keys


async def test_a_new_key_of_the_issuer_is_learnt_from_the_first_token_that_names_it(staff: House) -> None:
    old = staff.token()
    staff.issuer.keys["dos"] = ECKey.generate_key("P-256")
    staff.ticks.seconds += RETRY_SECONDS
    asked = staff.issuer.asked
    with pytest.raises(TokenError, match=r"^key$"):
        staff.foreign.check(staff.token())
    await until(lambda: staff.believes(staff.token()))
    assert staff.believes(old)
    # The issuer drops the former key; whoever still uses it is refused once that is known.
    del staff.issuer.keys["uno"]
    staff.ticks.seconds += MAX_AGE_SECONDS
    await staff.read_again()
    await until(lambda: not staff.believes(old))
    assert staff.believes(staff.token())
    assert staff.issuer.asked == asked + 2


async def test_invented_key_names_make_nobody_ask_the_issuer_more_than_once_in_thirty_seconds(staff: House) -> None:
    asked = staff.issuer.asked
    for _period in range(2):
        staff.ticks.seconds += RETRY_SECONDS
        staff.issuer.keys[str(staff.issuer.asked)] = ECKey.generate_key("P-256")
        for number in range(100):
            assert not staff.believes(staff.token(header={"kid": f"invented-{number}"}))
        await until(lambda: staff.believes(staff.token()))
        for number in range(100):
            assert not staff.believes(staff.token(header={"kid": f"invented-{number}"}))
        # Wakes whoever reads the keys; a question too many in the first round shows at the end of the second.
        await staff.foreign.load()
    assert staff.issuer.asked == asked + 2


def readings(house: House, outcome: str) -> float | None:
    labels = {"issuer": house.issuer.url, "outcome": outcome}
    return REGISTRY.get_sample_value("siis_outside_issuer_keys_total", labels)


BAD_ANSWERS: list[dict[str, Any]] = [
    {"status": 500},
    {"status": 302, "headers": {"Location": "/elsewhere"}},
    {"body": b"<html>"},
    {"body": b"[]"},
    {"body": b'{"keys": {}}'},
    {"body": orjson.dumps({"keys": [{}] * 101})},
    {"body": b'{"keys": []}' + b" " * MAX_BYTES},
    {"headers": {"Content-Encoding": "gzip"}},
]


@pytest.mark.parametrize("answer", BAD_ANSWERS, ids=lambda answer: str(answer)[:40])
async def test_keys_that_cannot_be_read_anew_are_kept_for_a_day(staff: House, answer: dict[str, Any]) -> None:
    for name, value in answer.items():
        setattr(staff.issuer, name, value)
    token = staff.token()
    staff.ticks.seconds += MAX_AGE_SECONDS
    await staff.foreign.load()
    await until(lambda: readings(staff, "failed") == 1)
    assert staff.believes(token)
    staff.ticks.seconds += KEEP_SECONDS
    await staff.foreign.load()
    with pytest.raises(TokenError, match=r"^key$"):
        staff.foreign.check(token)
    staff.issuer.body, staff.issuer.status, staff.issuer.headers = None, 200, {}
    staff.ticks.seconds += RETRY_SECONDS
    await staff.foreign.load()
    await until(lambda: staff.believes(token))


async def test_an_issuer_that_does_not_answer_in_time_is_given_up(
    staff: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_keys, "FETCH_SECONDS", 0.1)
    staff.issuer.stalls = threading.Event()
    staff.ticks.seconds += MAX_AGE_SECONDS
    await staff.foreign.load()
    await until(lambda: readings(staff, "failed") == 1)
    staff.issuer.stalls.set()
    assert staff.believes(staff.token())


async def test_an_issuer_nobody_reaches_stops_neither_the_start_nor_the_other_issuers(
    staff: House, deployment: Deployment
) -> None:
    with serve() as gone:
        pass
    async with deployment.database.transaction() as connection:
        unreachable = Registration.model_validate(document(gone))
        await issuers.add_issuer(connection, unreachable, own="https://siis", now=staff.clock())
    await until(lambda: staff.foreign.knows(gone.url))
    gone.keys["uno"] = staff.issuer.keys["uno"]
    with pytest.raises(TokenError, match=r"^key$"):
        staff.foreign.check(gone.sign(staff.clock()))
    assert staff.believes(staff.token())


RSA = RSAKey.generate_key(2048).as_dict(private=False)
EC = ECKey.generate_key("P-256")


@pytest.mark.parametrize(
    "jwk",
    [
        {**RSA, "n": urlsafe_b64encode(b"\xff" * 128).decode()},
        {**RSA, "e": urlsafe_b64encode(b"\x01").decode()},
        {**RSA, "n": urlsafe_b64encode(b"\xff" * 2048).decode()},
        {**RSA, "n": 7},
        {**RSA, "use": "enc"},
        {**RSA, "key_ops": ["encrypt"]},
        {**RSA, "kid": 7},
        {**EC.as_dict(private=False), "x": urlsafe_b64encode(b"\x01" * 32).decode()},
        ECKey.generate_key("P-384").as_dict(private=False),
        OctKey.generate_key(256).as_dict(),
        {},
        "key",
    ],
    ids=[f"key-{number}" for number in range(12)],
)
def test_a_key_unfit_for_signatures_is_left_out_and_the_others_are_kept(jwk: object) -> None:
    good = {**RSA, "kid": "good"}
    assert [key.kid for key in read_keys(orjson.dumps({"keys": [jwk, good]}))] == ["good"]


def test_private_members_of_a_published_key_are_not_taken_over() -> None:
    [key] = read_keys(orjson.dumps({"keys": [EC.as_dict(private=True)]}))
    assert not key.key.is_private


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b'{"keys": "x"}', b'{"keys": ' + b"[" * 2000])
def test_what_is_no_set_of_keys_is_refused(body: bytes) -> None:
    with pytest.raises(ContractBroken):
        read_keys(body)


# Registrations


async def test_an_issuer_ended_in_one_process_is_believed_in_none(staff: House) -> None:
    assert staff.foreign.knows(staff.issuer.url)
    async with staff.database.transaction() as connection:
        await issuers.disable_issuer(connection, staff.issuer.url, now=staff.clock())
    await until(lambda: not staff.foreign.knows(staff.issuer.url))
    with pytest.raises(TokenError, match=r"^issuer$"):
        staff.foreign.check(staff.token())


async def test_a_registration_ends_at_its_time(deployment: Deployment) -> None:
    end = deployment.clock() + timedelta(seconds=200)
    async with house(deployment, lambda issuer: document(issuer, valid_to=end)) as running:
        assert running.believes(running.token())
        deployment.clock.advance(200)
        with pytest.raises(TokenError, match=r"^issuer$"):
            running.foreign.check(running.token())


async def test_a_process_cut_off_from_the_database_believes_nobody_after_three_minutes(staff: House) -> None:
    staff.ticks.seconds += issuers.MAX_AGE_SECONDS + 1
    with pytest.raises(DirectoryUnavailable):
        staff.foreign.check(staff.token())


async def test_a_row_this_release_cannot_read_costs_the_others_nothing(staff: House, identity_url: str) -> None:
    with psycopg.connect(identity_url) as connection:
        connection.execute(
            "INSERT INTO siis.token_issuer SELECT 'https://newer', name, institution, jwks_uri, audiences, algorithms,"
            " types, scopes, claims || '{\"later\": 1}', valid_to, created_at, disabled_at FROM siis.token_issuer"
        )
    await staff.foreign.load()
    assert not staff.foreign.knows("https://newer")
    assert staff.believes(staff.token())


def test_the_database_itself_refuses_an_issuer_of_citizens_that_has_an_institution(identity_url: str) -> None:
    with psycopg.connect(identity_url) as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(
            "INSERT INTO siis.token_issuer VALUES ('https://x', 'x', 'MDS', 'https://x/k', '{a}', '{ES256}', '{jwt}',"
            ' \'{status.read}\', \'{"person": {"claim": "ci", "system": "cedula"}}\', NULL, now(), NULL)'
        )


# The command


@pytest.fixture
def url(identity_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Settings that lead the command to the database of the test."""
    monkeypatch.setenv("SIIS_DATABASE_URL", identity_url)
    monkeypatch.setenv("SIIS_DATA_DIR", str(tmp_path / "data"))
    load_kek(tmp_path / "data" / "keys", create=True)
    load_epochs(tmp_path / "data" / "keys", create=True)
    return identity_url


@pytest.fixture
async def clients(identity_database: Database, tmp_path: Path) -> None:
    async with deploy(identity_database, Clock(), tmp_path) as running:
        await register_client(running)
        await register_client(running, "minna-sistema", institution="MINNA")


DOCUMENT = {
    "issuer": "https://ingreso.mds.gov.py/realms/mds",
    "name": "Ingreso único",
    "institution": "MDS",
    "jwks_uri": "https://ingreso.mds.gov.py/realms/mds/protocol/openid-connect/certs",
    "audiences": ["https://siis.gov.py/api"],
    "algorithms": ["RS256"],
    "types": ["JWT"],
    "scopes": ["disclosures.create"],
    "claims": {
        "clients": {"names": {"portal-social": "mds-sistema"}},
        "roles": {"claim": "realm_access.roles", "names": {"siis-operadora": "operator"}},
    },
}


def siis(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command.app, [str(argument) for argument in arguments])


def written(folder: Path, fields: dict[str, Any]) -> Path:
    path = folder / "issuer.yaml"
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    return path


def test_an_issuer_is_added_listed_ended_and_added_anew_and_each_is_in_the_log(
    url: str, clients: None, tmp_path: Path
) -> None:
    file, name = written(tmp_path, DOCUMENT), DOCUMENT["issuer"]
    answer = siis("add", file)
    assert answer.exit_code == 0, answer.output
    assert str(name) in answer.stdout
    [listed] = orjson.loads(siis("list", "--json").stdout)
    assert (listed["issuer"], listed["active"], listed["institution"]) == (name, True, "MDS")
    assert siis("add", file).exit_code == 1
    assert siis("disable", str(name)).exit_code == 0
    assert siis("disable", str(name)).exit_code == 1
    assert siis("disable", "https://nobody").exit_code == 1
    assert "baja" in siis("list").stdout
    assert siis("add", written(tmp_path, DOCUMENT | {"scopes": ["status.read"]})).exit_code == 0
    [listed] = orjson.loads(siis("list", "--json").stdout)
    assert (listed["scopes"], listed["active"], listed["disabled_at"]) == (["status.read"], True, None)
    with psycopg.connect(url) as connection:
        types = [row[0] for row in connection.execute("SELECT type FROM audit.entry ORDER BY at")]
    assert types == ["admin.issuer_added", "admin.issuer_disabled", "admin.issuer_added"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"issuer": "http://127.0.0.1:8080"}, "pasarela"),
        ({"institution": "NADIE"}, "catálogo"),
        ({"claims": {"clients": {"names": {"x": "nobody"}}}}, "cliente"),
        ({"claims": {"clients": {"names": {"x": "minna-sistema"}}}}, "cliente"),
    ],
)
def test_a_registration_that_fits_nothing_we_know_is_refused(
    url: str, clients: None, tmp_path: Path, changes: dict[str, Any], word: str
) -> None:
    if "institution" in changes:
        changes = changes | {"claims": {}}
    answer = siis("add", written(tmp_path, DOCUMENT | changes))
    assert answer.exit_code == 2
    assert word in answer.stderr


PERSON = {"claim": "ci", "system": "cedula"}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"jwks_uri": "http://ingreso.mds.gov.py/certs"}, "jwks_uri"),
        ({"jwks_uri": "https://user@ingreso.mds.gov.py/certs"}, "jwks_uri"),
        ({"jwks_uri": "file:///etc/passwd"}, "jwks_uri"),
        ({"jwks_uri": "https://x:99999/"}, "jwks_uri"),
        ({"issuer": "https://ingreso.mds.gov.py?realm=mds"}, "issuer"),
        ({"algorithms": ["HS256"]}, "algorithms.0"),
        ({"algorithms": ["none"]}, "algorithms.0"),
        ({"algorithms": []}, "algorithms"),
        ({"audiences": []}, "audiences"),
        ({"types": []}, "types"),
        ({"scopes": ["everything"]}, "scopes.0"),
        ({"scopes": []}, "scopes"),
        ({"claims": {"roles": {"claim": "roles", "names": {"x": "citizen"}}}}, "claims.roles.names.x"),
        ({"claims": {"roles": {"claim": "roles", "names": {"x": "king"}}}}, "claims.roles.names.x"),
        ({"claims": {"acr": {"2": 4}}}, "claims.acr.2"),
        ({"claims": {"person": PERSON}}, "institution"),
        ({"institution": None}, "institution"),
        (
            {"institution": None, "claims": {"person": PERSON, "roles": {"claim": "r", "names": {"a": "operator"}}}},
            "claims.roles",
        ),
        ({"valid_to": "2027-01-01"}, "valid_to"),
        ({"secret": "x"}, "secret"),
    ],
)
def test_a_registration_that_would_open_too_much_is_refused_with_its_field(
    tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    file = written(tmp_path, DOCUMENT | changes)
    with pytest.raises(ManifestError) as caught:
        read_registration(read_yaml(file))
    assert f": {field}: " in str(caught.value)
    assert told(caught.value) == ([str(caught.value)], 2)
