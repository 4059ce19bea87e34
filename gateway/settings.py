"""Settings of one deployment: read once from the environment and from files of secrets, refused when wrong."""

from __future__ import annotations

import os
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from schemas.text import _

# Read elsewhere: the samples by the tests and the demo, the language before the command line is built,
# the password of the simulated institutions by the simulators.
_OTHER_NAMES = {"SIIS_SAMPLES", "SIIS_LANG", "SIIS_SIM_PASSWORD"}


class SettingsError(ValueError):
    """One or more settings are wrong; ``problems`` holds (name, what was expected)."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{name}: {what}" for name, what in problems))
        self.problems = problems


class Settings(BaseSettings):
    """The settings, each from ``SIIS_<NAME>`` or from the file of that name in ``SIIS_SECRETS_DIR``."""

    model_config = SettingsConfigDict(env_prefix="SIIS_", extra="forbid", frozen=True)

    data_dir: Path = Field(default=Path(".siis"), description="folder of the embedded database, keys and state")
    database_url: SecretStr | None = Field(default=None, description="postgresql://… of the application role")
    database_owner_url: SecretStr | None = Field(default=None, description="postgresql://… of the migration role")
    secrets_dir: Path | None = Field(default=None, description="folder with one file per secret")
    connections: Path | None = Field(default=None, description="YAML file: adapter name → address")
    manifests: Path | None = Field(default=None, description="folder with manifests beside those shipped")
    issuer: str = Field(default="http://127.0.0.1:8080", pattern=r"^https?://[^/?#\s]+(/[^?#\s]*)?$")
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    recorder: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")] = "siis-gateway"
    log_origin: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9./-]{0,120}$")] = "siis.gov.py/audit"
    witnesses: Path | None = Field(default=None, description="C2SP tlog-policy file: our witnesses and their quorum")
    witness_interval_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    witness_limit_s: Annotated[float, Field(ge=60, le=7 * 24 * 3600)] = 4 * 3600.0
    witness_name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9./-]{0,120}$")] | None = None
    timestamp_url: Annotated[str, Field(pattern=r"^https?://[^?#\s@]+$")] | None = None
    timestamp_roots: Path | None = Field(default=None, description="PEM file: roots of the time-stamp authority")
    max_body_bytes: Annotated[int, Field(ge=1024, le=16 * 1024 * 1024)] = 512 * 1024
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        default=(), description="networks of our reverse proxies, separated by commas"
    )
    client_rate: Annotated[float, Field(ge=1, le=100_000)] = 200.0
    worker_metrics_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=0, description="port where the worker shows its metrics; 0: none"
    )
    worker_concurrency: Annotated[int, Field(ge=1, le=256)] = Field(
        default=16, description="messages to one institution that a worker has under way at once"
    )
    poll_interval_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    retry_first_s: Annotated[float, Field(gt=0, le=3600)] = 5.0
    retry_attempts: Annotated[int, Field(ge=1, le=50)] = 20

    @field_validator("database_url", "database_owner_url")
    @classmethod
    def _postgresql_only(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("an address that starts with postgresql://")
        return value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
        except ValueError:
            raise ValueError("networks as 10.0.0.0/8, separated by commas") from None

    @cached_property
    def keys_dir(self) -> Path:
        """Folder of the key-encryption key, the log's key and the token keys."""
        return (self.secrets_dir or self.data_dir) / "keys"

    @cached_property
    def connections_file(self) -> Path:
        """The file that says where the producers' systems are."""
        return self.connections or self.data_dir / "connections.yaml"

    @cached_property
    def producer_secrets_dir(self) -> Path:
        """Folder with the secrets that manifests name."""
        return self.secrets_dir or self.data_dir / "secrets"

    @property
    def embedded(self) -> bool:
        """Whether the database is the embedded one."""
        return self.database_url is None


def load_settings(**overrides: object) -> Settings:
    """Read the settings; raise :class:`SettingsError` naming each wrong one and what was expected."""
    known = {f"SIIS_{name.upper()}" for name in Settings.model_fields} | _OTHER_NAMES
    unknown = sorted(name for name in os.environ if name.startswith("SIIS_") and name not in known)
    if unknown:
        raise SettingsError([(name, _("este ajuste no existe")) for name in unknown])
    secrets = os.environ.get("SIIS_SECRETS_DIR")
    if secrets and not Path(secrets).is_dir():
        raise SettingsError([("SIIS_SECRETS_DIR", _("se esperaba una carpeta que exista"))])
    try:
        return Settings(_secrets_dir=secrets, **overrides)  # type: ignore[arg-type, call-arg]
    except ValidationError as error:
        raise SettingsError(
            [
                (f"SIIS_{'_'.join(str(part) for part in item['loc']).upper()}", _expected(item["msg"]))
                for item in error.errors(include_input=False, include_url=False)
            ]
        ) from None


def _expected(message: str) -> str:
    return _("se esperaba: {what}").format(what=message.removeprefix("Value error, ").removeprefix("Input should be "))
