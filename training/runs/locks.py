"""One at a time: a run folder, a data set or an output folder in use is refused, with a word on who uses it.

A lock is a hidden file beside or in what it guards, locked by flock: the kernel ends it with its process, on this machine and, on
the network disks of today, on the others, so that what a killed run left blocks nobody. The file says who has it. Where a disk
knows no flock, the word in the file decides: a process of this machine that is gone has left a stale lock, and one of
another machine is asked about.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from types import TracebackType
from typing import Any

import psutil

from networks.checkpoints.durable_files import has_locks, lock_file
from networks.errors import InputError


class InUse(InputError):
    """Another process works on this.

    Attributes:
        since: When it began to, in seconds since 1970, by the clock of this machine; None where that is not known, or where it
            runs on another machine.
    """

    def __init__(self, sentence: str, since: float | None = None) -> None:
        super().__init__(sentence)
        self.since = since


class Lock:
    """The right to work on something, from construction (or `with`) to `release`.

    Args:
        path: The lock file; its folder exists.
        what: What is guarded, for the sentence of a refusal ('the run folder runs/00003-alice').

    Raises:
        InUse: Another process has it; the sentence says who, and since when.
        OSError: The file cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str], what: str) -> None:
        self.path = os.path.abspath(path)
        self.what = what
        self._handle = self._open()
        self._write_owner()

    def _open(self) -> int:
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, 'O_BINARY', 0), 0o666)
            try:
                free = lock_file(handle)
                if free is False or (free is None and self._is_held(handle)):
                    owner = self._read_owner(handle)
                    since = _number(owner.get('since')) if owner.get('host') == socket.gethostname() else None
                    raise InUse(self._refusal(owner), since)
                # A process that has just released the lock may have removed this very file.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(handle), os.stat(self.path)):
                        return handle
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)

    def _write_owner(self) -> None:
        owner = {
            'host': socket.gethostname(),
            'pid': os.getpid(),
            'started': psutil.Process().create_time(),
            'after_boot': _started_after_boot(os.getpid()),
            'since': time.time(),
            'command': os.path.basename(sys.argv[0]),
        }
        with contextlib.suppress(OSError):  # a full disk: the lock holds anyway, it only says less
            os.ftruncate(self._handle, 0)
            os.lseek(self._handle, 0, os.SEEK_SET)
            os.write(self._handle, json.dumps(owner).encode())

    @staticmethod
    def _read_owner(handle: int) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError, RecursionError):
            os.lseek(handle, 0, os.SEEK_SET)
            owner = json.loads(os.read(handle, 4096))
            if isinstance(owner, dict):
                return owner
        return {}

    def _is_held(self, handle: int) -> bool:
        """Without flock: whether the process that the file names may be at work still."""
        owner = self._read_owner(handle)
        if owner.get('host') != socket.gethostname():
            return 'host' in owner
        try:
            pid = int(owner['pid'])
            if abs(psutil.Process(pid).create_time() - float(owner['started'])) < 1:
                return True
            # Where the clock was set in between, only the time since the machine started says that it is the same process.
            return abs(_started_after_boot(pid) - float(owner['after_boot'])) < 0.02
        except (psutil.Error, KeyError, TypeError, ValueError, OverflowError):
            return False

    def _refusal(self, owner: dict[str, Any]) -> str:
        who = 'another process'
        if owner:
            since = ''
            with contextlib.suppress(TypeError, ValueError, OverflowError, OSError):
                since = time.strftime(', since %Y-%m-%d %H:%M:%S', time.localtime(float(owner.get('since') or 0)))
            who = f'{str(owner.get("command"))[:40]} (host {str(owner.get("host"))[:60]}, process {owner.get("pid")}{since})'
            who = ''.join(letter if letter.isprintable() else '?' for letter in who)
        hint = '' if owner.get('host') in (None, socket.gethostname()) else f'; if it is gone, remove {self.path}'
        return f'{self.what} is in use by {who}; wait for it, stop it, or choose another place{hint}'

    def release(self) -> None:
        """Give it back and remove the file; a second call does nothing."""
        if self._handle < 0:
            return
        if not has_locks():  # and Windows removes no file that is open
            os.close(self._handle)
        with contextlib.suppress(OSError):
            # Where the folder was deleted, another process may have made and locked a file of this name.
            if not has_locks() or os.path.samestat(os.fstat(self._handle), os.stat(self.path)):
                os.unlink(self.path)  # while it is ours: nobody else can have locked this file
        if has_locks():
            os.close(self._handle)
        self._handle = -1

    def __del__(self) -> None:
        if hasattr(self, '_handle'):
            self.release()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def _number(value: Any) -> float | None:
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return float(value)
    return None


def _started_after_boot(pid: int) -> float:
    boot = psutil.boot_time()  # asked first: the start of a process is counted from what this has found
    return psutil.Process(pid).create_time() - boot


def lock_path(target: str | os.PathLike[str]) -> str:
    """Where the lock of a file or folder that is to be made lies: hidden, beside it."""
    folder, name = os.path.split(os.path.abspath(target))
    return os.path.join(folder, f'.{name}.lock')


def lock_target(target: str | os.PathLike[str], option: str) -> Lock:
    """Lock a file or folder that a command makes, such as --dest; see `Lock`."""
    return Lock(lock_path(target), f'{option}: {os.fspath(target)}')
