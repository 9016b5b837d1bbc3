"""Sums of terms: every legal one parses to its parts, every illegal one is refused with what is legal."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saddlescape.errors import InputError
from saddlescape.losses.registry import LOSSES
from saddlescape.methods.grammar import LEGAL, OPTIMIZERS, TERMS, Sum, parse, words
from saddlescape.methods.resolve import read
from saddlescape.methods.rows import CIFAR_ROWS, LARGE_ROWS, all_rows, listing
from saddlescape.methods.systems import SYSTEMS
from saddlescape.optim import OPTIMIZERS as KNOWN_OPTIMIZERS

KINDS = {"loss": words("loss"), "balance": ["", *words("balance")], "optimizer": ["", *words("optimizer")]}
SUMS = list(itertools.product(*KINDS.values()))


def test_every_legal_sum_parses_in_any_order_and_case() -> None:
    assert len(SUMS) == 7 * 4 * 12
    for loss, balance, optimizer in SUMS:
        present = [word for word in (loss, balance, optimizer) if word]
        canonical = "+".join(present)
        for order in itertools.permutations(present):
            for text in ("+".join(order), " + ".join(order).upper()):
                found = parse(text)
                assert found == Sum(loss, balance, optimizer or "sgd")
                assert str(found) == canonical
        assert parse(str(found)) == found


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(sorted(TERMS)), st.text(max_size=6)), max_size=5))
def test_any_list_of_words_is_legal_or_refused_in_one_line_that_says_what_is_legal(pieces: list[str]) -> None:
    text = "+".join(pieces)
    read = [piece.strip().lower() for piece in text.split("+")]
    kinds = [TERMS[word].kind if word in TERMS else "?" for word in read]
    legal = "?" not in kinds and kinds.count("loss") == 1 and len(set(kinds)) == len(kinds)
    if legal:
        assert sorted(str(parse(text)).split("+")) == sorted(read)
    else:
        with pytest.raises(InputError) as caught:
            parse(text)
        message = str(caught.value)
        assert LEGAL in message
        assert len(message.splitlines()) == 1 or "\n" in text or "\r" in text or not text.isprintable()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ce+smm", "did you mean 'sam'"),
        ("ce+vs", "'ce' and 'vs' are both of the kind loss"),
        ("ce+sam+asam", "'sam' and 'asam' are both of the kind optimizer"),
        ("ce+drw+rs", "'drw' and 'rs' are both of the kind balance"),
        ("ce+ce", "both of the kind loss"),
        ("sam", "names no loss (ce+sam?)"),
        ("ce++sam", "unknown term ''"),
        ("", "unknown term ''"),
    ],
)
def test_refusals_say_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert said in str(caught.value)


def test_words_are_names_of_the_instruments() -> None:
    assert set(words("loss")) <= set(LOSSES)
    assert set(OPTIMIZERS) == set(words("optimizer"))
    assert set(OPTIMIZERS.values()) <= set(KNOWN_OPTIMIZERS)


def test_the_listing_names_every_term_and_row_with_a_source() -> None:
    # A row of both tables is listed for each; the first is that of CIFAR.
    lines = {line.name: line for line in reversed(listing())}
    assert set(TERMS) | set(CIFAR_ROWS) <= set(lines)
    assert set(LARGE_ROWS) <= set(CIFAR_ROWS)
    assert all(line.text and line.source for line in lines.values())
    assert lines["ce+drw+sam"].text == "cifar10 rho 0.5; cifar100 rho 0.8"
    assert "ours" in lines["vs+sam"].text
    assert "ours" not in lines["ldam+drw+sam"].text
    texts = [line.text for line in listing() if line.name == "ce+drw+sam"]
    assert texts[1] == "imagenet-lt rho 0.05, 0.1, 0.5, 0.5; inat2018 rho 0.05, 0.1, 0.1, 0.2"
    assert set(SYSTEMS) <= set(lines)


def test_all_rows_train_a_first_stage_before_the_systems_that_share_it() -> None:
    rows = all_rows("cifar10")
    assert len(set(rows)) == len(rows)
    assert rows.index("ce") < rows.index("crt") and rows.index("ce+sam") < rows.index("crt+sam")
    assert set(SYSTEMS) <= set(rows)
    assert {read(row)[1].optimizer for row in rows} >= set(OPTIMIZERS) - {"ccsam"}  # that one is in its system
    assert all_rows("inat2018")[: len(LARGE_ROWS)] == LARGE_ROWS
