"""Decides which class speaks for a manifest's kind: one of ours, or one an installed package offers."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from adapters.base import ProducerAdapter
from adapters.manifest import Manifest
from schemas.text import _

GROUP = "siis.adapters"
# Imported when a manifest asks for it: each brings a library that takes its time.
_OURS = {
    "file": ("adapters.files.adapter", "FileAdapter"),
    "rest": ("adapters.rest", "RestAdapter"),
    "soap": ("adapters.soap.adapter", "SoapAdapter"),
    "sql": ("adapters.sql", "SqlAdapter"),
}


def kind_of(manifest: Manifest) -> type[ProducerAdapter]:
    """Return the class of a manifest's kind.

    Raises :class:`~adapters.errors.ManifestError` for a kind nobody offers, one that cannot be imported, or one that is
    no :class:`~adapters.base.ProducerAdapter`.
    """
    try:
        found = _load(manifest.kind)
    except LookupError:
        others = ", ".join(sorted({*_OURS, *(point.name for point in entry_points(group=GROUP))}))
        manifest.source.refuse(["kind"], _("no hay este tipo; los hay: {names}").format(names=others))
    except ImportError as error:
        manifest.source.refuse(["kind"], _("no se puede cargar: {why}").format(why=error))
    if not (isinstance(found, type) and issubclass(found, ProducerAdapter)):
        manifest.source.refuse(["kind"], _("no es un ProducerAdapter"))
    return found


@cache
def _load(kind: str) -> object:
    if kind in _OURS:
        module, name = _OURS[kind]
        return getattr(import_module(module), name)
    for point in entry_points(group=GROUP):
        if point.name == kind:
            return point.load()
    raise LookupError(kind)
