"""The core's arithmetic against ml_dtypes and NumPy, for every dtype and op."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from pycomm.core import native
from pycomm.types import DType, ReduceOp

pytestmark = pytest.mark.timeout(60)

NUMPY_TYPE = {
    DType.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
    DType.FLOAT8_E4M3FN: np.dtype(ml_dtypes.float8_e4m3fn),
    DType.FLOAT8_E5M2: np.dtype(ml_dtypes.float8_e5m2),
}
FLOATS = [d for d in DType if d.is_float]
NARROW = [DType.FLOAT16, DType.BFLOAT16, DType.FLOAT8_E4M3FN, DType.FLOAT8_E5M2]
INTS = [d for d in DType if not d.is_float and d is not DType.BOOL]
Array = npt.NDArray[np.generic]


@pytest.fixture(autouse=True)
def _quiet_numpy() -> Iterator[None]:
    with np.errstate(all="ignore"):  # the oracle overflows and meets NaNs on purpose
        yield


def numpy_type(dtype: DType) -> np.dtype[np.generic]:
    return NUMPY_TYPE.get(dtype, dtype.storage)


def raw(a: Array) -> npt.NDArray[np.uint8]:
    return a.reshape(-1).view(np.uint8)


def reduce(a: Array, b: Array, dtype: DType, op: ReduceOp) -> Array:
    out = np.empty_like(a)
    native.reduce(raw(out), raw(a), raw(b), int(dtype), int(op))
    return out


def same_numbers(got: Array, want: Array) -> None:
    """Bitwise, but any NaN equals any NaN."""
    nan_got, nan_want = np.isnan(got.astype(np.float64)), np.isnan(want.astype(np.float64))
    np.testing.assert_array_equal(nan_got, nan_want)
    np.testing.assert_array_equal(raw(got[~nan_got]), raw(want[~nan_want]))


def samples(dtype: DType, n: int, seed: int) -> Array:
    """Random bit patterns: every magnitude, infinities, NaNs, subnormals."""
    bits = np.random.default_rng(seed).integers(0, 256, n * dtype.itemsize, dtype=np.uint8)
    if dtype is DType.BOOL:
        bits &= 1
    return bits.view(numpy_type(dtype))


@pytest.mark.parametrize("dtype", NARROW, ids=lambda d: d.label)
def test_every_pair_of_codes_adds_and_multiplies_as_in_float32(dtype: DType) -> None:
    bits = dtype.itemsize * 8
    codes = np.arange(1 << bits, dtype=np.uint32)
    if bits == 8:
        a, b = (x.reshape(-1).astype(np.uint8) for x in np.meshgrid(codes, codes))
    else:
        a, b = codes.astype(np.uint16), np.random.default_rng(1).permutation(codes).astype(np.uint16)
    a, b = a.view(numpy_type(dtype)), b.view(numpy_type(dtype))
    total = (a.astype(np.float32) + b.astype(np.float32)).astype(numpy_type(dtype))
    product = (a.astype(np.float32) * b.astype(np.float32)).astype(numpy_type(dtype))
    same_numbers(reduce(a, b, dtype, ReduceOp.SUM), total)
    same_numbers(reduce(a, b, dtype, ReduceOp.PROD), product)


@pytest.mark.parametrize("dtype", NARROW, ids=lambda d: d.label)
def test_decoding_is_exact_and_encoding_rounds_to_nearest_even(dtype: DType) -> None:
    rng = np.random.default_rng(7)
    kind = numpy_type(dtype)
    # Scaling by a random factor leaves arbitrary float32 values to encode; ties come from the exact halves.
    a = np.tile(samples(dtype, 4096, 3), 4)
    for factor in (1.0, 0.5, 1.5, 2.0**-5, *rng.uniform(-4, 4, 20).tolist()):
        out = np.empty_like(a)
        native.scale(raw(out), raw(a), int(dtype), factor)
        same_numbers(out, (a.astype(np.float32) * np.float32(factor)).astype(kind))


@pytest.mark.parametrize("dtype", NARROW, ids=lambda d: d.label)
def test_many_inputs_round_once(dtype: DType) -> None:
    kind = numpy_type(dtype)
    inputs = [np.random.default_rng(k).normal(0, 2, 3001).astype(np.float32).astype(kind) for k in range(7)]
    exact = np.zeros(3001, np.float32)
    for k, x in enumerate(inputs):
        exact = x.astype(np.float32) if k == 0 else exact + x.astype(np.float32)
    for divisor in (1, 7):
        out = np.empty_like(inputs[0])
        native.reduce_many(raw(out), [raw(x) for x in inputs], int(dtype), int(ReduceOp.AVG), divisor)
        same_numbers(out, (exact / np.float32(divisor)).astype(kind))


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.label)
@pytest.mark.parametrize("op", [ReduceOp.MIN, ReduceOp.MAX], ids=lambda o: o.label)
def test_minimum_and_maximum_do_not_depend_on_order_and_spread_nan(dtype: DType, op: ReduceOp) -> None:
    a, b = samples(dtype, 5000, 11), samples(dtype, 5000, 12)
    got = reduce(a, b, dtype, op)
    np.testing.assert_array_equal(raw(got), raw(reduce(b, a, dtype, op)))
    x, y = a.astype(np.float64), b.astype(np.float64)
    want = np.minimum(x, y) if op is ReduceOp.MIN else np.maximum(x, y)
    np.testing.assert_array_equal(got.astype(np.float64), want)
    nan = np.isnan(want)
    assert nan.any() or dtype.itemsize > 2
    assert len(np.unique(got[nan].view(dtype.storage))) <= 1  # one canonical NaN
    zeros = np.array([0.0, -0.0], np.float32).astype(numpy_type(dtype))
    first = reduce(zeros, zeros[::-1].copy(), dtype, op).astype(np.float64)
    assert (np.signbit(first) == (op is ReduceOp.MIN)).all()


def _logical(f: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    return lambda a, b: f(a != 0, b != 0).astype(a.dtype)


ORACLE: dict[ReduceOp, Callable[[Array, Array], Array]] = {
    ReduceOp.SUM: np.add,
    ReduceOp.AVG: np.add,
    ReduceOp.PREMUL_SUM: np.add,
    ReduceOp.PROD: np.multiply,
    ReduceOp.MIN: np.minimum,
    ReduceOp.MAX: np.maximum,
    ReduceOp.BAND: np.bitwise_and,
    ReduceOp.BOR: np.bitwise_or,
    ReduceOp.BXOR: np.bitwise_xor,
    ReduceOp.LAND: _logical(np.logical_and),
    ReduceOp.LOR: _logical(np.logical_or),
}


@pytest.mark.parametrize("dtype", [d for d in DType if d not in NARROW], ids=lambda d: d.label)
@pytest.mark.parametrize("n", [0, 1, 15, 513, 4097])
def test_wide_types_equal_numpy(dtype: DType, n: int) -> None:
    a, b = samples(dtype, n, 21), samples(dtype, n, 22)
    b[: n // 4] = 0
    for op in ReduceOp:
        if not dtype.supports(op):
            continue
        want = ORACLE[op](a, b)
        got = reduce(a, b, dtype, op)
        same_numbers(got, want.astype(a.dtype))
        for first, second in ((a.copy(), b), (a, b.copy())):  # in place on either input
            out = first if first is not a else second
            native.reduce(raw(out), raw(first), raw(second), int(dtype), int(op))
            same_numbers(out, got)


@pytest.mark.parametrize("dtype", NARROW, ids=lambda d: d.label)
def test_logical_ops_on_narrow_floats(dtype: DType) -> None:
    a, b = samples(dtype, 4096, 31), samples(dtype, 4096, 32)
    a[::3] = 0
    b[::5] = -0.0
    for op, f in ((ReduceOp.LAND, np.logical_and), (ReduceOp.LOR, np.logical_or)):
        want = f(a.astype(np.float64) != 0, b.astype(np.float64) != 0)
        np.testing.assert_array_equal(reduce(a, b, dtype, op).astype(np.float64), want.astype(np.float64))


def test_booleans_stay_zero_or_one() -> None:
    a, b = np.array([0, 0, 1, 2, 255, 1], np.uint8), np.array([0, 3, 0, 4, 0, 1], np.uint8)
    x, y = a != 0, b != 0
    for ops, want in (
        ((ReduceOp.SUM, ReduceOp.MAX, ReduceOp.LOR, ReduceOp.BOR), x | y),
        ((ReduceOp.PROD, ReduceOp.MIN, ReduceOp.LAND, ReduceOp.BAND), x & y),
        ((ReduceOp.BXOR,), x ^ y),
    ):
        for op in ops:
            np.testing.assert_array_equal(reduce(a, b, DType.BOOL, op), want.astype(np.uint8))


@pytest.mark.parametrize("dtype", INTS, ids=lambda d: d.label)
def test_integer_averages_truncate_toward_zero(dtype: DType) -> None:
    a = samples(dtype, 999, 41)
    for divisor in (1, 2, 3, 7, 1000):
        out = np.empty_like(a)
        native.divide(raw(out), raw(a), int(dtype), divisor)
        want = [(-1 if v < 0 else 1) * (abs(v) // divisor) for v in map(int, a)]
        assert out.tolist() == want
    if dtype.itemsize < 8:  # the sum need not fit the type
        wide = [samples(dtype, 600, 70 + k) for k in range(6)]
        exact = [sum(column) for column in zip(*(x.tolist() for x in wide), strict=True)]
        native.reduce_many(raw(wide[2]), [raw(x) for x in wide], int(dtype), int(ReduceOp.AVG), 6)
        assert wide[2].tolist() == [(-1 if v < 0 else 1) * (abs(v) // 6) for v in exact]
    small = [np.full(10, v, a.dtype) for v in (1, 2, 5, 6, 6)]
    native.reduce_many(raw(small[3]), [raw(x) for x in small], int(dtype), int(ReduceOp.AVG), 5)
    assert small[3].tolist() == [4] * 10


@pytest.mark.parametrize("dtype", INTS, ids=lambda d: d.label)
def test_scaling_integers_truncates_and_saturates(dtype: DType) -> None:
    limits = np.iinfo(dtype.storage)
    a = np.array([0, 1, 2, 3, 100, limits.max, limits.min], dtype.storage)
    out = np.empty_like(a)
    native.scale(raw(out), raw(a), int(dtype), 1.5)
    assert out.tolist() == [0, 1, 3, 4, min(150, limits.max), limits.max, limits.min]
    native.scale(raw(out), raw(a), int(dtype), float("nan"))
    assert not out.any()
    native.scale(raw(out), raw(a), int(dtype), -1e300)
    assert out[1] == limits.min


@pytest.mark.parametrize("op", list(ReduceOp), ids=lambda o: o.label)
@pytest.mark.parametrize("dtype", list(DType), ids=lambda d: d.label)
def test_many_equals_two_by_two_and_unsupported_is_refused(dtype: DType, op: ReduceOp) -> None:
    inputs = [samples(dtype, 700, 50 + k) for k in range(6)]
    if not dtype.supports(op):
        with pytest.raises(ValueError, match="not defined"):
            reduce(inputs[0], inputs[1], dtype, op)
        with pytest.raises(ValueError, match="not defined"):
            native.reduce_many(raw(inputs[0]), [raw(inputs[1])], int(dtype), int(op), 1)
        return
    if dtype in NARROW and op in (ReduceOp.SUM, ReduceOp.PROD, ReduceOp.AVG, ReduceOp.PREMUL_SUM):
        return  # rounds once instead of each time: test_many_inputs_round_once
    for n in range(1, 7):
        want = inputs[0].copy()
        for x in inputs[1:n]:
            want = reduce(want, x, dtype, op)
        for alias in range(n):
            mine = [x.copy() for x in inputs[:n]]
            native.reduce_many(raw(mine[alias]), [raw(x) for x in mine], int(dtype), int(op), 1)
            if dtype.is_float:
                same_numbers(mine[alias], want)
            else:
                np.testing.assert_array_equal(raw(mine[alias]), raw(want))


def test_any_alignment() -> None:
    pool = np.random.default_rng(5).integers(0, 256, 9000, dtype=np.uint8)
    for dtype in (DType.FLOAT32, DType.BFLOAT16, DType.INT64):
        n = 333 * dtype.itemsize
        a, b = pool[1 : 1 + n], pool[4003 : 4003 + n]
        odd, even = np.zeros(n + 3, np.uint8)[3:], np.zeros(n, np.uint8)
        native.reduce(odd, a, b, int(dtype), int(ReduceOp.MAX))
        native.reduce(even, a.copy(), b.copy(), int(dtype), int(ReduceOp.MAX))
        np.testing.assert_array_equal(odd, even)
        assert even.any()


def test_wrong_buffers_are_refused() -> None:
    good = np.zeros(64, np.uint8)
    frozen = np.zeros(64, np.uint8)
    frozen.setflags(write=False)
    sum_, f32 = int(ReduceOp.SUM), int(DType.FLOAT32)
    with pytest.raises(ValueError, match="flat contiguous"):
        native.reduce(good.view(np.float32), good, good, f32, sum_)
    with pytest.raises(ValueError, match="flat contiguous"):
        native.reduce(good, np.zeros(128, np.uint8)[::2], good, f32, sum_)
    with pytest.raises(ValueError, match="bytes"):
        native.reduce(good, good[:32], good, f32, sum_)
    with pytest.raises(ValueError, match="multiple"):
        native.reduce(good[:63], good[:63], good[:63], f32, sum_)
    with pytest.raises(ValueError, match="overlaps"):
        native.reduce(good[:32], good[8:40], good[:32], f32, sum_)
    with pytest.raises((ValueError, BufferError), match="read"):
        native.reduce(frozen, good, good, f32, sum_)
    with pytest.raises(ValueError, match="no DType"):
        native.reduce(good, good, good, 99, sum_)
    with pytest.raises(ValueError, match="no ReduceOp"):
        native.reduce(good, good, good, f32, -1)
    with pytest.raises(ValueError, match="empty"):
        native.reduce_many(good, [], f32, sum_, 1)
    with pytest.raises(ValueError, match="divisor"):
        native.divide(good, good, f32, 0)
