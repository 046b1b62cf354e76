"""Bytes, rates and times: every documented spelling, every refusal, and round trips."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycomm.errors import UsageError
from pycomm.units import format_rate, format_size, format_time, parse_rate, parse_size, parse_time

SIZES = [
    ("0", 0),
    ("8", 8),
    ("8B", 8),
    ("1k", 1024),
    ("64M", 64 << 20),
    ("64 MiB", 64 << 20),
    ("64MB", 64_000_000),
    ("1.5 KiB", 1536),
    (".5K", 512),
    (" 25 GB ", 25 * 10**9),
    ("3G", 3 << 30),
    ("1e6", 10**6),
    ("9223372036854775807", 2**63 - 1),
]
RATES = [
    ("200 Gbit/s", 25e9),
    ("200Gbps", 25e9),
    ("200 Gb/s", 25e9),
    ("8 bits/s", 1.0),
    ("25 GB/s", 25e9),
    ("1 GiB/s", 2.0**30),
    ("12.5 MB/s", 12.5e6),
    ("1 B/s", 1.0),
]
TIMES = [
    ("300 s", 300.0),
    ("1.5us", 1.5e-6),
    ("1.5 µs", 1.5e-6),
    ("2 min", 120.0),
    ("10 ns", 1e-8),
    ("1 h", 3600.0),
]


@pytest.mark.parametrize(("text", "nbytes"), SIZES)
def test_sizes_are_read(text, nbytes):
    assert parse_size(text) == nbytes


@pytest.mark.parametrize(("text", "bytes_per_s"), RATES)
def test_rates_are_read(text, bytes_per_s):
    assert parse_rate(text) == bytes_per_s


@pytest.mark.parametrize(("text", "seconds"), TIMES)
def test_times_are_read(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "M", "-1", "1.3", "64Q", "8 bit", "1 2", "1e400", "9223372036854775808", "٣"]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match=r"size|unit|whole|64 bits"):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "200", "200 G", "200 GB", "25 XB/s", "GB/s", "25 /s", "-1 GB/s"])
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(UsageError, match=r"rate|unit"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["", "300", "1 d", "s", "-1 s"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UsageError, match=r"time|unit"):
        parse_time(text)


@given(st.integers(0, 2**63 - 1))
def test_printed_sizes_are_exact(nbytes):
    assert parse_size(format_size(nbytes)) == nbytes


@given(st.floats(1e-3, 1e15))
def test_printed_rates_have_four_digits(rate):
    assert parse_rate(format_rate(rate)) == pytest.approx(rate, rel=1e-3)


@given(st.floats(1e-9, 1e6))
def test_printed_times_have_four_digits(seconds):
    assert parse_time(format_time(seconds)) == pytest.approx(seconds, rel=1e-3)


def test_printing():
    assert [format_size(n) for n in (0, 1000, 1536, 1 << 30)] == ["0 B", "1000 B", "1.5 KiB", "1 GiB"]
    assert [format_rate(r) for r in (0.5, 25e9)] == ["0.5 B/s", "25 GB/s"]
    assert [format_time(t) for t in (0.0, 2e-9, 1.5e-6, 0.25, 300.0)] == [
        "0 s",
        "2 ns",
        "1.5 us",
        "250 ms",
        "300 s",
    ]
