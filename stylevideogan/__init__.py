"""StyleVideoGAN: how one subject moves in the W+ space of a StyleGAN, learned from footage, and new video of it.

    from stylevideogan import scores

Everything else lies in the rooms `stylevideogan.training`, `.networks`, `.metrics` and so on, which are the top-level folders of
the repository.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from stylevideogan.version import __version__

if TYPE_CHECKING:  # imported when asked for: torch takes seconds
    from stylevideogan import score_objects, scores

__all__ = ['__version__', 'score_objects', 'scores']


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f'stylevideogan.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
