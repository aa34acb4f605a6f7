"""Finds the image generator that a snapshot refers to, and checks that it has the recorded SHA-256."""

import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from networks.checkpoints.addresses import is_address
from networks.checkpoints.addresses import resolve as local_file
from networks.errors import InputError

__all__ = ['candidate_paths', 'find_image_generator', 'is_address', 'local_file']


def candidate_paths(reference: Mapping[str, Any], snapshot: str, *, folders: bool = False) -> Iterator[str]:
    """Where a recorded file may lie, best first: its recorded path, then the same name near the snapshot and here.

    A recorded path that is relative counts from the current folder and from the snapshot's. `folders` finds folders
    as well as files.
    """
    recorded = reference.get('path') or ''
    if not recorded:
        return
    if is_address(recorded):
        yield recorded
        return
    folder = '.' if is_address(snapshot) else os.path.dirname(os.path.abspath(snapshot))
    name = os.path.basename(recorded.replace('\\', '/'))  # it may have been recorded on Windows
    seen = set()
    for path in (
        recorded,
        os.path.join(folder, recorded),
        os.path.join(folder, name),
        os.path.join(os.path.dirname(folder), name),
        name,
    ):
        absolute = os.path.abspath(path)
        if absolute not in seen and (os.path.isfile(absolute) or (folders and os.path.isdir(absolute))):
            seen.add(absolute)
            yield path


class OptionNames(NamedTuple):
    """What a command calls its options, for the sentences of `find_image_generator`.

    Attributes:
        network: The option that takes the image generator.
        force: The option that accepts another file; None where there is none.
    """

    network: str
    force: str | None = None


def find_image_generator(
    reference: Mapping[str, Any],
    *,
    snapshot: str,
    image_network: str | None = None,
    force: bool = False,
    options: OptionNames | None = None,
) -> str:
    """The path (or address) of the image generator of a snapshot or latent data set.

    Args:
        reference: `path` and `sha256`, as `networks.checkpoints.image_generator_reference` makes them.
        snapshot: The file that holds the reference.
        image_network: The user's own answer, which ends the search.
        force: Accept `image_network` although it is another file.
        options: How the command calls what the user can do about it; None: sentences name no options.

    Returns:
        A path whose content has the recorded sha256, unless `force`; or an address, still to be checked.

    Raises:
        InputError: there is none, or only other files of that name.
    """
    from networks.checkpoints import file_sha256  # here, because it brings torch

    wanted = reference.get('sha256')
    candidates = [image_network] if image_network else list(candidate_paths(reference, snapshot))
    if image_network and not is_address(image_network) and not os.path.isfile(image_network):
        raise InputError(f'{options.network + ": " if options else ""}there is no file {image_network!r}')
    others = []
    for path in candidates:
        if is_address(path) or not wanted or (force and image_network):
            return path
        found = file_sha256(path)
        if found == wanted:
            return path
        others.append(f'{path!r} (sha256 {found[:12]}...)')
    recorded = reference.get('path') or '(no path recorded)'
    if others:
        hint = 'give the right one'
        if options and not image_network:
            hint += f' with {options.network}'
        elif options and options.force:
            hint += f', or add {options.force} if its W+ space is the same'
        raise InputError(
            f'{os.path.basename(snapshot)} was made with the image generator {recorded!r} '
            f'(sha256 {str(wanted)[:12]}...), but {" and ".join(others)} is another file; {hint}'
        )
    where = f'; say where it is with {options.network}' if options else ''
    raise InputError(
        f'{os.path.basename(snapshot)} was made with the image generator {recorded!r}, which is neither there nor beside '
        f'the snapshot{where}'
    )
