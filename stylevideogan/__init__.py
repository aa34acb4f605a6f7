"""StyleVideoGAN: how one subject moves in the W+ space of a StyleGAN, learned from footage, and new video of it.

    from stylevideogan import embed, generate, load_generator, scores, train, tune, write_latents

docs/python.md shows each in ten lines. Everything else lies in the rooms `stylevideogan.training`, `.networks`, `.metrics` and so
on, which are the top-level folders of the repository.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from stylevideogan.version import __version__

if TYPE_CHECKING:  # imported when asked for: torch takes seconds
    from stylevideogan import score_objects, scores
    from stylevideogan.api import (
        embed,
        generate,
        load_encoder,
        load_generator,
        load_snapshot,
        make_video,
        train,
        tune,
        write_latents,
    )

__all__ = [
    '__version__', 'embed', 'generate', 'load_encoder', 'load_generator', 'load_snapshot', 'make_video', 'score_objects',
    'scores', 'train', 'tune', 'write_latents',
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in ('score_objects', 'scores'):
        return importlib.import_module(f'stylevideogan.{name}')
    if name in __all__:
        return getattr(importlib.import_module('stylevideogan.api'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
