"""The root of the command line: finds a command's module when it is called, and tells errors that are the operator's.

Most commands need a tenth of what the gateway is made of, and importing all of it takes seconds.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from typing import Annotated, Any

import structlog
import typer
from typer.core import TyperGroup
from typer.main import get_command

from schemas.text import _

# Modules of this folder, each with its commands in ``app``.
_COMMANDS = (
    "db",
    "client",
    "keys",
    "issuer",
    "agreement",
    "catalogue",
    "population",
    "status",
    "form",
    "adapter",
    "register",
    "referral",
    "delivery",
    "guidance",
    "report",
    "board",
    "link",
    "crossing",
    "funnel",
    "role",
    "emergency",
    "consent",
    "protection",
    "person",
    "rights",
    "breach",
    "subscription",
    "usage",
    "erasure",
    "audit",
    "receipt",
    "witness",
    "serve",
    "worker",
    "demo",
)


class _OnDemand(TyperGroup):
    """The commands, each imported when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Name them."""
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import one; ``None`` where there is none of this name."""
        if cmd_name not in _COMMANDS:
            return None
        command = get_command(import_module(f"gateway.cli.{cmd_name}").app)
        command.name = cmd_name
        return command


app = typer.Typer(
    name="siis",
    cls=_OnDemand,
    help=_("Pasarela de interoperabilidad del SIIS."),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root(
    lang: Annotated[str, typer.Option("--lang", help=_("Idioma de los textos: es o en."))] = "es",
) -> None:
    """Hold the options of every command."""


def run() -> None:
    """Run the command line and end the process with its exit code (DESIGN 9.17)."""
    _configure_log()
    try:
        app()
    except Exception as error:
        # Imported only now, because it knows the errors of every room.
        from gateway.cli.mistakes import told

        found = told(error)
        if found is None:
            raise
        lines, code = found
        for line in lines:
            typer.echo(line, err=True)
        raise SystemExit(code) from None


def _configure_log() -> None:
    level = logging.getLevelNamesMapping().get(os.environ.get("LOG_LEVEL", "WARNING").upper(), logging.WARNING)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
