"""``siis client`` as an operator types it: what it prints, how it ends, and what the log keeps."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from click.testing import Result
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from integration.identity_database import new_certificate, new_key, private_pem
from joserfc.jwk import ECKey, RSAKey
from typer.testing import CliRunner

from audit.errors import AuditUnavailable
from audit.service import AuditLog
from gateway.cli.client import app
from gateway.vault import load_epochs, load_kek
from schemas.codes import code_list

pytest_plugins = ["integration.identity_fixtures"]


@pytest.fixture
def url(identity_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Settings that lead the command line to the database of the test."""
    monkeypatch.setenv("SIIS_DATABASE_URL", identity_url)
    monkeypatch.setenv("SIIS_DATA_DIR", str(tmp_path / "data"))
    load_kek(tmp_path / "data" / "keys", create=True)
    load_epochs(tmp_path / "data" / "keys", create=True)
    return identity_url


def siis(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def key_file(folder: Path, key: ECKey | RSAKey | None = None, name: str = "publica.pem") -> Path:
    path = folder / name
    path.write_bytes((key or new_key()).as_pem(private=False))
    return path


def listed() -> list[dict[str, object]]:
    answer = siis("list", "--json")
    assert answer.exit_code == 0, answer.output
    clients: list[dict[str, object]] = orjson.loads(answer.stdout)
    return clients


def logged(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("SELECT type FROM audit.entry ORDER BY at")]


def test_client_is_added_rotated_and_disabled_and_each_step_is_in_the_log(url: str, tmp_path: Path) -> None:
    key = new_key()
    answer = siis(
        "add",
        "Sistema Ñandutí",
        "--institution",
        "MDS",
        "--public-key",
        key_file(tmp_path, key),
        "--scope",
        "status.read",
        "--id",
        "mds-uno",
    )
    assert answer.exit_code == 0, answer.output
    assert "mds-uno" in answer.stdout
    assert key.thumbprint() in answer.stdout
    assert "http://127.0.0.1:8080/oauth2/token" in answer.stdout
    newer = new_key()
    answer = siis("rotate", "mds-uno", "--public-key", key_file(tmp_path, newer), "--grace", "2h")
    assert answer.exit_code == 0, answer.output
    (client,) = listed()
    assert (client["name"], client["institution"], client["scopes"]) == ("Sistema Ñandutí", "MDS", ["status.read"])
    assert client["active"] is True
    keys = client["keys"]
    assert isinstance(keys, list)
    assert {key["kid"]: key["usable"] for key in keys} == {key.thumbprint(): True, newer.thumbprint(): True}
    assert siis("disable", "mds-uno").exit_code == 0
    assert listed()[0]["active"] is False
    assert "de baja" in siis("list").stdout
    assert logged(url) == ["client.added", "client.key_rotated", "client.disabled"]


def test_client_without_options_gets_an_id_and_what_every_system_does(url: str, tmp_path: Path) -> None:
    jwk = tmp_path / "publica.json"
    jwk.write_bytes(orjson.dumps(new_key().as_dict(private=False)))
    answer = siis("add", "Sistema", "--institution", "MSPBS", "--public-key", jwk)
    assert answer.exit_code == 0, answer.output
    (client,) = listed()
    assert isinstance(client["id"], str)
    assert len(client["id"]) == 36
    assert client["scopes"] == [
        "disclosures.create",
        "producers.read",
        "referrals.create",
        "referrals.read",
        "referrals.reply",
        "status.read",
    ]
    assert set(client["scopes"]) < set(code_list("scopes"))
    assert client["assurance"] == 1


def certificate_file(folder: Path, name: str = "cert.pem", *, start: datetime | None = None) -> Path:
    """A certificate of 30 days, in PEM."""
    der = new_certificate("Sistema Ñandutí", start=start or datetime.now(UTC) - timedelta(hours=1))
    path = folder / name
    path.write_bytes(x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM))
    return path


def shown(client_id: str) -> dict[str, Any]:
    answer = siis("show", client_id, "--json")
    assert answer.exit_code == 0, answer.output
    client: dict[str, Any] = orjson.loads(answer.stdout)
    return client


def test_certificates_networks_and_time_of_a_client_are_kept_shown_and_logged(url: str, tmp_path: Path) -> None:
    first, second = certificate_file(tmp_path, "a.pem"), certificate_file(tmp_path, "b.pem")
    added = siis(
        *("add", "Sistema", "--institution", "MDS", "--id", "uno", "--certificate", first),
        *("--network", "203.0.113.0/24", "--network", "2001:db8::/32", "--valid-until", "2099-12-31"),
    )
    assert added.exit_code == 0, added.output
    client = shown("uno")
    assert client["networks"] == ["2001:db8::/32", "203.0.113.0/24"]
    # Midnight in Paraguay, at the end of that day.
    assert client["valid_to"] == "2100-01-01T03:00:00+00:00"
    assert (client["keys"], client["pilot"]) == ([], False)
    [known] = client["certificates"]
    assert known["subject"] == "CN=Sistema Ñandutí"
    assert known["usable"] is True
    assert known["x5t#S256"] in added.stdout
    for arguments in (
        ("certificate", "add", "uno", second),
        ("certificate", "remove", "uno", known["x5t#S256"]),
        ("networks", "uno", "198.51.100.7"),
        ("validity", "uno", "--valid-from", "2026-01-01", "--valid-until", "2030-06-30"),
    ):
        answer = siis(*arguments)
        assert answer.exit_code == 0, answer.output
    client = shown("uno")
    assert {each["x5t#S256"] == known["x5t#S256"]: each["usable"] for each in client["certificates"]} == {
        True: False,
        False: True,
    }
    assert client["networks"] == ["198.51.100.7/32"]
    assert client["valid_from"] == "2026-01-01T03:00:00+00:00"
    for arguments, text in (
        (("certificate", "add", "uno", first), "ya tiene o tuvo"),
        (("certificate", "remove", "uno", known["x5t#S256"]), "no tiene ese certificado"),
        (("certificate", "add", "dos", first), "No hay ningún cliente"),
        (("secret", "renew", "uno"), "no es un piloto"),
        (("show", "dos"), "No hay ningún cliente"),
    ):
        answer = siis(*arguments)
        assert answer.exit_code == 1, arguments
        assert text in answer.stderr
    assert siis("networks", "uno", "--everywhere").exit_code == 0
    assert shown("uno")["networks"] == []
    human = siis("show", "uno").stdout
    assert "Sistema Ñandutí" in human
    assert logged(url) == [
        "client.added",
        "client.certificate_added",
        "client.certificate_removed",
        "client.networks_changed",
        "client.validity_changed",
        "client.networks_changed",
    ]


def test_secret_of_a_pilot_is_shown_once_and_never_kept(url: str, tmp_path: Path) -> None:
    answer = siis("add", "Piloto", "--institution", "MDS", "--id", "piloto", "--pilot-secret")
    assert answer.exit_code == 0, answer.output
    secret = re.search(r"secreto: (\S{43})$", answer.stdout, re.MULTILINE)
    assert secret
    assert "piloto" in siis("list").stdout
    assert shown("piloto")["pilot"] is True
    assert secret[1] not in siis("show", "piloto", "--json").stdout
    renewed = siis("secret", "renew", "piloto")
    assert renewed.exit_code == 0
    assert secret[1] not in renewed.stdout
    assert siis("secret", "remove", "piloto").exit_code == 0
    assert shown("piloto")["pilot"] is False
    assert siis("secret", "remove", "piloto").exit_code == 1
    assert logged(url) == ["client.added", "client.secret_renewed", "client.secret_removed"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "Falta con qué se identifica"),
        (["--pilot-secret", "--network", "203.0.113.7/24"], "máscara"),
        (["--pilot-secret", "--network", "oficina"], "máscara"),
        (["--pilot-secret", "--valid-until", "mañana"], "2027-12-31"),
        (["--pilot-secret", "--valid-until", "9999-12-31"], "2027-12-31"),
        (["--pilot-secret", "--valid-from", "2027-02-01", "--valid-until", "2027-01-01"], "antes de terminar"),
    ],
)
def test_credential_network_or_date_that_is_none_ends_with_2(url: str, options: list[str], text: str) -> None:
    answer = siis("add", "Sistema", "--institution", "MDS", *options)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert text in answer.stderr
    assert logged(url) == []


def test_certificate_file_that_cannot_be_used_ends_with_2_and_says_why(url: str, tmp_path: Path) -> None:
    old = certificate_file(tmp_path, "old.pem", start=datetime.now(UTC) - timedelta(days=40))
    for path, text in (
        (_private(tmp_path), "PRIVADA"),
        (_garbage(tmp_path), "no contiene un certificado"),
        (key_file(tmp_path), "no contiene un certificado"),
        (tmp_path / "no-existe.pem", "No se puede leer"),
        (old, "ya venció"),
    ):
        answer = siis("add", "Sistema", "--institution", "MDS", "--certificate", path)
        assert (answer.exit_code, answer.stdout) == (2, "")
        assert text in answer.stderr
    assert logged(url) == []


def _private(folder: Path) -> Path:
    path = folder / "privada.pem"
    path.write_bytes(private_pem(new_key()))
    return path


def _garbage(folder: Path) -> Path:
    path = folder / "basura.pem"
    path.write_bytes(b"\x00basura\xff")
    return path


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (_private, "PRIVADA"),
        (_garbage, "no contiene una clave"),
        (lambda folder: folder / "no-existe.pem", "No se puede leer"),
        (lambda folder: folder, "No se puede leer"),
        (lambda folder: key_file(folder, RSAKey.generate_key(2048)), "P-256"),
        (lambda folder: key_file(folder, new_key("P-384")), "P-256"),
    ],
    ids=["private", "garbage", "missing", "folder", "RSA", "P-384"],
)
@pytest.mark.parametrize("command", ["add", "rotate"])
def test_key_that_cannot_be_used_ends_with_2_and_says_why(
    url: str, tmp_path: Path, make: object, text: str, command: str
) -> None:
    assert callable(make)
    path = make(tmp_path)
    more = ["--institution", "MDS"] if command == "add" else []
    answer = siis(command, "mds-uno", "--public-key", path, *more)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert text in answer.stderr
    assert logged(url) == []
    assert listed() == []


def test_private_key_is_never_repeated_on_the_screen(url: str, tmp_path: Path) -> None:
    path = _private(tmp_path)
    answer = siis("add", "Sistema", "--institution", "MDS", "--public-key", path)
    body = path.read_text().splitlines()[1]
    assert body not in answer.output


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--institution", "NADIE"], "institución"),
        (["--institution", "MDS", "--scope", "todo"], "disclosures.create"),
        (["--institution", "MDS", "--id", "Con Espacio"], "identificador"),
        (["--institution", "MDS", "--assurance", "9"], "1 a 3"),
        ([], "institution"),
        (["--institution", "MDS", "--assurance", "alto"], "assurance"),
    ],
)
def test_unusable_input_ends_with_2(url: str, tmp_path: Path, options: list[str], text: str) -> None:
    answer = siis("add", "Sistema", "--public-key", key_file(tmp_path), *options)
    assert answer.exit_code == 2
    assert text in answer.stderr
    assert logged(url) == []


def test_what_the_register_refuses_ends_with_1(url: str, tmp_path: Path) -> None:
    key = key_file(tmp_path)
    assert siis("add", "Sistema", "--institution", "MDS", "--public-key", key, "--id", "uno").exit_code == 0
    for arguments, text in (
        (("add", "Otro", "--institution", "MDS", "--public-key", key, "--id", "uno"), "Ya hay un cliente"),
        (("rotate", "uno", "--public-key", key), "genere otra"),
        (("rotate", "dos", "--public-key", key), "No hay ningún cliente"),
        (("disable", "dos"), "No hay ningún cliente"),
    ):
        answer = siis(*arguments)
        assert answer.exit_code == 1, arguments
        assert text in answer.stderr
    assert logged(url) == ["client.added"]


@pytest.mark.parametrize("grace", ["", "24", "un día", "-1h", "31d", "99999999h"])
def test_grace_that_cannot_be_read_or_is_too_long_ends_with_2(url: str, tmp_path: Path, grace: str) -> None:
    siis("add", "Sistema", "--institution", "MDS", "--public-key", key_file(tmp_path), "--id", "uno")
    answer = siis("rotate", "uno", "--public-key", key_file(tmp_path), f"--grace={grace}")
    assert answer.exit_code == 2
    assert logged(url) == ["client.added"]


def test_change_that_the_log_does_not_take_is_not_made(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(*_: object) -> None:
        raise AuditUnavailable

    monkeypatch.setattr(AuditLog, "stage", unavailable)
    answer = siis("add", "Sistema", "--institution", "MDS", "--public-key", key_file(tmp_path))
    assert isinstance(answer.exception, AuditUnavailable)
    assert listed() == []
