"""Products of matrices that are thousands of numbers wide, with rows that lie anywhere in a larger tensor.

On processors in C++ (wide_kernels.cpp), where that can be had: PyTorch's products reach a third of what some processors can do,
and take rows out of footage only after they have been copied together. A sum has one order, whatever the number of threads is.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import torch

from training.kernels import native_code

LEAST_PER_THREAD = 1 << 24  # products of numbers


def times_transposed(
    a: torch.Tensor, b: torch.Tensor, index: torch.Tensor | None = None, onto: torch.Tensor | None = None
) -> torch.Tensor:
    """A B^T `[N, M]` for a `[N, F]`, or its rows a[index], and b `[M, F]`; added to what is in `onto`, if that is given."""
    library = _library(a, b)
    if library is None:
        rows = a if index is None else a[index]
        return rows @ b.t() if onto is None else onto.addmm_(rows, b.t())
    return _multiply(library, a, b, index, onto, turned=True)


def times(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """A B `[N, M]` for a `[N, F]` and b `[F, M]`."""
    library = _library(a, b)
    return a @ b if library is None else _multiply(library, a, b, None, None, turned=False)


def transposed_times(
    a: torch.Tensor, b: torch.Tensor, index: torch.Tensor | None = None, onto: torch.Tensor | None = None
) -> torch.Tensor:
    """A^T B `[N, F]` for a `[K, N]` and b `[K, F]`, or the rows b[index]; added to what is in `onto`, if that is given."""
    library = _library(a, b)
    if library is None:
        rows = b if index is None else b[index]
        return a.t() @ rows if onto is None else onto.addmm_(a.t(), rows)
    return _columns(library, a, b, index, onto)


class _Gram(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        ctx.save_for_backward(a)
        return transposed_times(a, a)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        (a,) = ctx.saved_tensors
        return times(a, g + g.t())


def gram(a: torch.Tensor) -> torch.Tensor:
    """A^T A `[F, F]` for a `[K, F]`, with a first derivative."""
    return _Gram.apply(a)


def _columns(
    library: ctypes.CDLL, a: torch.Tensor, b: torch.Tensor, index: torch.Tensor | None, onto: torch.Tensor | None
) -> torch.Tensor:
    a, b = a.contiguous(), b.contiguous()
    out = b.new_empty(a.shape[1], b.shape[1]) if onto is None else onto
    assert out.is_contiguous()
    getattr(library, f'multiply_columns_{native_code.suffix(a)}')(
        a.shape[1],
        len(a),
        b.shape[1],
        native_code.pointer(a),
        native_code.pointer(b),
        None if index is None else native_code.pointer(index),
        native_code.pointer(out),
        int(onto is not None),
        threads_for(a.shape[1] * len(a) * b.shape[1]),
    )
    return out


def _multiply(
    library: ctypes.CDLL, a: torch.Tensor, b: torch.Tensor, index: torch.Tensor | None, onto: torch.Tensor | None, turned: bool
) -> torch.Tensor:
    a, b = a.contiguous(), b.contiguous()
    rows, columns = len(a) if index is None else len(index), b.shape[0 if turned else 1]
    out = a.new_empty(rows, columns) if onto is None else onto
    assert out.is_contiguous()
    getattr(library, f'multiply_{native_code.suffix(a)}')(
        rows,
        a.shape[1],
        columns,
        native_code.pointer(a),
        None if index is None else native_code.pointer(index),
        native_code.pointer(b),
        int(turned),
        native_code.pointer(out),
        int(onto is not None),
        threads_for(rows * a.shape[1] * columns),
    )
    return out


def threads_for(products: int) -> int:
    """Threads that so many products of numbers are worth."""
    return max(1, min(torch.get_num_threads(), products // LEAST_PER_THREAD))


def _library(a: torch.Tensor, b: torch.Tensor) -> ctypes.CDLL | None:
    if native_code.suffix(a) is None or a.dtype != b.dtype or b.device != a.device:
        return None
    return wide_kernels(a.dtype)


def wide_kernels(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The compiled file, where there is one that agrees with PyTorch's products."""
    library = native_code.load('wide_kernels')
    return library if library is not None and _agrees(library, dtype) else None


@functools.cache
def _agrees(library: ctypes.CDLL, dtype: torch.dtype) -> bool:
    """Whether the compiled products are PyTorch's, with edges in all directions; a compiler may be wrong."""
    random = torch.Generator().manual_seed(0)
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9
    for depth, columns in ((403, 131), (5, 3)):
        a = torch.randn(120, depth, generator=random, dtype=dtype)
        b = torch.randn(columns, depth, generator=random, dtype=dtype)
        index = torch.randint(120, (101,), generator=random)
        expected = a[index] @ b.t()
        for found in (
            _multiply(library, a, b, index, None, turned=True),
            _multiply(library, a, b.t(), index, expected.clone(), turned=False) - expected,
            _columns(library, a.t(), b.t().contiguous(), None, None)[index],
        ):
            if not torch.allclose(found, expected, rtol=tolerance, atol=tolerance):
                return False
    return True
