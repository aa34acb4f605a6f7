"""The CUDA forms of operations: when they can be used, and how tensors are handed to them."""

from __future__ import annotations

import os
from typing import Any

import torch

from .. import custom_ops

ELEMENT_TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.float64: 3}  # as in element_types.h


def plugin_for(operation: str, x: torch.Tensor, impl: str) -> Any:
    """Return the compiled module of an operation, or None if `x` or this machine asks for the plain form.

    Raises ValueError for an `impl` that is not 'cuda' or 'ref'.
    """
    if impl not in ('cuda', 'ref'):
        raise ValueError(f"{operation}: impl is {impl!r}, it must be 'cuda' or 'ref'")
    if impl == 'ref' or x.device.type != 'cuda' or x.dtype not in ELEMENT_TYPES:
        return None
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return None  # a compiler or tracer sees through the plain form only
    return custom_ops.get_plugin_if_possible(
        f'{operation}_plugin', [f'{operation}.cpp', f'{operation}.cu'], source_dir=os.path.dirname(__file__),
        headers=[f'{operation}.h', f'{operation}_math.h', 'element_types.h'],
        extra_cuda_cflags=['--allow-unsupported-compiler'])


def current_stream(x: torch.Tensor) -> int:
    """Return the address of the CUDA stream that operations on `x` belong to now."""
    return torch.cuda.current_stream(x.device).cuda_stream
