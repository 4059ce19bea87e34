"""RFC 6962 and 9162 inclusion proofs, good and tampered, as other implementations of the tree publish them."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from audit.verify import verify_inclusion


def test_each_published_inclusion_proof_gets_its_verdict(samples: Path) -> None:
    files = sorted((samples / "vectors" / "merkle-inclusion").rglob("*.json"))
    assert len(files) > 90
    verdicts = {path: json.loads(path.read_text()) for path in files}
    wrong = [str(path) for path, vector in verdicts.items() if holds(vector) == vector["wantErr"]]
    assert wrong == []
    assert {vector["wantErr"] for vector in verdicts.values()} == {True, False}


def holds(vector: dict[str, object]) -> bool:
    """Ask our verifier about one vector."""
    proof = [decode(item) for item in vector["proof"] or []]  # type: ignore[attr-defined]
    leaf, root = decode(vector["leafHash"]), decode(vector["root"])
    return verify_inclusion(leaf, int(str(vector["leafIdx"])), int(str(vector["treeSize"])), proof, root)


def decode(text: object) -> bytes:
    return base64.b64decode(str(text))
