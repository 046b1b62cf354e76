"""The oracle's arithmetic, judged by ml_dtypes and by hand."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from pycomm.collectives.numbers import combine, divide, fold, narrow, scale, widen
from pycomm.types import DType, ReduceOp

FOREIGN = {
    DType.BFLOAT16: ml_dtypes.bfloat16,
    DType.FLOAT8_E4M3FN: ml_dtypes.float8_e4m3fn,
    DType.FLOAT8_E5M2: ml_dtypes.float8_e5m2,
}
NAN = float("nan")


@pytest.mark.parametrize("dtype", FOREIGN, ids=lambda d: d.label)
def test_every_code_widens_as_in_ml_dtypes(dtype):
    codes = np.arange(1 << (8 * dtype.itemsize)).astype(dtype.storage)
    assert np.array_equal(widen(dtype, codes), codes.view(FOREIGN[dtype]).astype(np.float32), equal_nan=True)


@pytest.mark.parametrize("dtype", FOREIGN, ids=lambda d: d.label)
def test_rounding_is_that_of_ml_dtypes(dtype):
    random = np.random.default_rng(1)
    values = (random.standard_normal(20000) * 10.0 ** random.uniform(-9, 9, 20000)).astype(np.float32)
    codes = np.arange(1 << (8 * dtype.itemsize)).astype(dtype.storage)
    steps = np.sort(widen(dtype, codes)[np.isfinite(widen(dtype, codes))])
    halfway = ((steps[1:].astype(np.float64) + steps[:-1]) / 2).astype(np.float32)
    edges = np.array([0.0, -0.0, np.inf, -np.inf, NAN, 464, 464.1, 61439, 61440, 65536], np.float32)
    values = np.concatenate([values, halfway, edges])
    with np.errstate(all="ignore"):
        want = values.astype(FOREIGN[dtype])
    got = narrow(dtype, values)
    is_nan = np.isnan(want.astype(np.float32))
    assert np.isnan(widen(dtype, got)[is_nan]).all()
    assert (got[~is_nan] == want.view(dtype.storage)[~is_nan]).all()


@pytest.mark.parametrize(
    ("dtype", "op", "a", "b", "want"),
    [
        (DType.INT8, ReduceOp.SUM, 127, 1, -128),
        (DType.UINT8, ReduceOp.PROD, 16, 17, 16),
        (DType.FLOAT32, ReduceOp.MIN, NAN, 1.0, NAN),
        (DType.FLOAT64, ReduceOp.MAX, 1.0, NAN, NAN),
        (DType.FLOAT32, ReduceOp.LAND, NAN, 2.0, 1.0),
        (DType.INT16, ReduceOp.LOR, 0, 7, 1),
        (DType.INT16, ReduceOp.LAND, 3, 0, 0),
        (DType.UINT16, ReduceOp.BXOR, 0b1100, 0b1010, 0b0110),
        (DType.BOOL, ReduceOp.SUM, True, True, True),
        (DType.BOOL, ReduceOp.PROD, True, False, False),
        (DType.BOOL, ReduceOp.MAX, True, False, True),
        (DType.BOOL, ReduceOp.BXOR, True, True, False),
    ],
)
def test_combine(dtype, op, a, b, want):
    got = combine(dtype, op, np.array([a], dtype.storage), np.array([b], dtype.storage))
    assert got.dtype == dtype.storage
    assert np.array_equal(got, np.array([want], dtype.storage), equal_nan=dtype.is_float)


def test_integer_averages_divide_the_exact_sum_and_truncate():
    rows = [np.array([100, -7], np.int8)] * 3
    assert fold(DType.INT8, ReduceOp.AVG, rows).tolist() == [100, -7]
    assert divide(DType.INT8, np.array([-7, 7, -6, -128], np.int8), 2).tolist() == [-3, 3, -3, -64]
    assert divide(DType.UINT8, np.array([7, 255], np.uint8), 2).tolist() == [3, 127]
    assert fold(DType.UINT64, ReduceOp.AVG, [np.array([2**62], np.uint64)] * 3).tolist() == [2**62]


def test_scale_truncates_and_saturates_integers():
    assert scale(DType.INT8, np.array([100, -100, 3, -3], np.int8), 1.5).tolist() == [127, -128, 4, -4]
    assert scale(DType.UINT8, np.array([10], np.uint8), -1.0).tolist() == [0]
    assert scale(DType.INT64, np.array([2**62], np.int64), 4.0).tolist() == [2**63 - 1]
    assert scale(DType.FLOAT16, np.array([1.5], np.float16), 2.0).tolist() == [3.0]


def test_half_types_round_once():
    ones = [narrow(DType.BFLOAT16, np.array([256.0], np.float32))] + [
        narrow(DType.BFLOAT16, np.array([1.0], np.float32))
    ] * 4
    # Rounded after every step the ones would vanish one by one: 256 + 1 rounds to 256.
    assert widen(DType.BFLOAT16, fold(DType.BFLOAT16, ReduceOp.SUM, ones)).tolist() == [260.0]
