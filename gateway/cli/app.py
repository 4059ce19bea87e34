"""The root of the command line, and what every command does with the errors that are the operator's to mend."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import psycopg
import structlog
import typer
from sqlalchemy.exc import SQLAlchemyError

from adapters.errors import ManifestError, UnknownAdapter
from audit.errors import AuditError, UnsafeKeyFile
from gateway.cli import adapter, audit, client, crossing, db, demo, population, referral, register, serve, token, worker
from gateway.identity.errors import KeyFileError
from gateway.settings import SettingsError
from gateway.vault import MissingKey
from schemas.errors import DecryptionError
from schemas.text import _

app = typer.Typer(
    name="siis",
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


app.add_typer(db.app, name="db")
app.add_typer(client.app, name="client")
app.add_typer(population.app, name="population")
app.add_typer(adapter.app, name="adapter")
app.add_typer(register.app, name="register")
app.add_typer(referral.app, name="referral")
app.add_typer(crossing.app, name="crossing")
app.add_typer(audit.app, name="audit")
client.app.command("token", help=_("Pedir un token como lo hace un sistema cliente."))(token.token)
app.command("serve", help=_("Servir las interfaces HTTP."))(serve.serve)
app.command("worker", help=_("Entregar referencias y recoger contrarreferencias."))(worker.worker)
app.add_typer(demo.app, name="demo")


def run() -> None:
    """Run the command line and end the process with its exit code (DESIGN 9.17)."""
    _configure_log()
    try:
        app()
    except SettingsError as error:
        for name, what in error.problems:
            _say(f"{name}: {what}")
        raise SystemExit(2) from None
    except MissingKey as error:
        _say(_("Falta el archivo de clave {file}: no se inicia sin él.").format(file=error))
        raise SystemExit(2) from None
    except (ManifestError, KeyFileError) as error:
        _say(str(error))
        raise SystemExit(2) from None
    except UnknownAdapter as error:
        _say(_("No hay un adaptador con ese nombre: {name}").format(name=error.args[0]))
        raise SystemExit(2) from None
    except DecryptionError:
        _say(_("La clave kek.key no es la de esta base de datos: ponga la que la creó."))
        raise SystemExit(2) from None
    except UnsafeKeyFile as error:
        _say(str(error))
        raise SystemExit(2) from None
    except (SQLAlchemyError, psycopg.Error) as error:
        _say(_("La base de datos no se puede usar: {what}").format(what=_short(error)))
        _say(_("Revise SIIS_DATABASE_URL y ejecute «siis db upgrade»."))
        raise SystemExit(1) from None
    except OSError as error:
        what = _("No se puede usar {file}: {why}. Revise SIIS_DATA_DIR y los permisos.")
        _say(what.format(file=error.filename or "", why=error.strerror or type(error).__name__))
        raise SystemExit(2) from None
    except AuditError as error:
        _say(_("El registro de auditoría no se puede usar: {what}").format(what=type(error).__name__))
        raise SystemExit(1) from None


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


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _short(error: Exception) -> str:
    # Only the class and the first line of the driver's message: the rest may repeat a statement with its values.
    original = getattr(error, "orig", None) or error
    return f"{type(original).__name__}: {str(original).splitlines()[0] if str(original) else ''}"[:200]
