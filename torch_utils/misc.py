"""Tensors, modules and data loading: the small things that networks and training loops share."""

from __future__ import annotations

import contextlib
import functools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

Function = TypeVar('Function', bound=Callable[..., Any])

# ----------------------------------------------------------------------------
# Tensors.


def constant(
    value: Any,
    shape: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    memory_format: torch.memory_format | None = None,
) -> torch.Tensor:
    """Return a tensor with the given value, the same object for the same arguments; do not write to it.

    `value` is anything that `np.asarray` takes; it is broadcast to `shape` if given. Saves the copy to the device that
    a new tensor costs in each step of a training.
    """
    array = np.asarray(value)
    return _cached_constant(
        array.tobytes(),
        array.dtype.str,
        array.shape,
        None if shape is None else tuple(int(size) for size in shape),
        torch.get_default_dtype() if dtype is None else dtype,
        str(torch.device('cpu') if device is None else torch.device(device)),
        torch.contiguous_format if memory_format is None else memory_format,
    )


@functools.lru_cache(maxsize=4096)
def _cached_constant(
    data: bytes,
    kind: str,
    array_shape: tuple[int, ...],
    shape: tuple[int, ...] | None,
    dtype: torch.dtype,
    device: str,
    memory_format: torch.memory_format,
) -> torch.Tensor:
    array = np.frombuffer(data, dtype=kind).reshape(array_shape).copy()
    with torch.inference_mode(mode=False):  # a constant made during inference must serve a later training, too
        tensor = torch.as_tensor(array, dtype=dtype, device=device)
        return (tensor if shape is None else tensor.expand(shape)).contiguous(memory_format=memory_format)


nan_to_num = torch.nan_to_num
symbolic_assert = torch._assert  # stays a check of the traced graph under torch.jit.trace


@contextlib.contextmanager
def suppress_tracer_warnings() -> Iterator[None]:
    """Within this context, `torch.jit.trace` does not warn of Python values that it makes constant."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', category=torch.jit.TracerWarning)  # type: ignore[attr-defined,unused-ignore]
        yield


def assert_shape(tensor: torch.Tensor, ref_shape: Sequence[int | torch.Tensor | None]) -> None:
    """Raise AssertionError unless the tensor has the shape `ref_shape`, where None stands for any size."""
    expected = list(ref_shape)
    if tensor.ndim != len(expected):
        raise AssertionError(f'Wrong number of dimensions: got {tensor.ndim}, expected {len(expected)}')
    for axis, (size, wanted) in enumerate(zip(tensor.shape, expected, strict=True)):
        if wanted is None:
            continue
        if isinstance(size, torch.Tensor) or isinstance(wanted, torch.Tensor):  # sizes are tensors while tracing
            with suppress_tracer_warnings():
                symbolic_assert(torch.equal(torch.as_tensor(size), torch.as_tensor(wanted)), f'Wrong size at {axis}')
        elif size != wanted:
            raise AssertionError(f'Wrong size for dimension {axis}: got {size}, expected {wanted}')


def profiled_function(fn: Function) -> Function:
    """Decorator: the function appears under its own name in PyTorch's profiler."""

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with torch.autograd.profiler.record_function(fn.__name__):
            return fn(*args, **kwargs)

    return wrapper  # type: ignore[return-value]


# ----------------------------------------------------------------------------
# Data loading.


class InfiniteSampler(torch.utils.data.Sampler[int]):
    """Endless stream of item indices, shared between ranks, with shuffling in a moving window.

    Rank r takes every `num_replicas`-th index of one common stream. The stream walks through an order of all items
    again and again; behind the walk, each item trades places with one of the `window_size * len(dataset)` items walked
    over last, so that no item comes back at once and the order is another each time.
    """

    def __init__(
        self,
        dataset: Any,  # Anything with a length.
        rank: int = 0,  # Which share of the stream to yield, 0 ... num_replicas-1.
        num_replicas: int = 1,  # Into how many shares the stream is dealt.
        shuffle: bool = True,  # False = in order, again and again.
        seed: int = 0,  # The order is a function of the seed; all ranks need the same.
        window_size: float = 0.5,  # Length of the window as a share of the data set, in [0, 1].
    ) -> None:
        super().__init__()
        if len(dataset) < 1:
            raise ValueError('InfiniteSampler: the data set is empty')
        if not 0 <= rank < num_replicas:
            raise ValueError(f'InfiniteSampler: rank {rank} of {num_replicas} does not exist')
        if not 0 <= window_size <= 1:
            raise ValueError(f'InfiniteSampler: window_size is {window_size}, it must be in [0, 1]')
        self.dataset = dataset
        self.rank, self.num_replicas = rank, num_replicas
        self.shuffle, self.seed, self.window_size = shuffle, seed, window_size

    def __iter__(self) -> Iterator[int]:
        count = len(self.dataset)
        order = np.arange(count)
        random = np.random.RandomState(self.seed)
        window = 0
        if self.shuffle:
            random.shuffle(order)
            window = int(np.rint(count * self.window_size))
        position = turn = 0
        while True:
            if turn == self.rank:
                yield int(order[position])
            if window > 1:
                other = (position - random.randint(window)) % count
                order[[position, other]] = order[[other, position]]
            position = (position + 1) % count
            turn = (turn + 1) % self.num_replicas


# ----------------------------------------------------------------------------
# Parameters and buffers.


def named_params_and_buffers(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Return (name, tensor) of all parameters, then of all buffers."""
    return [*module.named_parameters(), *module.named_buffers()]


def params_and_buffers(module: torch.nn.Module) -> list[torch.Tensor]:
    """Return all parameters, then all buffers."""
    return [tensor for _, tensor in named_params_and_buffers(module)]


def copy_params_and_buffers(src_module: torch.nn.Module, dst_module: torch.nn.Module, require_all: bool = False) -> None:
    """Copy what has the same name in both modules; `requires_grad` of the destination stays.

    Raises KeyError if `require_all` and the source lacks a name of the destination.
    """
    source = dict(named_params_and_buffers(src_module))
    target = dict(named_params_and_buffers(dst_module))
    missing = sorted(target.keys() - source.keys())
    if require_all and missing:
        raise KeyError(f'the source module lacks {", ".join(missing)}')
    with torch.no_grad():
        for name in target.keys() & source.keys():
            target[name].copy_(source[name].detach())


# ----------------------------------------------------------------------------
# Several ranks.


@contextlib.contextmanager
def ddp_sync(module: Any, sync: bool) -> Iterator[None]:
    """Within this context, a DistributedDataParallel module exchanges gradients only if `sync`."""
    is_parallel = isinstance(module, torch.nn.parallel.DistributedDataParallel)
    with module.no_sync() if is_parallel and not sync else contextlib.nullcontext():
        yield


def check_ddp_consistency(module: torch.nn.Module, ignore_regex: str | None = None) -> None:
    """Raise AssertionError on all ranks, with the names, unless all hold the same parameters and buffers.

    Names are `<class>.<name>`; those that `ignore_regex` matches in full are left out. NaN counts as equal to NaN.
    """
    tensors = {f'{type(module).__name__}.{name}': tensor.detach() for name, tensor in named_params_and_buffers(module)}
    if ignore_regex is not None:
        tensors = {name: tensor for name, tensor in tensors.items() if not re.fullmatch(ignore_regex, name)}
    if not tensors:
        return
    flags = []
    for own in tensors.values():
        of_rank_0 = own.clone()
        torch.distributed.broadcast(of_rank_0, src=0)
        flags.append(float(not torch.equal(nan_to_num(own), nan_to_num(of_rank_0))))
    differs = torch.tensor(flags, device=own.device)
    torch.distributed.all_reduce(differs)
    names = [name for name, count in zip(tensors, differs.tolist(), strict=True) if count]
    if names:
        raise AssertionError(f'not the same on all ranks: {", ".join(names)}')


# ----------------------------------------------------------------------------
# Summary.


def print_module_summary(
    module: torch.nn.Module, inputs: Sequence[Any], max_nesting: int = 3, skip_redundant: bool = True
) -> Any:
    """Run the module once, print one row for each submodule, and return the module's outputs.

    Rows show parameters and buffers that no row above has counted, and shape and dtype of the outputs. Submodules
    deeper than `max_nesting` calls count towards the row that contains them; `skip_redundant` leaves out rows that add
    nothing.
    """
    calls: list[tuple[torch.nn.Module, list[torch.Tensor]]] = []
    depth = 0

    def enter(_module: torch.nn.Module, _inputs: object) -> None:
        nonlocal depth
        depth += 1

    def leave(called: torch.nn.Module, _inputs: object, result: Any) -> None:
        nonlocal depth
        depth -= 1
        if depth <= max_nesting:
            results = result if isinstance(result, (tuple, list)) else [result]
            calls.append((called, [item for item in results if isinstance(item, torch.Tensor)]))

    handles = []
    for submodule in module.modules():
        handles += [submodule.register_forward_pre_hook(enter), submodule.register_forward_hook(leave)]
    try:
        outputs = module(*inputs)
    finally:
        for handle in handles:
            handle.remove()

    names = {submodule: name or '<top-level>' for name, submodule in module.named_modules()}
    counted: set[int] = set()
    rows: list[tuple[str, int, int, list[str], list[str]]] = []
    for submodule, tensors in calls:

        def fresh(items: Iterator[torch.Tensor] | list[torch.Tensor]) -> list[torch.Tensor]:
            new = [item for item in items if id(item) not in counted]
            counted.update(map(id, new))
            return new

        parameters = sum(item.numel() for item in fresh(submodule.parameters()))
        buffers = sum(item.numel() for item in fresh(submodule.buffers()))
        if skip_redundant and not parameters and not buffers and not fresh(tensors):
            continue
        counted.update(map(id, tensors))
        shapes = [str(list(item.shape)) for item in tensors]
        dtypes = [str(item.dtype).removeprefix('torch.') for item in tensors]
        rows.append((names[submodule], parameters, buffers, shapes or ['-'], dtypes or ['-']))

    table = [[type(module).__name__, 'Parameters', 'Buffers', 'Output shape', 'Datatype'], ['---'] * 5]
    for name, parameters, buffers, shapes, dtypes in rows:
        for index, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True)):
            label = name if len(shapes) == 1 else f'{name}:{index}'
            sizes = [str(size or '-') if index == 0 else '-' for size in (parameters, buffers)]
            table.append([label, *sizes, shape, dtype])
    totals = [sum(row[column] for row in rows) for column in (1, 2)]  # type: ignore[misc]
    table += [['---'] * 5, ['Total', *(str(total or '-') for total in totals), '-', '-']]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print()
    for row in table:
        print('  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print()
    return outputs
