"""The paste is parsed, never run: Google's line in whatever shape honest people bring it, and nothing else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import InvalidInput
from backend.services.crd_paste import MAX_PASTE, parse_paste
from tests.crd.pastes import CODE, HONEST, HOSTILE, LINE, START, URL

_SHAPE = re.compile(r"4/[A-Za-z0-9_-]{6,512}")
_PIECES = (
    *LINE.split(),
    *(" ", "\n", "\\\n", "—", "“", "”", '"', "'", "$ ", "`", ";", "&&", "$(id)", "--pin=1", "\x00", "\u202e"),
    *(START, URL, CODE, "--code", "=", "--cod", "DISPLAY=", "4/0Aother_code"),
)


def test_the_corpus_is_large_enough() -> None:
    assert len(HONEST) >= 30
    assert len(HOSTILE) >= 60


@pytest.mark.parametrize("paste", HONEST.values(), ids=HONEST.keys())
def test_an_honest_paste_gives_the_code(paste: str) -> None:
    assert parse_paste(paste).value == CODE


@pytest.mark.parametrize(("paste", "word"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_or_broken_paste_is_refused_with_what_is_wrong(paste: str, word: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_paste(paste)
    assert any(each in refusal.value.message for each in word.split("|")), refusal.value.message
    assert CODE not in refusal.value.message
    assert refusal.value.error_code == "invalid_crd_command"


def test_a_dash_that_a_phone_made_of_two_hyphens_within_the_code_becomes_two_again() -> None:
    assert parse_paste(LINE.replace(CODE, "4/0Aab—cdef")).value == "4/0Aab--cdef"


def test_a_code_shows_in_no_picture_of_itself() -> None:
    assert CODE not in repr(parse_paste(LINE))


@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(_PIECES), max_size=14).map(" ".join)))
def test_whatever_is_pasted_is_a_code_or_a_refusal(paste: str) -> None:
    check(paste)


@given(
    st.integers(0, len(LINE)),
    st.integers(0, 40),
    st.one_of(st.text(max_size=6), st.sampled_from(_PIECES)),
    st.booleans(),
)
def test_whatever_is_done_to_google_s_line_leaves_a_code_or_a_refusal(at: int, cut: int, put: str, twice: bool) -> None:
    changed = LINE[:at] + put + LINE[at + cut :]
    check(f"{changed} {changed}" if twice else changed)


def check(paste: str) -> None:
    try:
        code = parse_paste(paste)
    except InvalidInput as refusal:
        assert refusal.message
    else:
        assert _SHAPE.fullmatch(code.value)
        assert len(paste) <= MAX_PASTE
        assert [getattr(code, name) for name in code.__slots__] == [code.value]
