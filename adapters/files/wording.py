"""Says to the people of an institution, in their language, which rule a row or file of theirs breaks."""

from __future__ import annotations

import re
from collections.abc import Callable

from schemas.text import _

_COLUMNS = re.compile(r"(\d+) columns, not (\d+)\Z")
_LACKS = re.compile(r"the header lacks (.+)\Z", re.DOTALL)
_LONGER = re.compile(r"the file is longer than (\d+) bytes\Z")
_SUM = re.compile(r"not the (md5|sha256) sum agreed\Z")
_TYPE = re.compile(r"not of the type (.+)\Z")
_NO_SUM = re.compile(r"the (md5|sha256) file says nothing of this file\Z")


def say(rule: str) -> str:
    """Return a rule as it stands in an outcome or reject in the language in force; an unknown one as it is."""
    words = _words().get(rule)
    if words is not None:
        return words
    for form, phrase in _phrases():
        if (match := form.match(rule)) is not None:
            return phrase(match)
    return rule


def _phrases() -> tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...]:
    return (
        (_COLUMNS, lambda found: _("{n} columnas en vez de {m}").format(n=found[1], m=found[2])),
        (_LACKS, lambda found: _("la cabecera no tiene la columna {name}").format(name=found[1])),
        (_LONGER, lambda found: _("el archivo pasa de {n} bytes").format(n=found[1])),
        (_SUM, lambda found: _("la suma {name} no es la acordada").format(name=found[1])),
        (_TYPE, lambda found: _("no es del tipo {name}").format(name=found[1])),
        (_NO_SUM, lambda found: _("el archivo {name} no habla de este archivo").format(name=found[1])),
    )


def _words() -> dict[str, str]:
    return {
        # a value
        "missing": _("falta el valor"),
        "unknown code": _("código desconocido"),
        "not a text": _("no es un texto"),
        "of another type than the contract's": _("es de otro tipo que el acordado"),
        "not a date": _("no es una fecha"),
        "not a dd/mm/yyyy date": _("no es una fecha dd/mm/aaaa"),
        "not a d/m/yyyy date": _("no es una fecha d/m/aaaa"),
        "not a yyyymmdd date": _("no es una fecha aaaammdd"),
        "not a date and time with its offset": _("no es una fecha y hora con su zona"),
        "no such day in the calendar": _("ese día no existe en el calendario"),
        "in the future": _("está en el futuro"),
        "not a month and year": _("no es un mes y año"),
        "not a cédula": _("no es un número de cédula"),
        "not a RUC with its check digit": _("no es un RUC con su dígito verificador"),
        "not a UUID": _("no es un UUID"),
        "not a whole number": _("no es un número entero"),
        "not a number with a decimal point": _("no es un número con punto decimal"),
        "not a number with a decimal comma": _("no es un número con coma decimal"),
        "not a whole number with dots for thousands": _("no es un entero con puntos de millar"),
        "neither true nor false": _("no es verdadero ni falso (true, false)"),
        "neither sí nor no": _("no es sí ni no"),
        "not a code of that many digits": _("no es un código de esa cantidad de dígitos"),
        "not an e-mail address": _("no es un correo electrónico"),
        "not a mobile number of Paraguay": _("no es un número de celular de Paraguay"),
        "not in the encoding agreed": _("tiene un carácter que no es de la codificación acordada"),
        # a row
        "unbalanced quotes": _("comillas sin cerrar o mal puestas"),
        "a cell too long": _("una celda demasiado larga"),
        "a line too long": _("una línea demasiado larga"),
        "a line of another length": _("una línea de otro largo que el acordado"),
        # a file
        "the file is empty": _("el archivo está vacío"),
        "without its header": _("no tiene la cabecera"),
        "the header is not in the encoding agreed": _("la cabecera no está en la codificación acordada"),
        "the header names a column twice": _("la cabecera nombra dos veces una columna"),
        "in UTF-16, not the encoding agreed": _("está en UTF-16: guárdelo en UTF-8"),
        "in UTF-8, not the encoding agreed": _("está en UTF-8, no en la codificación acordada"),
        "not a ZIP archive that can be read": _("no es un ZIP que se pueda leer"),
        "too many files in the archive": _("el ZIP tiene demasiados archivos"),
        "no file in the archive": _("el ZIP no tiene ningún archivo"),
        "two files of one name in the archive": _("el ZIP tiene dos archivos con el mismo nombre"),
        "the files of the archive overlap": _("los archivos del ZIP se superponen"),
        "an encrypted file in the archive": _("el ZIP tiene un archivo con clave"),
        "a file name in the archive that leads elsewhere": _("el ZIP tiene un nombre que lleva a otra carpeta"),
        "a file of the archive grows beyond measure": _("un archivo del ZIP crece fuera de toda medida"),
        "the archive grows beyond measure": _("el ZIP crece fuera de toda medida"),
        "the file cannot be opened": _("no se puede abrir el archivo"),
        "a PDF, not a table": _("es un PDF, no una tabla"),
        "compressed by gzip, not as a ZIP": _("está comprimido con gzip, no como ZIP"),
        "an Excel file older than XLSX": _("es un Excel anterior a XLSX: guárdelo como XLSX o CSV"),
        "XML or HTML, not a table": _("es XML o HTML, no una tabla"),
        "JSON, not a table": _("es JSON, no una tabla"),
        "not an XLSX file": _("no es un XLSX"),
        "not an XLSX file that can be read": _("no es un XLSX que se pueda leer"),
        "without the sheet agreed": _("no tiene la hoja acordada"),
        "a sheet too large to be read": _("la hoja es demasiado grande para leerla"),
    }
