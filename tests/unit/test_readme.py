"""What the README tells a reader to type is there, and its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, cast

import pytest
import typer
from typer.testing import CliRunner

from gateway.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SHELL = [text.strip() for language, text in BLOCKS if language == "sh"]
COMMANDS = [
    part.split("uv run siis ", 1)[1]
    for block in SHELL
    for line in block.splitlines()
    for part in line.split("&&")
    if "uv run siis " in part
]


def test_the_first_two_blocks_do_all_the_set_up() -> None:
    assert SHELL[:2] == ["pip install uv && uv run siis demo", "pip install uv && uv run pytest"]


def test_above_them_is_one_paragraph_and_no_more() -> None:
    before = README.split("```")[0].strip().split("\n\n")
    assert [paragraph.startswith("# ") for paragraph in before] == [True, False, False]
    assert before[2].endswith(":")


def test_blocks_are_of_kinds_that_are_tested() -> None:
    assert {language for language, _text in BLOCKS} <= {"sh", "mermaid"}
    lines = [line for block in SHELL for line in block.splitlines()]
    assert all(re.search(r"uv run (siis|pytest)", line) for line in lines)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_is_one_of_the_program(command: str) -> None:
    answer = CliRunner().invoke(app, [*shlex.split(command), "--help"])
    assert answer.exit_code == 0, answer.output
    assert "Usage" in answer.output


def test_the_commands_shown_are_of_every_group() -> None:
    groups = cast(Any, typer.main.get_command(app)).list_commands(None)
    assert {command.split()[0] for command in COMMANDS} == set(groups)


def test_ci_ends_with_the_test_command_of_the_readme() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").strip().splitlines()
    assert lines[-1] == SHELL[1]


def test_it_fits_on_a_few_screens() -> None:
    assert len(README.splitlines()) <= 120
