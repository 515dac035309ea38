"""scheduler_hooks.patterns: what each pattern becomes, and what is left alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler_hooks.patterns import Values, fill, names_node

JOB = Values(job_id="41", user="ada", job_name="motif")
ON_NODE = replace(JOB, node="n3", rank=2)


@pytest.mark.parametrize(
    ("text", "on_node", "before"),
    [
        ("%j-%u-%x", "41-ada-motif", "41-ada-motif"),
        ("hits-%N.txt", "hits-n3.txt", "hits-%N.txt"),
        ("part-%n", "part-2", "part-%n"),
        ("100%%", "100%", "100%"),
        ("%%N", "%N", "%N"),
        ("%%%N", "%n3", "%%N"),
        ("%q %J %", "%q %J %", "%q %J %"),
        ("", "", ""),
    ],
)
def test_fill(text: str, on_node: str, before: str) -> None:
    assert fill(text, ON_NODE) == on_node
    assert fill(text, JOB) == before


def test_rank_zero_is_a_rank() -> None:
    assert fill("%n", replace(JOB, node="n1", rank=0)) == "0"


def test_a_value_is_not_searched_for_patterns() -> None:
    assert fill("%x", replace(ON_NODE, job_name="%N%%")) == "%N%%"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("%N", True), ("a%n", True), ("%%N", False), ("%%%N", True), ("%%%%n", False), ("%j", False), ("%", False)],
)
def test_names_node(text: str, expected: bool) -> None:
    assert names_node(text) is expected


@given(st.text())
def test_doubled_percent_signs_fill_back_to_the_text(text: str) -> None:
    escaped = text.replace("%", "%%")
    assert fill(escaped, ON_NODE) == text
    assert not names_node(escaped)


@given(st.text(alphabet="%Nnjab"))
def test_names_node_tells_whether_two_nodes_get_different_texts(text: str) -> None:
    other = replace(JOB, node="n4", rank=3)
    assert names_node(text) == (fill(text, ON_NODE) != fill(text, other))
