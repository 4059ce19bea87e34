"""The file that says who watches the log: read to the letter of C2SP tlog-policy, refused with line and reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.checkpoint import Signer
from audit.verify import COSIGNATURE, ED25519, format_key, parse_policy
from gateway.settings import SettingsError
from gateway.witnesses.policy import policy_text, read_witnesses

SIGNER = Signer("siis.example/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


def vkey(number: int, kind: int = COSIGNATURE) -> str:
    key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32).public_key().public_bytes_raw()
    return format_key(f"witness.example/{number}", kind, key)


ONE, TWO, THREE = vkey(1), vkey(2), vkey(3)
GOOD = f"""# Los testigos del registro
witness uno {ONE} https://uno.example/siis/
\twitness  dos\t{TWO} http://127.0.0.1:8090
witness tres {THREE} https://tres.example

group dos-de-tres 2 uno dos tres
quorum dos-de-tres
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "witnesses.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_witnesses_have_their_addresses_and_the_quorum_counts_keys_not_names(tmp_path: Path) -> None:
    found = read_witnesses(written(tmp_path, GOOD))
    addresses = {witness.name: witness.address for witness in found.known}
    assert addresses == {
        "uno": "https://uno.example/siis",
        "dos": "http://127.0.0.1:8090",
        "tres": "https://tres.example",
    }
    ids = [witness.id for witness in found.known]
    assert ids[0] == ONE.rpartition("+")[0]
    assert found.quorum_met(ids[:2])
    assert not found.quorum_met([ids[0], ids[0], "witness.example/2+00000000", "dos"])


def test_the_policy_for_others_has_our_keys_and_no_addresses(tmp_path: Path) -> None:
    text = policy_text(SIGNER, [2026], written(tmp_path, GOOD))
    policy = parse_policy(text)
    assert policy.logs == {"siis.example/log/2026": SIGNER.of(2026).verifier}
    assert (set(policy.witnesses), policy.quorum) == ({"uno", "dos", "tres"}, "dos-de-tres")
    assert "://" not in text
    alone = parse_policy(policy_text(SIGNER, [2026], None))
    assert (alone.quorum, dict(alone.witnesses)) == ("none", {})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"log {vkey(9, ED25519)}\n{GOOD}", 1),
        (f"witness uno {ONE}\nquorum uno\n", 1),
        (f"witness uno {ONE} ftp://uno.example\nquorum uno\n", 1),
        (f"witness uno {ONE} https://ana:clave@uno.example\nquorum uno\n", 1),
        (f"witness uno {ONE} https://uno.example?a=b\nquorum uno\n", 1),
        (f"witness uno {ONE} https://uno.example:x\nquorum uno\n", 1),
        (f"witness uno {vkey(1, ED25519)} https://uno.example\nquorum uno\n", 1),
        (f"witness uno {ONE[:-2]} https://uno.example\nquorum uno\n", 1),
        (GOOD.replace(TWO, ONE), 3),
        (GOOD.replace("dos\t", "uno\t"), 3),
        (GOOD.replace("2 uno", "4 uno"), 6),
        (GOOD.replace("quorum dos-de-tres", "quorum cuatro"), 7),
        (GOOD + "quorum uno\n", 8),
        (GOOD + "testigo\n", 8),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SettingsError) as refused:
        read_witnesses(path)
    [(setting, what)] = refused.value.problems
    assert setting == "SIIS_WITNESSES"
    assert what.startswith(f"{path}:{line}: ")


@pytest.mark.parametrize("data", [None, b"", b"quorum none\n", b"# ni un testigo\n", b"# \xff\nquorum none\n"])
def test_a_file_without_a_quorum_is_refused(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "witnesses.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(SettingsError):
        read_witnesses(path)
