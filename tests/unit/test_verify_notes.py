"""Notes, keys, checkpoints, cosignatures and policies: what C2SP says is read, and nothing else is."""

from __future__ import annotations

import base64
import contextlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from proof_examples import POLICY, SIGNER, TIME, WITNESSES, a_log, cosigned, policy_text, vkey, witness_key

from audit.checkpoint import sign_checkpoint, sign_note
from audit.verify import (
    COSIGNATURE,
    ED25519,
    Checkpoint,
    NotValid,
    Policy,
    check_cosignature,
    format_key,
    open_checkpoint,
    parse_checkpoint,
    parse_key,
    parse_note,
    parse_policy,
    parse_proof,
)

ROOT = bytes(range(32))
ROOT64 = base64.b64encode(ROOT).decode()
NOTE = sign_checkpoint(SIGNER, 42, ROOT)
LOG = vkey(SIGNER.verifier)
W1, W2, W3 = (vkey(witness_key(name)) for name in WITNESSES)


def kind_of(action: Any, *arguments: Any) -> str:
    with pytest.raises(NotValid) as caught:
        action(*arguments)
    return caught.value.kind


@pytest.mark.parametrize("kind", [ED25519, COSIGNATURE])
def test_a_verifier_key_is_read_as_it_is_written(kind: int) -> None:
    text = format_key("siis.example/audit", kind, ROOT)
    key = parse_key(text)
    assert (key.name, key.kind, key.key) == ("siis.example/audit", kind, ROOT)
    assert format_key(key.name, key.kind, key.key) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+00000000",
        LOG.replace("siis", "si is"),
        LOG.replace("siis", ""),
        "+" + LOG.split("+", 1)[1],
        LOG[:-1],
        LOG + "A",
        LOG + "\n",
        format_key("other", ED25519, SIGNER.verifier.key).replace("other", "another"),
        format_key("name", 6, ROOT),
        format_key("name", ED25519, ROOT[:31]),
        format_key("name", ED25519, ROOT + b"\0"),
    ],
)
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    assert kind_of(parse_key, text) == "malformed"


@pytest.mark.parametrize(
    "note",
    [
        "",
        "text\n",
        "text\n\n",
        "text\n\n— name QUFBQUE=",
        "text\n— name QUFBQUE=\n",
        "text\n\n- name QUFBQUE=\n",
        "text\n\n—name QUFBQUE=\n",
        "text\n\n— na+me QUFBQUE=\n",
        "text\n\n— na\u00a0me QUFBQUE=\n",
        "text\n\n—  QUFBQUE=\n",
        "text\n\n— name QUFBQQ==\n",
        "text\n\n— name QUFBQUE\n",
        "text\n\n— name QUFBQUF=\n",
        "text\n\n— name QUFBQUE= \n",
        "te\txt\n\n— name QUFBQUE=\n",
        "text\r\n\n— name QUFBQUE=\n",
        "a\ud800\n\n— name QUFBQUE=\n",
        "x" * 1_100_000 + "\n\n— name QUFBQUE=\n",
        "text\n\n" + "— name QUFBQUE=\n" * 101,
    ],
)
def test_what_is_no_note_is_refused(note: str) -> None:
    assert kind_of(parse_note, note) == "malformed"


def test_the_last_blank_line_parts_text_and_signatures() -> None:
    assert parse_note("one\n\ntwo\n\n— name QUFBQUE=\n") == ("one\n\ntwo\n", [("name", b"AAAAA")])
    assert len(parse_note("text\n\n" + f"— name {base64.b64encode(bytes(5_000)).decode()}\n" * 16)[1]) == 16


def test_extension_lines_are_read_over() -> None:
    assert parse_checkpoint(f"two words\n42\n{ROOT64}\nsomething\n") == Checkpoint("two words", 42, ROOT)


@pytest.mark.parametrize("size", ["", "042", "-1", "+1", "4 2", "1e3", "٤٢", "9" * 20, str(1 << 63), "1" * 10_000])
def test_a_size_that_is_not_a_plain_number_is_refused(size: str) -> None:
    assert kind_of(parse_checkpoint, f"origin\n{size}\n{ROOT64}\n") == "malformed"


@pytest.mark.parametrize("root", ["", "AAAA", "not base64", ROOT64[:-1], ROOT64[:-2] + "9="])
def test_a_root_that_is_not_a_hash_is_refused(root: str) -> None:
    assert kind_of(parse_checkpoint, f"origin\n42\n{root}\n") == "malformed"


@pytest.mark.parametrize(
    "text", ["", "origin\n42\n", f"\n42\n{ROOT64}\n", f"o\n42\n{ROOT64}", f"o\n42\n{ROOT64}\n\nx\n"]
)
def test_a_checkpoint_has_three_lines_and_no_empty_one(text: str) -> None:
    assert kind_of(parse_checkpoint, text) == "malformed"


def test_the_log_and_the_witnesses_of_the_policy_are_told() -> None:
    signed = open_checkpoint(cosigned(cosigned(NOTE, "w1", "w2"), "w1", time=TIME + 60), POLICY)
    assert signed.checkpoint == Checkpoint(SIGNER.origin, 42, ROOT)
    assert signed.witnesses == {"w1": TIME + 60, "w2": TIME}


def test_signatures_of_strangers_are_ignored() -> None:
    text = NOTE.partition("\n\n")[0] + "\n"
    stranger = sign_note(text, SIGNER.origin, Ed25519PrivateKey.generate()).rpartition("\n\n")[2]
    assert open_checkpoint(NOTE + stranger, POLICY).checkpoint.size == 42


@pytest.mark.parametrize(
    "line",
    [
        sign_checkpoint(SIGNER, 43, ROOT).rpartition("\n\n")[2],
        cosigned(sign_checkpoint(SIGNER, 43, ROOT), "w1").rpartition("\n— ")[2].join(["— ", ""]),
    ],
)
def test_one_false_signature_of_a_known_key_condemns_the_note(line: str) -> None:
    assert kind_of(open_checkpoint, NOTE + line, POLICY) == "signature"


def test_a_cosignature_holds_for_one_time_and_one_text() -> None:
    key, text = witness_key("w1"), NOTE.partition("\n\n")[0] + "\n"
    good = parse_note(cosigned(NOTE, "w1"))[1][1][1]
    assert check_cosignature(key, text, good) == TIME
    for wrong in (good[:-1], good[:4] + bytes(8) + good[12:], good[:4] + b"\xff" * 8 + good[12:], good[:6], b""):
        assert kind_of(check_cosignature, key, text, wrong) == "signature"
    assert kind_of(check_cosignature, key, text + "more\n", good) == "signature"


def test_a_witness_signs_no_time_beyond_what_the_format_has() -> None:
    assert open_checkpoint(cosigned(NOTE, "w1", time=(1 << 63) - 1), POLICY).witnesses == {"w1": (1 << 63) - 1}
    assert kind_of(open_checkpoint, cosigned(NOTE, "w1", time=1 << 63), POLICY) == "signature"


@pytest.mark.parametrize(
    ("quorum", "names", "met"),
    [
        ("none", (), True),
        ("w1", (), False),
        ("w1", ("w1",), True),
        ("w1", ("w2", "w3"), False),
        ("two", ("w1",), False),
        ("two", ("w1", "w3"), True),
    ],
)
def test_the_quorum_decides(quorum: str, names: tuple[str, ...], met: bool) -> None:
    policy, note = parse_policy(policy_text(quorum)), cosigned(NOTE, *names)
    if met:
        assert open_checkpoint(note, policy).witnesses.keys() == set(names)
    else:
        assert kind_of(open_checkpoint, note, policy) == "signature"


def test_groups_of_groups_are_counted_each_by_its_threshold() -> None:
    text = (
        f"# comment\n\n\t log  {LOG} https://log.example/ \n witness X1\t{W1}\nwitness X2 {W2} https://w.example\n"
        f"witness Y1 {W3}\ngroup X any X1 X2\ngroup Y all Y1\ngroup both 2 X Y\nquorum both\n"
    )
    policy = parse_policy(text)
    assert policy.logs == {SIGNER.origin: SIGNER.verifier}
    assert policy.quorum_met({"X2", "Y1"})
    assert not policy.quorum_met({"X1", "X2"})
    assert not policy.quorum_met({"both", "X", "Y", "stranger"})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "quorum none",
        "quorum none\nquorum none\n",
        "quorum w1\n",
        f"log {LOG}\n",
        f"log {LOG}\nlog {LOG}\nquorum none\n",
        f"log {LOG}\nlog {format_key('other', ED25519, SIGNER.verifier.key)}\nquorum none\n",
        f"log {W1}\nquorum none\n",
        f"log {LOG} url more\nquorum none\n",
        f"witness w1 {LOG}\nquorum none\n",
        f"witness w1 {W1}\nwitness w1 {W2}\nquorum none\n",
        f"witness w1 {W1}\nwitness w2 {W1}\nquorum none\n",
        f"witness none {W1}\nquorum none\n",
        f"quorum w1\nwitness w1 {W1}\n",
        "group g any\nquorum none\n",
        "group g any w1\nquorum none\n",
        f"witness w1 {W1}\ngroup g 0 w1\nquorum g\n",
        f"witness w1 {W1}\ngroup g 2 w1\nquorum g\n",
        f"witness w1 {W1}\ngroup g 1 w1 w1\nquorum g\n",
        f"witness w1 {W1}\ngroup g 1 w1\ngroup h 1 w1\nquorum g\n",
        f"witness w1 {W1}\ngroup g some w1\nquorum g\n",
        f"witness w1 {W1}\ngroup w1 any w1\nquorum w1\n",
        f"witness w1 {W1}\ngroup g any g w1\nquorum g\n",
        f"witness w1 {W1}\ngroup g any none w1\nquorum g\n",
        "quorum\u00a0none\n",
        "quorum none\r\n",
        "quorum none\x7f\n",
        "something else\nquorum none\n",
        "quorum none\n" + "#" * 1_100_000 + "\n",
    ],
)
def test_what_is_no_policy_is_refused(text: str) -> None:
    assert kind_of(parse_policy, text) == "malformed"


def test_thirty_two_of_each_are_taken() -> None:
    def key(kind: int, number: int) -> str:
        return format_key(f"name/{number}", kind, bytes([kind, number] * 16))

    lines = [f"log {key(ED25519, n)}\nwitness w{n} {key(COSIGNATURE, n)}\ngroup g{n} all w{n}" for n in range(32)]
    policy = parse_policy("\n".join([*lines, "group all 32 " + " ".join(f"g{n}" for n in range(32)), "quorum all\n"]))
    assert policy.quorum_met({f"w{n}" for n in range(32)})
    assert not policy.quorum_met({f"w{n}" for n in range(31)})


def test_a_policy_tells_the_wrong_line() -> None:
    with pytest.raises(NotValid) as caught:
        parse_policy(f"# first\nlog {LOG}\nlog nonsense\nquorum none\n")
    assert caught.value.record == 3


def test_a_policy_without_logs_believes_no_checkpoint() -> None:
    assert kind_of(open_checkpoint, NOTE, Policy({})) == "foreign"


def test_a_flipped_bit_anywhere_leaves_no_valid_checkpoint() -> None:
    log = a_log(3)
    data, policy = cosigned(log.note(), "w1", "w2").encode(), parse_policy(policy_text("two"))
    assert open_checkpoint(data.decode(), policy).checkpoint.size == 3
    for place in range(len(data)):
        for bit in range(8):
            flipped = data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
            with pytest.raises((NotValid, UnicodeDecodeError)):
                open_checkpoint(flipped.decode(), policy)


_PIECES = st.sampled_from(
    ["\n", "\n\n", "— ", " ", "+", "=", "QUFBQUE=", LOG, W1, ROOT64, "log ", "witness w1 ", "none\n"]
)


@given(st.lists(st.one_of(st.text(), _PIECES)).map("".join))
def test_no_text_at_all_causes_an_accident(text: str) -> None:
    for read in (parse_key, parse_note, parse_checkpoint, parse_policy, parse_proof):
        with contextlib.suppress(NotValid):
            read(text)
