"""The CUDA forms of operations: when they can be used, and how tensors are handed to them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from .. import custom_ops

ELEMENT_TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.float64: 3}  # as in element_types.h


def plugin_for(operation: str, x: torch.Tensor, impl: str, probe: Callable[[Any, torch.Tensor], Any]) -> Any:
    """Return the compiled module of an operation, or None if `x` or this machine asks for the plain form.

    `probe(plugin, tensor)` runs the operation on a tensor [1, 1, 1, 1]; where it fails (a GPU that the code was not
    compiled for, say), one line says so and the plain form is used on that GPU.

    Raises ValueError for an `impl` that is not 'cuda' or 'ref'.
    """
    if impl not in ('cuda', 'ref'):
        raise ValueError(f"{operation}: impl is {impl!r}, it must be 'cuda' or 'ref'")
    if impl == 'ref' or x.device.type != 'cuda' or x.dtype not in ELEMENT_TYPES:
        return None
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined,unused-ignore]
        return None  # a compiler or tracer sees through the plain form only
    plugin = custom_ops.get_plugin_if_possible(
        f'{operation}_plugin',
        [f'{operation}.cpp', f'{operation}.cu'],
        source_dir=os.path.dirname(__file__),
        headers=[f'{operation}.h', f'{operation}_math.h', 'element_types.h', 'launching.h'],
        extra_cuda_cflags=['--allow-unsupported-compiler'],
    )
    return plugin if plugin is not None and _works(operation, plugin, x.device, probe) else None


_works_on: dict[tuple[str, torch.device], bool] = {}


def _works(operation: str, plugin: ModuleType, device: torch.device, probe: Callable[[Any, torch.Tensor], Any]) -> bool:
    key = operation, device
    if key not in _works_on:
        try:
            probe(plugin, torch.ones([1, 1, 1, 1], device=device))
            _works_on[key] = True
        except RuntimeError as error:
            _works_on[key] = False
            if custom_ops.verbosity != 'none':
                print(
                    f'{operation}_plugin: does not run on {device} ({error}); going on with the plain PyTorch form.',
                    file=sys.stderr,
                    flush=True,
                )
    return _works_on[key]


def current_stream(x: torch.Tensor) -> int:
    """Return the address of the CUDA stream that operations on `x` belong to now."""
    return torch.cuda.current_stream(x.device).cuda_stream
