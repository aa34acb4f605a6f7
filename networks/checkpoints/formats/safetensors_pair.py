"""Image generators as safetensors: weights that nothing can hide code in, with the construction arguments as JSON.

`NAME.safetensors` holds the state dict. The description (class_name, init_kwargs) is in its header under the key
`image_generator`, and once more in `NAME.json` for people and other programs.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any

import torch

from networks import stylegan2, stylegan3
from networks.checkpoints.formats import nvidia_pytorch
from networks.checkpoints.formats.assembly import assemble
from networks.checkpoints.lazy_data import ByteSource, LazyBytes, LazyStorage, LazyTensor
from networks.errors import InputError

METADATA_KEY = 'image_generator'
RECORD_KEY = 'tuned_generator'  # where a tuned one comes from
CLASSES: dict[str, Any] = {'stylegan2.Generator': stylegan2.Generator, 'stylegan3.Generator': stylegan3.Generator}
MAX_HEADER_BYTES = 1 << 23  # The format allows more; a StyleGAN has about 30 thousand.
DTYPES = {
    'F64': torch.float64,
    'F32': torch.float32,
    'F16': torch.float16,
    'BF16': torch.bfloat16,
    'I64': torch.int64,
    'I32': torch.int32,
    'I16': torch.int16,
    'I8': torch.int8,
    'U8': torch.uint8,
    'BOOL': torch.bool,
}

# ----------------------------------------------------------------------------
# Reading. https://huggingface.co/docs/safetensors/index#format: length of the header, header in JSON, data.


class SafetensorsContents:
    """Tensors of a safetensors file, still there, and the text pairs of its header."""

    def __init__(self, tensors: dict[str, LazyTensor], metadata: dict[str, str]) -> None:
        self.tensors = tensors
        self.metadata = metadata


def is_safetensors(start: bytes, size: int) -> bool:
    """Whether a file of `size` bytes with this start is one."""
    return len(start) > 8 and start[8:9] == b'{' and struct.unpack('<Q', start[:8])[0] <= min(size - 8, MAX_HEADER_BYTES)


def read(source: ByteSource) -> SafetensorsContents:
    """The contents, or InputError if the header is damaged."""
    (length,) = struct.unpack('<Q', source.read(0, 8))
    tensors, metadata = {}, {}
    try:
        header = json.loads(source.read(8, length).decode())  # the format is UTF-8; bytes would be guessed at
        metadata = header.pop('__metadata__', {})
        for name, entry in header.items():
            dtype, shape = DTYPES[entry['dtype']], tuple(entry['shape'])
            begin, end = entry['data_offsets']
            stride = tuple(int(torch.Size(shape[axis + 1 :]).numel()) for axis in range(len(shape)))
            data = LazyBytes(source, 8 + length + begin, end - begin)
            tensor = LazyTensor(LazyStorage(dtype, (end - begin) // dtype.itemsize, data), 0, shape, stride)
            if torch.Size(shape).numel() * dtype.itemsize != end - begin:
                raise InputError(f'it declares {name[:80]} of shape {str(shape)[:80]} in {end - begin} bytes')
            tensors[name] = tensor
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError, RuntimeError) as error:
        raise InputError('its safetensors header is damaged') from error
    return SafetensorsContents(tensors, metadata if isinstance(metadata, dict) else {})


# ----------------------------------------------------------------------------
# The interface of every format.


def matches(contents: object) -> bool:
    """Whether this is a safetensors file."""
    return isinstance(contents, SafetensorsContents)


def build_generator(contents: SafetensorsContents) -> torch.nn.Module:
    """The generator that the header describes.

    Raises:
        InputError: The header does not describe one, or the weights do not fit it.
    """
    if METADATA_KEY not in contents.metadata:
        raise InputError('its header does not say which network the weights are of (convert_network.py writes that)')
    try:
        description = json.loads(contents.metadata[METADATA_KEY])
        class_name, kwargs = description['class_name'], description['init_kwargs']
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError('the description in its header is damaged') from error
    if class_name not in CLASSES or not isinstance(kwargs, dict):
        raise InputError(f'it describes a {str(class_name)[:60]}, which is none of {", ".join(CLASSES)}')
    nvidia_pytorch.check_arguments(kwargs, "its generator's construction arguments")
    return assemble(lambda: CLASSES[class_name](**kwargs), contents.tensors, where='its generator')  # type: ignore[arg-type]


# ----------------------------------------------------------------------------
# Writing.


def describe(module: Any) -> dict[str, Any]:
    """What the header says of a generator of one of our classes."""
    names = [name for name, known in CLASSES.items() if type(module) is known]
    if not names:
        raise InputError(f'a {type(module).__name__} cannot be written as safetensors')
    positional = dict(zip(nvidia_pytorch.POSITIONAL, module.init_args, strict=False))
    return {'class_name': names[0], 'init_kwargs': {**positional, **module.init_kwargs}}


def write(path: str, description_path: str, module: torch.nn.Module, record: Mapping[str, Any] | None = None) -> None:
    """Write the weights with their description, and the description once more as text.

    Args:
        path, description_path: Where to.
        module: Generator of one of our classes.
        record: Where it comes from (networks.checkpoints.tuned_generators); None: nothing is said of that.
    """
    from safetensors.torch import save  # Here: nothing else needs the library.

    described = describe(module)
    description = json.dumps(described, indent=4)
    metadata = {'format': 'pt', METADATA_KEY: description}
    if record is not None:
        metadata[RECORD_KEY] = json.dumps(record)
    state: Mapping[str, torch.Tensor] = module.state_dict()
    # Copies, because the library refuses tensors that share memory, as equal filters may.
    tensors = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    content = save(tensors, metadata)
    with open(path, 'wb') as file:  # not by the library, whose errors of a full disk are of its own kind
        file.write(content)
    with open(description_path, 'w', encoding='utf-8') as text:
        text.write(json.dumps({**described, **(record or {})}, indent=4) + '\n')
