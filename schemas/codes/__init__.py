"""Code lists, shipped as YAML files beside this module and read once."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from schemas.errors import UnknownCode
from schemas.text import language

_FOLDER = Path(__file__).parent


@lru_cache(maxsize=64)
def code_list(name: str) -> dict[str, dict[str, Any]]:
    """Return a code list: code → its properties (``es``, ``en`` labels and more). ``name`` is the file's stem."""
    with (_FOLDER / f"{name}.yaml").open(encoding="utf-8") as stream:
        loaded = yaml.load(stream, Loader=yaml.CSafeLoader)
    if not isinstance(loaded, dict):
        raise TypeError(f"code list {name} is not a mapping")
    return loaded


def label(name: str, code: str) -> str:
    """Return a code's label in the language in force; the code itself where the list does not have it."""
    properties = code_list(name).get(code, {})
    return str(properties.get(language(), code))


def require_code(name: str, code: str) -> dict[str, Any]:
    """Return one code's properties; raise :class:`UnknownCode` if the list does not have it."""
    try:
        return code_list(name)[code]
    except KeyError:
        raise UnknownCode(name) from None
