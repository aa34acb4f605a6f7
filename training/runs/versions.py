"""What a result was made with."""

from __future__ import annotations

import platform

import numpy as np
import torch

from stylevideogan import version


def versions() -> dict[str, str]:
    """This project with its commit where that is known, Python, and packages."""
    own = {'stylevideogan': version.__version__, **({'commit': commit} if (commit := version.commit()) else {})}
    return {**own, 'python': platform.python_version(), 'torch': str(torch.__version__), 'numpy': np.__version__}
