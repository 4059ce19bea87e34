"""Decides what a command says of an error that is the operator's to mend, and with which exit code it ends."""

from __future__ import annotations

import psycopg
from sqlalchemy.exc import SQLAlchemyError

from adapters.errors import ManifestError, UnknownAdapter
from audit.errors import AuditError, UnsafeKeyFile
from gateway.identity.errors import KeyFileError
from gateway.migrations.errors import CannotCarryOver
from gateway.settings import SettingsError
from gateway.vault import MissingKey
from schemas.errors import DecryptionError
from schemas.text import _


def told(error: Exception) -> tuple[list[str], int] | None:
    """Return what to say of an error and the exit code (DESIGN 9.17); ``None`` for a defect of ours."""
    match error:
        case SettingsError():
            return [f"{name}: {what}" for name, what in error.problems], 2
        case MissingKey():
            return [_("Falta el archivo de clave {file}: no se inicia sin él.").format(file=error)], 2
        case ManifestError() | KeyFileError() | UnsafeKeyFile():
            return [str(error)], 2
        case UnknownAdapter():
            return [_("No hay un adaptador con ese nombre: {name}").format(name=error.args[0])], 2
        case DecryptionError():
            return [_("La clave kek.key no es la de esta base de datos: ponga la que la creó.")], 2
        case CannotCarryOver():
            return [
                _("La base guarda un registro de una versión anterior, que no se puede continuar: use una base nueva.")
            ], 2
        case SQLAlchemyError() | psycopg.Error():
            return [
                _("La base de datos no se puede usar: {what}").format(what=_short(error)),
                _("Revise SIIS_DATABASE_URL y ejecute «siis db upgrade»."),
            ], 1
        case OSError():
            what = _("No se puede usar {file}: {why}. Revise SIIS_DATA_DIR y los permisos.")
            return [what.format(file=error.filename or "", why=error.strerror or type(error).__name__)], 2
        case AuditError():
            return [_("El registro de auditoría no se puede usar: {what}").format(what=type(error).__name__)], 1
    return None


def _short(error: Exception) -> str:
    # Only the class and the first line of the driver's message: the rest may repeat a statement with its values.
    original = getattr(error, "orig", None) or error
    return f"{type(original).__name__}: {str(original).splitlines()[0] if str(original) else ''}"[:200]
