"""Copies the pins of requirements.txt into ``[tool.uv] constraint-dependencies``, so that ``uv run`` installs the same.

Run after ``uv pip compile`` (see CONTRIBUTING.md): ``python deploy/pins.py``.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_PIN = re.compile(r"^([A-Za-z0-9._-]+==[^\s;\\]+)(?:\s*;\s*([^\\]+?))?\s*\\?$", re.MULTILINE)
_BLOCK = re.compile(r"constraint-dependencies = \[.*?\n\]\n", re.DOTALL)


def pins() -> list[str]:
    """Return the pins of requirements.txt, with their markers, as PEP 508 requirements."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    return [f"{pin} ; {marker}" if marker else pin for pin, marker in _PIN.findall(text)]


def block() -> str:
    """Return the setting as it must stand in pyproject.toml."""
    lines = "".join(f"    {pin!r},\n".replace('"', "'") if '"' in pin else f'    "{pin}",\n' for pin in pins())
    return f"constraint-dependencies = [\n{lines}]\n"


def main() -> None:
    """Rewrite the setting."""
    path = ROOT / "pyproject.toml"
    path.write_text(_BLOCK.sub(lambda _found: block(), path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
