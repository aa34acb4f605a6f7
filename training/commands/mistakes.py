"""What a user got wrong, and what the system could not do, as one sentence."""

import errno
import os
import re
import sys

import click

EXIT_MISTAKE = 2  # what click itself uses for a wrong option


class UserMistake(click.ClickException):
    """Something that the user asked for cannot be done; shown as one sentence, exit code 2."""

    exit_code = EXIT_MISTAKE


def describe_os_error(error: OSError) -> str:
    """One sentence for an error of the operating system: what, where, and what to do."""
    where = f' {os.fspath(error.filename)!r}' if isinstance(error.filename, (str, bytes, os.PathLike)) else ''
    if error.errno == errno.ENOSPC:
        return f'no space is left on the disk{where and " while writing" + where}; free some and run the command again'
    if error.errno == errno.EDQUOT:
        return f'your quota of the disk is used up{where and ", while writing" + where}; free some and run the command again'
    if error.errno in (errno.EACCES, errno.EPERM):
        return f'no permission for{where or " a file"}; choose another place or change its permissions'
    if error.errno == errno.EROFS:
        return f'the disk is mounted read-only{where and ", so there is no writing to" + where}; choose another place'
    if error.errno == errno.EFBIG:
        return f'a file{where} would become larger than is allowed here; raise the limit (ulimit -f) or choose another disk'
    if error.errno == errno.EIO:
        return f'the disk reports an error{where and " at" + where} (input/output error); what was saved before is whole'
    if error.errno == errno.ENOENT:
        return f'no such file or folder:{where or " (unnamed)"}; check the path'
    if error.errno == errno.EISDIR:
        return f'expected a file but found a folder:{where}'
    if error.errno == errno.ENOTDIR:
        return f'a part of this path is a file, not a folder:{where}'
    if error.errno == errno.EMFILE:
        return 'too many open files; raise the limit (ulimit -n) or use fewer workers'
    return ' '.join(str(error).split()) or type(error).__name__


def describe_memory_error(error: BaseException) -> str | None:
    """One sentence when the error means that memory ran out, on the host or on a GPU; else None."""
    if isinstance(error, MemoryError):
        return 'out of memory; use a smaller batch, shorter clips or fewer of them'
    torch_module = sys.modules.get('torch')
    if torch_module is not None and isinstance(error, torch_module.OutOfMemoryError):
        return 'the GPU is out of memory; use a smaller batch, or another device'
    if isinstance(error, RuntimeError) and 'DefaultCPUAllocator' in str(error):
        return 'out of memory; use a smaller batch, shorter clips or fewer of them'
    return None


def describe_torch_write_error(error: BaseException) -> str | None:
    """One sentence when torch.save could not write: it hides the system's error, nearly always a full disk."""
    if isinstance(error, RuntimeError) and (match := re.search(r'open file failed with strerror: ([^\n]{1,80})', str(error))):
        return f'a file could not be opened for writing: {match[1].strip().rstrip(".").lower()}; choose another place'
    words = ('PytorchStreamWriter failed writing', '. unexpected pos ', 'iostream error')  # the others where it notices late
    if isinstance(error, RuntimeError) and any(word in str(error) for word in words):
        return 'a file could not be written to its end, the disk is probably full; free some space and run again'
    return None
