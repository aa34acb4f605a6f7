"""From weights under our names to a module that holds them: what every format has in common."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from networks.errors import InputError

SMALL = 1 << 12  # Elements of a random tensor that a constructor may compute with.
MOST_BLOCKS = 10  # 4 << 10 pixels: more than any StyleGAN2.
MOST_LAYERS = 64  # Of a mapping network.
MOST_LATENTS = 8192  # Values in a code.


def plain_name(name: str) -> str:
    """Name of a weight without what wrappers add: `module.` (torch.nn.parallel), `_orig_mod.` (torch.compile, at any depth)."""
    return name.replace('_orig_mod.', '').removeprefix('module.')


class NothingAllocated(TorchFunctionMode):
    """Context in which `torch.randn`, `torch.zeros` and their like make tensors that have a shape and no memory.

    Unlike `torch.device('meta')` it leaves `torch.tensor` and `torch.as_tensor` alone, so filters that a constructor
    computes from a few numbers are real. Constructors had better not subtract such tensors or take their roots: that
    makes PyTorch import its compiler, which costs seconds.
    """

    FACTORIES = frozenset({torch.empty, torch.full, torch.ones, torch.rand, torch.randn, torch.zeros})
    RANDOM = frozenset({torch.rand, torch.randn})
    KEEP_THE_SHAPE = frozenset(
        {
            torch.Tensor.div,
            torch.Tensor.__truediv__,
            torch.Tensor.mul,
            torch.Tensor.__mul__,
            torch.Tensor.normal_,
            torch.Tensor.uniform_,
            torch.Tensor.div_,
            torch.Tensor.mul_,
            torch.Tensor.flip,
        }
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.eye:
            func, args = torch.empty, (args[0], args[-1])
        if func in self.RANDOM and torch.Size(args[0] if isinstance(args[0], (list, tuple)) else args).numel() < SMALL:
            return func(*args, **kwargs)
        if func in self.FACTORIES:
            # The random ones, torch.eye, and arithmetic on such tensors would first import torch's compiler, for seconds.
            return (torch.empty if func in self.RANDOM else func)(*args, **{**kwargs, 'device': 'meta'})
        if func in self.KEEP_THE_SHAPE and args[0].is_meta and not any(torch.is_tensor(arg) for arg in args[1:]):
            return args[0]
        return func(*args, **kwargs)


def assemble(construct: Callable[[], torch.nn.Module], state: Mapping[str, torch.Tensor], *, where: str) -> torch.nn.Module:
    """Construct a module without allocating or initialising its weights, and give it those of a file.

    Args:
        construct: Makes the module; runs where factories of tensors allocate nothing.
        state: Every parameter and buffer of the module under its state-dict name. Tensors are used as they are where
            they are float32 and contiguous.
        where: What the weights are, for the error ('the rosinality generator').

    Returns:
        The module in evaluation mode, without gradients for its weights.

    Raises:
        InputError: Names, shapes or types do not fit the architecture.
    """
    try:
        with NothingAllocated():
            module = construct()
    except (TypeError, ValueError, AssertionError, ArithmeticError, LookupError, RuntimeError) as error:
        raise InputError(f'{where} cannot be built from what the file says about it: {error}') from error
    expected = module.state_dict()
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    if missing or unknown:
        parts = [f'{len(missing)} missing, such as {missing[0]}'] if missing else []
        parts += [f'{len(unknown)} too many, such as {unknown[0]}'] if unknown else []
        raise InputError(f'{where} has other weights than its architecture ({"; ".join(parts)})')
    for name, tensor in state.items():
        needed, found = list(expected[name].shape), getattr(tensor, 'shape', None)
        dtype = getattr(tensor, 'dtype', None)
        if found is None or not isinstance(dtype, torch.dtype):
            raise InputError(f'{where} has something else than a tensor under {name}')
        if list(found) != needed:
            raise InputError(f'{where} has {name} of shape {list(found)}, and its architecture needs {needed}')
        if dtype.is_complex or dtype.is_floating_point != expected[name].dtype.is_floating_point:
            raise InputError(f'{where} has {name} of type {dtype}, and its architecture needs {expected[name].dtype}')
    values = {name: tensor.detach().to(expected[name].dtype).contiguous() for name, tensor in state.items()}
    module.load_state_dict(values, assign=True)
    return module.eval().requires_grad_(False)


def fit_channels(channels: Mapping[int, int], *, where: str) -> dict[str, int]:
    """`channel_base` and `channel_max` with min(channel_base // resolution, channel_max) = channels[resolution].

    Raises:
        InputError: There are none.
    """
    widest = max(channels.values())
    base = max(resolution * count for resolution, count in channels.items())  # The least that is enough everywhere.
    if any(min(base // resolution, widest) != count for resolution, count in channels.items()):
        table = ', '.join(f'{resolution}: {count}' for resolution, count in sorted(channels.items()))
        raise InputError(f'{where} has channels that are not min(a / resolution, b) for any a and b ({table})')
    return {'channel_base': base, 'channel_max': widest}


def tensor_of(state: Mapping[str, Any], name: str, ndim: int, *, units: int = 0, where: str) -> torch.Tensor:
    """The floating-point tensor of that name and number of dimensions, without the first `units`, which have size 1.

    Raises:
        InputError: There is none.
    """
    tensor = state.get(name)
    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point() or tensor.ndim != ndim:
        raise InputError(f'{where} has no tensor {name} of {ndim} dimensions')
    if any(size != 1 for size in tensor.shape[:units]):
        raise InputError(f'{where} has {name} of shape {list(tensor.shape)}, whose first {units} must be 1')
    return tensor.reshape(tensor.shape[units:])
