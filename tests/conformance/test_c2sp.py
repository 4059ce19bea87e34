"""The published examples of C2SP's signed notes and cosignatures: they verify under their public keys, as given."""

from __future__ import annotations

import base64

import pytest

from audit.verify import (
    COSIGNATURE,
    ED25519,
    NotValid,
    Policy,
    check_signature,
    format_key,
    make_key,
    open_checkpoint,
    parse_checkpoint,
    parse_key,
    parse_note,
)

# Facts of the Go implementation from which the format comes (golang.org/x/mod/sumdb/note).
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# The examples of c2sp.org/signed-note and c2sp.org/tlog-cosignature; their keys are not published.
POEM = (
    "Ognuno sta solo sul cuor della terra\n"
    "trafitto da un raggio di sole:\n"
    "\n"
    "ed è subito sera.\n"
    "\n"
    "— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3Ze"
    "kRwNtIc=\n"
)
COSIGNED = (
    "example.com/behind-the-sofa\n"
    "20852163\n"
    "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    "\n"
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeM"
    "cTOAYQ8=\n"
    "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+"
    "mbIUBkBIfZ+qnA==\n"
)


def test_the_note_of_the_go_implementation_verifies_under_its_key() -> None:
    key = parse_key(GO_KEY)
    assert (key.name, key.kind, key.id.hex()) == ("PeterNeumann", ED25519, "c74f20a3")
    assert format_key(key.name, key.kind, key.key) == GO_KEY
    text, [(name, signature)] = parse_note(GO_NOTE)
    assert (name, signature[:4]) == (key.name, key.id)
    check_signature(key, text, signature)
    with pytest.raises(NotValid):
        check_signature(key, text.replace("answer", "ANSWER"), signature)


def test_the_poem_of_the_specification_is_cut_where_it_says() -> None:
    text, signatures = parse_note(POEM)
    assert text.endswith("ed è subito sera.\n")
    assert [(name, len(data)) for name, data in signatures] == [("quasimodo.example/salvatore", 4 + 64)]


def test_the_cosigned_checkpoint_of_the_specification_is_read() -> None:
    text, signatures = parse_note(COSIGNED)
    checkpoint = parse_checkpoint(text)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert [(name, len(data)) for name, data in signatures] == [
        ("example.com/behind-the-sofa", 4 + 64),
        ("witness.example.com/w1", 4 + 8 + 64),
    ]
    # The time in the example's signed message.
    assert int.from_bytes(signatures[1][1][4:12], "big") == 1_679_315_147


@pytest.mark.parametrize("kind", [ED25519, COSIGNATURE])
def test_a_key_under_the_same_name_and_another_id_is_no_known_key(kind: int) -> None:
    log, witness = (make_key(name, kind, base64.b64decode(GO_KEY[-44:])[1:]) for name in ("example.com/log", "w"))
    policy = Policy({"example.com/behind-the-sofa": log}, {"w": witness})
    with pytest.raises(NotValid) as caught:
        open_checkpoint(COSIGNED, policy)
    assert (caught.value.kind, "firmado" in caught.value.what) == ("signature", True)
