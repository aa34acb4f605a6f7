"""Memory of the machine: how much there is for this process, and how it is kept.

Nothing heavy is imported here: every command calls `keep_freed_memory` when it starts.
"""

from __future__ import annotations

import ctypes
import os
import sys

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_LARGEST_INT = 2**31 - 1
ALLOCATOR_SETTINGS = (
    'MALLOC_MMAP_THRESHOLD_',
    'MALLOC_MMAP_MAX_',
    'MALLOC_TRIM_THRESHOLD_',
    'MALLOC_TOP_PAD_',
    'GLIBC_TUNABLES',
    'LD_PRELOAD',
)


def keep_freed_memory() -> bool:
    """Let the C library keep large blocks that are freed for the next ones, where it is glibc on Linux.

    glibc hands every block of some MiB back to the kernel when it is freed, and gets it anew, page by page and cleared, for the
    next map of the same size: half of the time of rendering large pictures. Does nothing, and returns False, on other systems
    and where one of `ALLOCATOR_SETTINGS` is set in the environment: then the user has decided.
    """
    if not sys.platform.startswith('linux') or any(os.environ.get(name) for name in ALLOCATOR_SETTINGS):
        return False
    try:
        library = ctypes.CDLL(None)
        if not hasattr(library, 'gnu_get_libc_version'):
            return False
        mallopt = library.mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    done = [mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT), mallopt(_M_TOP_PAD, 64 << 20)]
    return all(done)
