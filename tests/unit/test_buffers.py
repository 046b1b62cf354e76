"""Which objects are accepted as memory, and how the rest is refused."""

from __future__ import annotations

import array
import mmap

import ml_dtypes
import numpy as np
import pytest

from pycomm.buffers import as_buffer, as_dtype, overlap
from pycomm.errors import UsageError
from pycomm.types import DType


class Tensor:
    """A tensor of some framework: DLPack and nothing else."""

    def __init__(self, memory, *, versioned=True, device=(1, 0)):
        self.memory, self.versioned, self.device = memory, versioned, device

    def __dlpack__(self, **options):
        if not self.versioned:
            if options:
                raise TypeError("no keywords")
            return self.memory.__dlpack__()
        return self.memory.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device


@pytest.mark.parametrize("versioned", [False, True])
@pytest.mark.parametrize("dtype", [d for d in DType if d.storage.name == d.label])
def test_dlpack_is_the_same_memory(dtype, versioned):
    memory = np.zeros((3, 4), dtype.storage)
    buffer = as_buffer(Tensor(memory, versioned=versioned), "recv", writes=True)
    assert (buffer.dtype, buffer.count, buffer.is_staged) == (dtype, 12, False)
    buffer.flat[...] = 1
    assert (memory.view(np.uint8) == 1).all()


def test_dlpack_reads_strides_in_both_directions():
    memory = np.arange(24).reshape(4, 6)
    for view in (memory[:, ::2], memory[::-1, ::-3], memory.T, memory[1:1]):
        buffer = as_buffer(Tensor(view), "send")
        assert buffer.flat.view(np.int64).tolist() == view.reshape(-1).tolist()


def test_dlpack_knows_read_only_memory():
    memory = np.zeros(3)
    memory.flags.writeable = False
    with pytest.raises(UsageError, match="read-only"):
        as_buffer(Tensor(memory), "recv", writes=True)


def test_dlpack_refuses_devices():
    with pytest.raises(UsageError, match=r"lies on device \(2, 0\)"):
        as_buffer(Tensor(np.zeros(2), device=(2, 0)), "send")


@pytest.mark.torch
def test_torch_tensors_without_importing_torch_in_pycomm():
    torch = pytest.importorskip("torch")
    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float32", "bool"):
        tensor = torch.ones(5).to(getattr(torch, name))
        buffer = as_buffer(tensor, "recv", writes=True)
        assert (buffer.dtype.label, buffer.address) == (name, tensor.data_ptr())
    with pytest.raises(UsageError, match="detach"):
        as_buffer(torch.ones(2, requires_grad=True), "send")


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_ml_dtypes_by_name(name):
    memory = np.ones(3, getattr(ml_dtypes, name))
    buffer = as_buffer(memory, "recv", writes=True)
    assert buffer.dtype.label == name
    buffer.flat[...] = 0
    assert not memory.view(np.uint8).any()


def test_buffer_protocol():
    assert as_buffer(bytearray(3), "recv", writes=True).dtype is DType.UINT8
    assert as_buffer(array.array("d", [1, 2]), "send").dtype is DType.FLOAT64
    assert as_buffer(memoryview(b"abc"), "send").count == 3
    with mmap.mmap(-1, 64) as memory:
        buffer = as_buffer(memory, "recv", writes=True)
        assert buffer.count == 64
        del buffer
    with pytest.raises(UsageError, match="read-only"):
        as_buffer(b"abc", "recv", writes=True)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2, 3, 4)])
def test_any_shape(shape):
    memory = np.zeros(shape)
    buffer = as_buffer(memory, "recv", writes=True)
    assert buffer.count == memory.size
    buffer.flat[...] = 255
    assert np.isnan(memory).all()


def test_strided_memory_is_staged_and_copied_home():
    memory = np.arange(12.0).reshape(3, 4)
    part = memory[:, 1:3]
    buffer = as_buffer(part, "recv", writes=True)
    assert buffer.is_staged
    assert buffer.flat.view(np.float64).tolist() == part.reshape(-1).tolist()
    buffer.flat.view(np.float64)[...] = -1
    assert memory[0, 1] == 1, "nothing is written before the call has ended"
    buffer.copy_home()
    assert (part == -1).all()
    assert memory[0, 0] == 0


def test_dtype_override():
    memory = np.zeros(4, np.uint16)
    assert as_buffer(memory, "send", dtype=DType.BFLOAT16).dtype is DType.BFLOAT16
    with pytest.raises(UsageError, match="4 bytes per element"):
        as_buffer(memory, "send", dtype=DType.FLOAT32)


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (3, "wrap it in a NumPy array"),
        ([1.0], "wrap it in a NumPy array"),
        ("text", "wrap it in a NumPy array"),
        (np.float32(1), "0-dimensional array"),
        (np.ones(2, complex), "view"),
        (np.ones(2, ">f4"), "native byte order"),
        (np.ones(2, "f4,i4"), "not supported"),
        (np.array([object()]), "not supported"),
        (np.ma.masked_array([1.0], [True]), "masked"),
    ],
)
def test_refusals_say_what_to_do(thing, words):
    with pytest.raises(UsageError, match=words):
        as_buffer(thing, "send")


def test_as_dtype():
    assert as_dtype("bfloat16") is DType.BFLOAT16
    assert as_dtype(np.float16) is DType.FLOAT16
    assert as_dtype(DType.INT8) is DType.INT8
    assert as_dtype(ml_dtypes.float8_e5m2) is DType.FLOAT8_E5M2
    for bad in ("float7", complex, "datetime64[s]"):
        with pytest.raises(UsageError):
            as_dtype(bad)


def test_overlap():
    memory = np.zeros(10)
    whole, left, right = (as_buffer(m, "x") for m in (memory, memory[:5], memory[5:]))
    assert overlap(whole, left)
    assert overlap(whole, right)
    assert not overlap(left, right)
    assert not overlap(whole, as_buffer(memory[3:3], "x"))
