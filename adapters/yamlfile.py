"""Reads a YAML file of ours so that every complaint can name its line, and nothing YAML guesses goes unnoticed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from adapters.errors import ManifestError
from schemas.text import _

_TEXT = "tag:yaml.org,2002:str"
_MAX_BYTES = 256 * 1024

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class YamlFile:
    """A YAML mapping with the line of each of its values."""

    name: str
    content: dict[str, Any]
    lines: dict[Place, int]

    def refuse(self, path: Iterable[str | int], what: str) -> NoReturn:
        """Raise :class:`~adapters.errors.ManifestError` for the value at ``path``, or the nearest one around it."""
        place = tuple(path)
        field = ".".join(str(part) for part in place) or "/"
        while place and place not in self.lines:
            place = place[:-1]
        raise ManifestError(self.name, field, what, self.lines.get(place, 1))


def read_yaml(file: Path) -> YamlFile:
    """Read one mapping.

    Raises :class:`~adapters.errors.ManifestError` for a file that cannot be read, is no YAML, is not one mapping,
    repeats a key, or has a key YAML reads as something else than text (``no``, ``1``).
    """
    try:
        raw = file.read_bytes()
        text = raw.decode("utf-8")
    except OSError as error:
        raise ManifestError(file.name, "/", _("no se puede leer: {why}").format(why=error.strerror)) from None
    except UnicodeDecodeError:
        raise ManifestError(file.name, "/", _("no está en UTF-8")) from None
    if len(raw) > _MAX_BYTES:
        raise ManifestError(file.name, "/", _("pasa de {n} bytes").format(n=_MAX_BYTES))
    try:
        tree = yaml.compose(text, Loader=yaml.CSafeLoader)
        content = yaml.load(text, Loader=yaml.CSafeLoader) if isinstance(tree, yaml.MappingNode) else None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise ManifestError(file.name, "/", _("no es YAML: {why}").format(why=error.problem), line) from None
    except (yaml.YAMLError, ValueError):
        raise ManifestError(file.name, "/", _("no es YAML")) from None
    if tree is None or not isinstance(content, dict):
        raise ManifestError(file.name, "/", _("se esperaban pares clave: valor"), 1)
    lines: dict[Place, int] = {}
    _note_lines(file.name, tree, (), lines)
    return YamlFile(file.name, content, lines)


def _note_lines(name: str, node: yaml.Node, path: Place, lines: dict[Place, int]) -> None:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for place, item in enumerate(node.value):
            _note_lines(name, item, (*path, place), lines)
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            line, field = key.start_mark.line + 1, ".".join(str(part) for part in (*path, key.value))
            if key.tag != _TEXT:
                raise ManifestError(name, field, _("esta clave debe ir entre comillas"), line)
            if key.value in seen:
                raise ManifestError(name, field, _("clave repetida"), line)
            seen.add(key.value)
            _note_lines(name, value, (*path, key.value), lines)
