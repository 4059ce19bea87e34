"""Every text that a person reads has its English translation, and the compiled catalogue is the one of siis.po.

After a text was added or changed: extract, update, translate what is still empty in siis.po, compile.

    pybabel -q extract -F babel.cfg --no-location --sort-output -o siis.pot gateway adapters schemas consent audit
    pybabel -q update -N --ignore-obsolete --ignore-pot-creation-date -D siis -d schemas/locale -l en -i siis.pot
    pybabel -q compile -D siis -d schemas/locale -l en && rm siis.pot
"""

from __future__ import annotations

import ast
import contextvars
import os
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from string import Formatter

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir, extract_from_file
from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po

from schemas.text import _, set_language

_ROOT = Path(__file__).resolve().parent.parent.parent
_PACKAGES = ("gateway", "adapters", "schemas", "consent", "audit")
_KEYWORDS = {"_": None}
_CATALOGUE = _ROOT / "schemas" / "locale" / "en" / "LC_MESSAGES" / "siis.po"
_UPDATE = "bring siis.po up to date; the first lines of this test tell how"


@pytest.fixture(scope="module")
def english() -> Catalog:
    with _CATALOGUE.open("rb") as stream:
        return read_po(stream, locale="en", abort_invalid=True)


@pytest.fixture(scope="module")
def spanish() -> dict[str, str]:
    """Every message of the sources, with one of the places where it stands."""
    found: dict[str, str] = {}
    for package in _PACKAGES:
        for file, line, message, _comments, _context in extract_from_dir(_ROOT / package, keywords=_KEYWORDS):
            assert isinstance(message, str)
            found[message] = f"{package}/{file}:{line}"
    assert found
    return found


def test_every_message_of_the_sources_has_an_english_text(english: Catalog, spanish: dict[str, str]) -> None:
    texts = _texts(english)
    fuzzy = {message.id for message in english if message.fuzzy}
    missing = [f"{place}: {text}" for text, place in spanish.items() if not texts.get(text) or text in fuzzy]
    assert not missing, f"{_UPDATE}: {missing}"


def test_catalogue_holds_no_message_that_the_sources_no_longer_have(english: Catalog, spanish: dict[str, str]) -> None:
    left = [text for text in _texts(english) if text not in spanish]
    assert not [*left, *english.obsolete], _UPDATE


def test_placeholders_of_a_translation_are_those_of_its_message(english: Catalog) -> None:
    for message, text in _texts(english).items():
        assert _placeholders(text) == _placeholders(message)


def test_compiled_catalogue_is_the_one_of_the_translations(english: Catalog) -> None:
    compiled = BytesIO()
    write_mo(compiled, english)
    compiled.seek(0)
    with _CATALOGUE.with_suffix(".mo").open("rb") as stream:
        committed = read_mo(stream)
    # The header names the version of Babel, which may be another one here.
    assert _texts(committed) == _texts(read_mo(compiled)), _UPDATE


def test_only_literal_texts_are_translated_because_no_other_is_found_in_the_sources() -> None:
    hidden = [
        f"{path.relative_to(_ROOT)}:{call.lineno}"
        for package in _PACKAGES
        for path in (_ROOT / package).rglob("*.py")
        for call in _calls(path)
        if not (len(call.args) == 1 and isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str))
    ]
    assert hidden == []


@pytest.mark.parametrize("file", ["gateway/api/oauth.py", "gateway/identity/oauth.py"])
def test_6749_5_2_english_error_descriptions_stay_within_ascii(file: str, english: Catalog) -> None:
    found = extract_from_file("python", _ROOT / file, _KEYWORDS)
    assert found
    for _line, message, *_rest in found:
        assert isinstance(message, str)
        text = _texts(english)[message]
        assert text.isascii()
        assert text.isprintable()
        assert not set(text) & {'"', "\\"}


def test_text_follows_the_language_in_force() -> None:
    def in_english() -> str:
        set_language("en")
        return _("No se encontró")

    assert contextvars.copy_context().run(in_english) == "Not found"
    assert _("No se encontró") == "No se encontró"


@pytest.mark.parametrize(
    ("arguments", "shown", "not_shown"),
    [
        ([], "Servir las interfaces HTTP.", "Serve the HTTP interfaces."),
        (["--lang", "en"], "Serve the HTTP interfaces.", "Servir las interfaces HTTP."),
    ],
    ids=["spanish-by-default", "english-on-request"],
)
def test_command_line_help_is_in_the_language_asked_for(arguments: list[str], shown: str, not_shown: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SIIS_LANG"}
    environment |= {"COLUMNS": "200", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "gateway.cli", *arguments, "--help"]
    done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
    assert not_shown not in done.stdout


def _placeholders(text: str) -> list[tuple[str, str | None, str | None]]:
    parsed = Formatter().parse(text)
    return sorted((name, spec, conversion) for _literal, name, spec, conversion in parsed if name is not None)


def _texts(catalogue: Catalog) -> dict[str, str]:
    return {str(message.id): str(message.string) for message in catalogue if message.id}


def _calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
            yield node
