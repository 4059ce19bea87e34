"""The pins that pip installs and the ones that uv resolves with are the same, and no file names a registry."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from deploy.pins import pins

ROOT = Path(__file__).resolve().parents[2]


def test_both_lists_of_pins_are_equal() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["tool"]["uv"]["constraint-dependencies"] == pins()
    assert len(pins()) > 60


def test_every_pin_has_a_hash_and_no_file_names_a_host() -> None:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert text.count("--hash=sha256:") >= len(pins())
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links", text)
