"""Memory of the machine: how much there is for this process, and how it is kept.

Nothing heavy is imported here: every command calls `keep_freed_memory` when it starts.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import os
import re
import sys
from typing import Any

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_KEPT = 32 << 20  # glibc accepts no more
_KEPT_IN_ALL = 512 << 20
_HUGE_PAGES = 'THP_MEM_ALLOC_ENABLE'  # of PyTorch, which reads it at its first allocation
ALLOCATOR_SETTINGS = (
    'MALLOC_MMAP_THRESHOLD_',
    'MALLOC_MMAP_MAX_',
    'MALLOC_TRIM_THRESHOLD_',
    'MALLOC_TOP_PAD_',
    'GLIBC_TUNABLES',
    'LD_PRELOAD',
)


def keep_freed_memory() -> bool:
    """Make fresh memory cheap where the C library is glibc on Linux; call it before PyTorch is imported.

    glibc hands every large block that is freed back to the kernel and gets it anew, page by page and cleared, for the next map of
    the same size: half of the time of rendering large pictures. So blocks of up to 32 MiB are kept, 512 MiB of them at most, and
    PyTorch asks for larger ones in huge pages, of which there are 512 times fewer; to keep those as well would take twice the
    memory for gradients at 1024x1024, because blocks of different sizes do not fill each other's places.

    Does nothing, and returns False, on other systems and where one of `ALLOCATOR_SETTINGS` is set in the environment: then the
    user has decided.
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
    os.environ.setdefault(_HUGE_PAGES, '1')
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    done = [mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT), mallopt(_M_TRIM_THRESHOLD, _KEPT_IN_ALL)]
    return all(done)


# ----------------------------------------------------------------------------
# Python's garbage collector, which looks at every object that there is: PyTorch has 170,000 from its import to the end.

OBJECTS_OF_IMPORTS = 200_000


def collect_after_imports() -> None:
    """Let Python's garbage collector begin when so many objects exist that the imports are over, and then work as it did before.

    It runs hundreds of times while PyTorch is imported and finds nothing: a tenth of the import. Does nothing where it is off.
    """
    usual = gc.get_threshold()
    if not gc.isenabled() or usual[0] == 0 or usual[0] >= OBJECTS_OF_IMPORTS:
        return

    def as_before(phase: str, info: dict[str, Any]) -> None:
        gc.callbacks.remove(as_before)
        gc.set_threshold(*usual)

    gc.callbacks.append(as_before)
    gc.set_threshold(OBJECTS_OF_IMPORTS, *usual[1:])


def leave_objects_to_the_system() -> None:
    """Tell Python's garbage collector to ignore what there is: for the end of a process, whose memory the system takes back.

    Otherwise it looks through everything once more when the interpreter ends, which takes 0.4 s with PyTorch.
    """
    gc.freeze()


# ----------------------------------------------------------------------------
# How much there is.

DEFAULT_SHARE = 0.7  # of what is free
_UNITS = {'': 1, 'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30, 'T': 1 << 40}


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a command may use: so many bytes, or a share of what is free when it asks."""

    num_bytes: int | None = None
    share: float = DEFAULT_SHARE

    def on(self, device: Any) -> int:
        """Bytes on a device, for what is to be allocated from now on."""
        return self.num_bytes if self.num_bytes is not None else int(free_memory(device) * self.share)


def parse_budget(text: str) -> Budget:
    """'8G', '900M', '1.5GiB' or '50%'.

    Raises:
        ValueError: It is none of these.
    """
    match = re.fullmatch(r'(\d+(?:\.\d+)?)\s*(%|([KMGT]?)(?:i?B)?)', text.strip(), re.IGNORECASE)
    number = float(match[1]) if match else 0.0
    if match and match[2] == '%' and 0 < number <= 100:
        return Budget(share=number / 100)
    if match and match[2] != '%' and (num_bytes := int(number * _UNITS[match[3].upper()])) >= 1 << 20:
        return Budget(num_bytes=num_bytes)
    raise ValueError(f'{text!r} is no amount of memory; write 8G, 900M (at least 1M) or a share of what is free such as 50%')


def free_memory(device: Any = 'cpu') -> int:
    """Bytes that are free on a device: a GPU, or the machine, within the limits of the control groups of this process."""
    name = str(device)
    if name.startswith('cuda'):
        import torch  # loaded by whoever has such a device

        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + reserved)
    import psutil

    return int(min([psutil.virtual_memory().available, *_control_group_room()]))


def _control_group_room(root: str = '/sys/fs/cgroup', listing: str = '/proc/self/cgroup') -> list[int]:
    """What each control group that limits the memory of this process has left, version 2 or 1; the page cache counts as free."""
    room = []
    for line in _read(listing).splitlines():
        number, controllers, path = [*line.split(':', 2), '', ''][:3]
        if number == '0':
            folder, names = root, ('memory.max', 'memory.current', 'inactive_file')
        elif 'memory' in controllers.split(','):
            folder, names = f'{root}/memory', ('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file')
        else:
            continue
        parts = [part for part in path.split('/') if part and part != '..']
        for depth in range(len(parts) + 1):  # a container may show its own group as the root
            group = '/'.join([folder, *parts[:depth]])
            limit, used = (_read(f'{group}/{name}').strip() for name in names[:2])
            if not limit.isdigit() or not used.isdigit() or int(limit) >= 1 << 60:
                continue
            cache = dict(line.split()[:2] for line in _read(f'{group}/memory.stat').splitlines() if len(line.split()) == 2)
            room.append(max(int(limit) - int(used) + int(cache.get(names[2], 0)), 0))
    return room


def _read(path: str) -> str:
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            return file.read()
    except OSError:
        return ''


def how_many(one: float, budget: float, most: int) -> int:
    """How many things of `one` byte each fit into a budget: at least 1, at most `most`."""
    return max(1, min(most, int(budget // max(one, 1.0))))
