"""Bytes, rates and times as people write them. Nobody else in pycomm knows a prefix.

=======  ===================================================================================================
bytes    ``"8"``, ``"64M"``, ``"1.5 KiB"``, ``"25 GB"``: a lone letter and ``KiB MiB GiB TiB`` are powers of
         1024 (the habit of nccl-tests), ``kB MB GB TB`` are powers of 1000
rates    ``"200 Gbit/s"``, ``"25 GB/s"``, ``"400Gbps"``: the unit is obligatory, prefixes are powers of 1000
         unless they carry an ``i``
times    ``"300 s"``, ``"1.5 us"``, ``"2 min"``: the unit is obligatory
=======  ===================================================================================================
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction

from pycomm.errors import UsageError

__all__ = [
    "format_exact_rate",
    "format_exact_time",
    "format_rate",
    "format_size",
    "format_size_rounded",
    "format_time",
    "parse_exact_rate",
    "parse_rate",
    "parse_size",
    "parse_time",
]

_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([+-]?[0-9]{1,3}))?\s*([^\s0-9].*?)?\s*")
_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50}
_DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_SIZES: dict[str, int] = {
    "": 1,
    "b": 1,
    **_BINARY,
    **{f"{letter}ib": factor for letter, factor in _BINARY.items()},
    **{f"{letter}b": factor for letter, factor in _DECIMAL.items()},
}
_PREFIXES = {"": 1, **_DECIMAL, **{f"{letter}i": factor for letter, factor in _BINARY.items()}}
_BITS = re.compile(r"([kmgtp]i?|)(?:bits?/s|bps|b/s)")
_TIMES = {
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "min": Fraction(60),
    "h": Fraction(3600),
}
_MAX_BYTES = 2**63 - 1


def _split(text: str, what: str, example: str) -> tuple[Fraction, str]:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is not a {what}; write it like {example}")
    number, exponent, unit = match.groups()
    return Fraction(number) * Fraction(10) ** int(exponent or 0), unit or ""


def parse_size(text: str) -> int:
    """Read a number of bytes.

    Parameters
    ----------
    text
        A number with an optional unit, in any case: ``"8"``, ``"64M"``, ``"1.5 KiB"``, ``"25 GB"``.

    Returns
    -------
    int
        Bytes, from 0 to 2**63 - 1.

    Raises
    ------
    UsageError
        If the text is not a size, or not a whole number of bytes, or too large for 64 bits.

    Examples
    --------
    >>> parse_size("64M"), parse_size("64 MB"), parse_size("8")
    (67108864, 64000000, 8)
    """
    number, unit = _split(text, "size", "'64M', '1.5 KiB' or '25 GB'")
    factor = _SIZES.get(unit.lower())
    if factor is None:
        raise UsageError(
            f"{text!r} has the unknown unit {unit!r}; sizes end in B, K, M, G, KiB, MB and their kin"
        )
    nbytes = number * factor
    if nbytes.denominator != 1:
        raise UsageError(f"{text!r} is not a whole number of bytes")
    if nbytes > _MAX_BYTES:
        raise UsageError(f"{text!r} is more than 64 bits can count")
    return int(nbytes)


def format_size(nbytes: int) -> str:
    """Print a number of bytes exactly, in the largest binary unit that needs at most three decimals.

    Examples
    --------
    >>> format_size(67108864), format_size(1536), format_size(1000)
    ('64 MiB', '1.5 KiB', '1000 B')
    """
    if nbytes < 0:
        raise UsageError(f"a size is never negative, got {nbytes}")
    for letter in ("p", "t", "g", "m", "k"):
        factor = _BINARY[letter]
        if nbytes >= factor and nbytes * 1000 % factor == 0:
            whole, thousandths = divmod(nbytes * 1000 // factor, 1000)
            decimals = f".{thousandths:03d}".rstrip("0") if thousandths else ""
            return f"{whole}{decimals} {letter.upper()}iB"
    return f"{nbytes} B"


def format_size_rounded(nbytes: float) -> str:
    """Print a number of bytes in binary units with four significant digits.

    Examples
    --------
    >>> format_size_rounded(67108865), format_size_rounded(1000)
    ('64 MiB', '1000 B')
    """
    for letter in ("p", "t", "g", "m", "k"):
        if nbytes >= _BINARY[letter]:
            return f"{nbytes / _BINARY[letter]:.4g} {letter.upper()}iB"
    return f"{nbytes:.4g} B"


def parse_rate(text: str) -> float:
    """Read a rate; bits and bytes are told apart by ``bit/s``, ``bps`` and ``b/s`` against ``B/s``.

    Returns
    -------
    float
        Bytes per second.

    Raises
    ------
    UsageError
        If the text has no unit of a rate.

    Examples
    --------
    >>> parse_rate("200 Gbit/s"), parse_rate("25 GB/s")
    (25000000000.0, 25000000000.0)
    """
    return float(parse_exact_rate(text))


def parse_exact_rate(text: str) -> Fraction:
    """Read a rate as :func:`parse_rate` does, without rounding.

    Examples
    --------
    >>> parse_exact_rate("100 Gbit/s"), parse_exact_rate("1 bit/s")
    (Fraction(12500000000, 1), Fraction(1, 8))
    """
    number, unit = _split(text, "rate", "'200 Gbit/s' or '25 GB/s'")
    if unit.endswith("B/s"):
        prefix, bits = unit[:-3].lower(), 1
    elif match := _BITS.fullmatch(unit[:-3].lower() + unit[-3:]):
        prefix, bits = match[1], 8
    else:
        raise UsageError(f"{text!r} has no unit of a rate; write '200 Gbit/s' or '25 GB/s'")
    factor = _PREFIXES.get(prefix)
    if factor is None:
        raise UsageError(f"{text!r} has the unknown unit {unit!r}; rates end in Gbit/s, GB/s and their kin")
    return number * factor / bits


def format_exact_rate(bytes_per_s: int) -> str:
    """Print a rate in the largest power of 1000 that it reaches, with all its digits.

    Examples
    --------
    >>> format_exact_rate(12500000000), format_exact_rate(23529411764)
    ('12.5 GB/s', '23.529411764 GB/s')
    """
    for prefix in ("G", "M", "k"):
        factor = _DECIMAL[prefix.lower()]
        if bytes_per_s >= factor:
            whole, rest = divmod(bytes_per_s, factor)
            decimals = f".{rest:0{len(str(factor)) - 1}d}".rstrip("0") if rest else ""
            return f"{whole}{decimals} {prefix}B/s"
    return f"{bytes_per_s} B/s"


def format_rate(bytes_per_s: float) -> str:
    """Print a rate in powers of 1000 with four significant digits.

    Examples
    --------
    >>> format_rate(25e9), format_rate(1234567.0)
    ('25 GB/s', '1.235 MB/s')
    """
    for prefix in ("T", "G", "M", "k"):
        factor = _DECIMAL[prefix.lower()]
        if bytes_per_s >= factor:
            return f"{bytes_per_s / factor:.4g} {prefix}B/s"
    return f"{bytes_per_s:.4g} B/s"


def parse_time(text: str) -> float:
    """Read a duration.

    Returns
    -------
    float
        Seconds.

    Raises
    ------
    UsageError
        If the text has no unit of time.

    Examples
    --------
    >>> parse_time("1.5 us"), parse_time("2 min")
    (1.5e-06, 120.0)
    """
    number, unit = _split(text, "time", "'300 s' or '1.5 us'")
    factor = _TIMES.get(unit.lower())
    if factor is None:
        raise UsageError(f"{text!r} has no unit of time; write one of ns, us, ms, s, min, h after the number")
    return float(number * factor)


def format_exact_time(seconds: float) -> str:
    """Print a duration in microseconds, with the fewest digits from which :func:`parse_time` makes it again.

    Examples
    --------
    >>> format_exact_time(1.5e-06), format_exact_time(0.0)
    ('1.5 us', '0 us')
    """
    return f"{Decimal(repr(float(seconds))).scaleb(6).normalize():f} us"


def format_time(seconds: float) -> str:
    """Print a duration with four significant digits.

    Examples
    --------
    >>> format_time(1.5e-06), format_time(0.25), format_time(7200)
    ('1.5 us', '250 ms', '7200 s')
    """
    if seconds == 0 or not math.isfinite(seconds):
        return f"{seconds:.4g} s"
    for unit in ("s", "ms", "us"):
        factor = float(_TIMES[unit])
        if abs(seconds) >= factor:
            return f"{seconds / factor:.4g} {unit}"
    return f"{seconds * 1e9:.4g} ns"
