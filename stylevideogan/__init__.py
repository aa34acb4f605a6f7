"""StyleVideoGAN: how one subject moves in the W+ space of a StyleGAN, learned from footage, and new video of it.

Everything lies in the rooms `stylevideogan.training`, `.networks`, `.metrics` and so on, which are the top-level folders of the
repository.
"""

from stylevideogan.version import __version__

__all__ = ['__version__']
