"""Proofs carried away: valid as the log made them, and not valid after any change, cut, exchange or swelling."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proof_examples import NEXT, SIGNER, YEAR, SmallLog, a_log, cosigned, policy_text, vkey

from audit.checkpoint import sign_checkpoint
from audit.verify import (
    EMPTY_ROOT,
    NotValid,
    check_checkpoints,
    check_proof,
    format_proof,
    leaf_hash,
    main,
    parse_policy,
    parse_proof,
)

LOG = a_log(7)
NOTE = cosigned(LOG.note(), "w1", "w2")
TEXT = policy_text("two")
POLICY = parse_policy(TEXT)
PROOF = format_proof(3, LOG.inclusion(3), NOTE)
LEAF = LOG.leaf(3)
OTHER = SmallLog(signer=SIGNER, envelopes=[b"another", *LOG.envelopes[1:]])
ELSEWHERE = SmallLog(signer=NEXT, envelopes=LOG.envelopes)


def kind_of(proof: str, leaf: bytes = LEAF) -> str:
    with pytest.raises(NotValid) as caught:
        check_proof(proof, leaf, POLICY)
    return caught.value.kind


def test_a_proof_is_what_the_format_says_and_verifies() -> None:
    lines = PROOF.split("\n")
    assert lines[:2] == ["c2sp.org/tlog-proof@v1", "index 3"]
    assert [base64.b64decode(line) for line in lines[2:5]] == LOG.inclusion(3)
    assert (lines[5], PROOF.endswith(NOTE)) == ("", True)
    assert parse_proof(PROOF).hashes == tuple(LOG.inclusion(3))
    signed = check_proof(PROOF, LEAF, POLICY)
    assert (signed.checkpoint.size, signed.witnesses.keys()) == (7, {"w1", "w2"})


def test_the_proof_of_the_only_entry_has_no_hashes() -> None:
    log = a_log(1)
    proof = format_proof(0, [], cosigned(log.note(), "w1", "w2"))
    assert check_proof(proof, log.leaf(0), POLICY).checkpoint.size == 1


def test_extra_data_is_read_and_proves_nothing() -> None:
    told = PROOF.replace("\nindex", "\nextra cG9lbQ==\nindex")
    assert parse_proof(told).extra == b"poem"
    assert check_proof(told, LEAF, POLICY).checkpoint.size == 7


@pytest.mark.parametrize(
    ("proof", "kind"),
    [
        ("", "malformed"),
        (PROOF.replace("v1", "v2", 1), "malformed"),
        (PROOF.replace("index 3", "index 03"), "malformed"),
        (PROOF.replace("index 3", "index -3"), "malformed"),
        (PROOF.replace("index 3", "index 3\nindex 3"), "malformed"),
        (PROOF.replace("\nindex", "\nextra \nindex"), "malformed"),
        (PROOF.replace("\nindex", "\nextra QQ==\nextra QQ==\nindex"), "malformed"),
        (PROOF.replace("index 3\n", "index 3\n" + base64.b64encode(bytes(31)).decode() + "\n"), "malformed"),
        (PROOF.replace("index 3\n", "index 3\n" + (base64.b64encode(bytes(32)).decode() + "\n") * 64), "malformed"),
        (PROOF.replace("index 3", f"index {'9' * 5_000}"), "malformed"),
        (PROOF.replace("\n", "\r\n"), "malformed"),
        (PROOF + "x" * 3_000_000, "malformed"),
        (PROOF.replace("index 3", "index 2"), "changed"),
        (PROOF.replace("index 3", "index 7"), "missing"),
        (PROOF.replace("index 3", f"index {(1 << 63) - 1}"), "missing"),
        (format_proof(3, LOG.inclusion(3)[:-1], NOTE), "changed"),
        (format_proof(3, [*LOG.inclusion(3), bytes(32)], NOTE), "changed"),
        (format_proof(3, LOG.inclusion(3), cosigned(OTHER.note(), "w1", "w2")), "changed"),
        (format_proof(3, LOG.inclusion(3), cosigned(LOG.note(), "w1")), "signature"),
        (format_proof(3, LOG.inclusion(3), NOTE.replace("\n7\n", "\n8\n")), "signature"),
        (format_proof(3, LOG.inclusion(3), ELSEWHERE.note()), "foreign"),
    ],
)
def test_a_proof_that_does_not_hold_is_named(proof: str, kind: str) -> None:
    assert kind_of(proof) == kind


def test_the_leaf_of_another_entry_is_not_proved() -> None:
    assert kind_of(PROOF, LOG.leaf(2)) == "changed"
    assert kind_of(PROOF, leaf_hash(b"")) == "changed"


@given(st.data())
def test_no_byte_of_a_proof_can_be_another(data: st.DataObject) -> None:
    raw = PROOF.encode()
    place = data.draw(st.integers(0, len(raw) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != raw[place]))
    with pytest.raises((NotValid, UnicodeDecodeError)):
        check_proof((raw[:place] + bytes([byte]) + raw[place + 1 :]).decode(), LEAF, POLICY)


@given(st.integers(0, len(PROOF) - 1))
def test_a_proof_cut_anywhere_is_not_valid(length: int) -> None:
    with pytest.raises(NotValid):
        check_proof(PROOF[:length], LEAF, POLICY)


NONE = parse_policy(f"log {vkey(NEXT.verifier)}\n{policy_text()}")


@pytest.mark.parametrize(("old", "new"), [(1, 7), (3, 7), (4, 7), (6, 7)])
def test_a_log_that_only_grew_proves_it(old: int, new: int) -> None:
    before, after, proof = LOG.note(old), LOG.note(new), LOG.consistency(old, new)
    assert check_checkpoints(before, after, NONE, proof)
    assert not check_checkpoints(before, after, NONE)
    for wrong in (proof[:-1], [*proof, bytes(32)], [], LOG.consistency(5, 6)):
        with pytest.raises(NotValid, match="not_a_prefix"):
            check_checkpoints(before, after, NONE, wrong)
    with pytest.raises(NotValid, match="not_a_prefix"):
        check_checkpoints(before, OTHER.note(new), NONE, proof)


def test_contradictions_show_without_a_proof() -> None:
    assert check_checkpoints(NOTE, LOG.note(), NONE)
    assert check_checkpoints(sign_checkpoint(SIGNER, 0, EMPTY_ROOT), NOTE, NONE)
    for old, new, kind in (
        (LOG.note(7), LOG.note(6), "más corto"),
        (LOG.note(7), OTHER.note(7), "dos caras"),
        (LOG.note(7), ELSEWHERE.note(7), "foreign"),
    ):
        with pytest.raises(NotValid, match=kind):
            check_checkpoints(old, new, NONE)


@pytest.fixture
def papers(tmp_path: Path) -> dict[str, str]:
    """Write what an auditor carries away."""
    files = {
        "proof": PROOF,
        "policy": TEXT,
        "plain": policy_text(),
        "old": LOG.note(3),
        "new": NOTE,
        "hashes": "".join(f"{base64.b64encode(node).decode()}\n" for node in LOG.consistency(3, 7)),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, newline="\n")
    (tmp_path / "noise").write_bytes(b"\xff\xfe" * 100)
    (tmp_path / "large").write_bytes(b"a" * 3_000_000)
    return {name: str(tmp_path / name) for name in (*files, "noise", "large", "absent")}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (f"proof proof --leaf {LEAF.hex()} --policy policy", 0, f"VÁLIDO siis.example/audit/{YEAR} index=3"),
        (f"proof proof --leaf {LOG.leaf(2).hex()} --policy policy", 1, "NO VÁLIDO changed index=3"),
        ("proof proof --leaf 00 --policy policy", 1, "NO VÁLIDO malformed"),
        (f"proof noise --leaf {LEAF.hex()} --policy policy", 1, "NO VÁLIDO malformed"),
        (f"proof large --leaf {LEAF.hex()} --policy policy", 1, "NO VÁLIDO malformed"),
        (f"proof proof --leaf {LEAF.hex()} --policy noise", 1, "NO VÁLIDO malformed"),
        (f"proof absent --leaf {LEAF.hex()} --policy policy", 2, "No se puede leer"),
        ("checkpoints old new --policy plain --proof hashes", 0, "VÁLIDO"),
        ("checkpoints new old --policy plain", 1, "NO VÁLIDO not_a_prefix"),
        ("checkpoints old new --policy plain", 2, "--proof"),
        ("checkpoints old new --policy plain --proof noise", 1, "NO VÁLIDO malformed"),
        ("checkpoints old new --policy policy", 1, "NO VÁLIDO signature"),
        ("proof proof", 2, "--leaf"),
        ("", 2, "usage"),
    ],
    ids=range(14),
)
def test_the_commands_give_a_verdict_and_its_exit_code(
    papers: dict[str, str], capsys: pytest.CaptureFixture[str], arguments: str, code: int, said: str
) -> None:
    given_ = [papers.get(word, word) if place else word for place, word in enumerate(arguments.split())]
    try:
        ended: object = main(given_)
    except SystemExit as stop:
        ended = stop.code
    shown = capsys.readouterr()
    assert ended == code
    assert said in shown.out + shown.err
