"""Everything that knows files of weights: reading without running what they carry, and writing.

The public names of `loading`, `files` and `writing` are names of this package. They are imported at first use, because
torch takes seconds that `--help` need not spend.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from networks.checkpoints.durable_files import replacing as replacing
    from networks.checkpoints.files import TRUST_HINT as TRUST_HINT
    from networks.checkpoints.files import CodeRefused as CodeRefused
    from networks.checkpoints.files import file_sha256 as file_sha256
    from networks.checkpoints.loading import load_discriminator as load_discriminator
    from networks.checkpoints.loading import load_encoder as load_encoder
    from networks.checkpoints.loading import load_generator as load_generator
    from networks.checkpoints.loading import load_snapshot as load_snapshot
    from networks.checkpoints.loading import load_snapshot_or_none as load_snapshot_or_none
    from networks.checkpoints.loading import tuning_record as tuning_record
    from networks.checkpoints.writing import image_generator_reference as image_generator_reference
    from networks.checkpoints.writing import save_module_pickle as save_module_pickle
    from networks.checkpoints.writing import to_plain as to_plain

_HOME = {
    **dict.fromkeys(('TRUST_HINT', 'CodeRefused', 'file_sha256'), 'files'),
    'replacing': 'durable_files',
    **dict.fromkeys(
        ('load_discriminator', 'load_encoder', 'load_generator', 'load_snapshot', 'load_snapshot_or_none', 'tuning_record'),
        'loading',
    ),
    **dict.fromkeys(('image_generator_reference', 'save_module_pickle', 'to_plain'), 'writing'),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = globals()[name] = getattr(importlib.import_module(f'{__name__}.{_HOME[name]}'), name)
    return value
