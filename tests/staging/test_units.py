import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

import staging.units
from staging.mover.errors import UsageError
from staging.units import human_bytes, human_rate, human_seconds, parse_rate, parse_size, printable


def test_examples_in_the_docstrings():
    result = doctest.testmod(staging.units)
    assert result.failed == 0
    assert result.attempted >= 6


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1023.7, "1.0 KiB"),
        (1024, "1.0 KiB"),
        (1024 * 1023.94, "1023.9 KiB"),
        (1024 * 1023.96, "1.0 MiB"),
        (3 << 60, "3.0 EiB"),
        (5000 << 60, "5000.0 EiB"),
    ],
)
def test_human_bytes(n, text):
    assert human_bytes(n) == text


@given(st.integers(0, 1 << 70))
def test_human_bytes_is_never_more_than_half_a_tenth_off(n):
    number, unit = human_bytes(n).split()
    scale = 1024 ** (["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].index(unit))
    assert abs(float(number) * scale - n) <= 0.0501 * scale


@pytest.mark.parametrize(
    ("s", "text"),
    [
        (0, "0.00 s"),
        (9.994, "9.99 s"),
        (9.996, "10.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1m 00s"),
        (3599.6, "1h 00m"),
        (86399, "23h 59m"),
        (86400, "1d 00h"),
    ],
)
def test_human_seconds(s, text):
    assert human_seconds(s) == text


def test_human_rate():
    assert human_rate(10 << 20, 4) == "2.5 MiB/s"
    assert human_rate(10, 0) == human_rate(0, 10) == "-"


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("4096B", 4096), ("64K", 65536), ("64k", 65536), (" 1 MiB ", 1 << 20), ("8E", 8 << 60)],
)
def test_parse_size(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "K", "1.5G", "-1", "64KB", "64X", "1 2", "6٤", "0x10", "1" * 5000, "1K\nM"])
def test_what_is_not_a_size_is_a_usage_error(text):
    with pytest.raises(UsageError) as caught:
        parse_size(text)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


@given(st.integers(0, 1 << 60))
def test_every_plain_number_is_a_size(n):
    assert parse_size(str(n)) == n


@given(st.text(st.characters(exclude_categories=())))
def test_printable_is_one_line_that_any_utf8_stream_takes(text):
    shown = printable(text)
    assert shown.isprintable()
    shown.encode("utf-8")


def test_printable_leaves_ordinary_names_alone():
    assert printable("génome 東.fa") == "génome 東.fa"
    assert printable(b"a\xff\n".decode("utf-8", "surrogateescape")) == "a\\xff\\n"


@pytest.mark.parametrize(
    ("text", "rate"),
    [("16K", 16384), ("1.5M", 3 << 19), (" 2GiB/s ", 2 << 30), ("100000", 100000), ("0", 0), ("0.5t", 1 << 39)],
)
def test_parse_rate(text, rate):
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "K", "-1M", "1.M", "1e6", "10 Mbit", "1P"])
def test_what_is_no_rate(text):
    with pytest.raises(UsageError, match="is not a rate; write bytes per second"):
        parse_rate(text)


@pytest.mark.parametrize(("text", "remedy"), [("5000", "at least 16K, or 5000K for KiB/s"), ("15.9K", "at least 16K$")])
def test_a_rate_that_is_too_slow_hints_at_rsyncs_unit(text, remedy):
    with pytest.raises(UsageError, match=remedy):
        parse_rate(text)
