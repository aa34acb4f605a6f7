"""Finds the image generator that a snapshot refers to, and checks that it has the recorded SHA-256."""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from networks.checkpoints.addresses import is_address
from networks.checkpoints.addresses import resolve as local_file
from networks.errors import InputError

__all__ = ['OptionNames', 'TunedTo', 'candidate_paths', 'expected_sha256', 'find_image_generator', 'is_address', 'local_file']


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


class TunedTo(NamedTuple):
    """The data set whose codes are to be drawn: a generator that was tuned to it is taken before the one it was tuned from.

    Attributes:
        path: Where it is, or was when a snapshot was made.
        sha256: Gives the digest of its content; None where that is not known.
    """

    path: str
    sha256: Callable[[], str | None]

    @classmethod
    def of_snapshot(cls, snapshot: Mapping[str, Any]) -> 'TunedTo | None':
        """The data set that a snapshot was trained on."""
        data = snapshot.get('data')
        if not isinstance(data, Mapping) or not isinstance(data.get('path'), str):
            return None
        digest = data.get('sha256')
        return cls(data['path'], lambda: digest if isinstance(digest, str) else None)


def expected_sha256(reference: Mapping[str, Any], path: str, *, force: bool = False) -> str | None:
    """What is still to be checked of a result of `find_image_generator`: the digest of what is behind an address."""
    return reference.get('sha256') if is_address(path) and not force else None


def find_image_generator(
    reference: Mapping[str, Any],
    *,
    snapshot: str,
    image_network: str | None = None,
    force: bool = False,
    options: OptionNames | None = None,
    tuned_to: TunedTo | None = None,
    say: Callable[[str], object] = lambda sentence: None,
) -> str:
    """The path (or address) of the image generator of a snapshot or latent data set.

    Args:
        reference: `path` and `sha256`, as `networks.checkpoints.image_generator_reference` makes them.
        snapshot: The file that holds the reference.
        image_network: The user's own answer, which ends the search.
        force: Accept `image_network` although it is another file.
        options: How the command calls what the user can do about it; None: sentences name no options.
        tuned_to: Prefer the generator that was tuned to this data set, where it lies beside it or beside `snapshot`.
        say: Gets a sentence when that one is taken, or when there is one that does not belong to it.

    Returns:
        A path whose content has the recorded sha256, or was tuned from what has it, unless `force`; or an address, still to be
        checked (`expected_sha256`).

    Raises:
        InputError: there is none, or only other files of that name.
    """
    from networks.checkpoints import file_sha256  # here, because it brings torch

    if not image_network and tuned_to is not None:
        tuned = _find_tuned(reference, snapshot, tuned_to, options, say)
        if tuned is not None:
            return tuned

    wanted = reference.get('sha256')
    candidates = [image_network] if image_network else list(candidate_paths(reference, snapshot))
    if image_network and not is_address(image_network) and not os.path.isfile(image_network):
        raise InputError(f'{options.network + ": " if options else ""}there is no file {image_network!r}')
    others = []
    for path in candidates:
        if is_address(path) or not wanted or (force and image_network):
            return path
        found = file_sha256(path)
        if found == wanted or _share_space(reference, path, found):
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


def _share_space(reference: Mapping[str, Any], path: str, digest: str) -> bool:
    """Whether one of the two was tuned from the other, or both from the same."""
    from networks.checkpoints import tuning_record
    from networks.checkpoints.tuned_generators import share_space

    try:
        record = tuning_record(path) or {}
    except InputError:
        record = {}  # no file of weights; it is named as another file
    return share_space(reference, {'sha256': digest, **record})


def _find_tuned(
    reference: Mapping[str, Any], snapshot: str, tuned_to: TunedTo, options: OptionNames | None, say: Callable[[str], object]
) -> str | None:
    """The generator that was tuned to a data set, where there is one and it belongs to the reference."""
    from networks.checkpoints import file_sha256, tuning_record
    from networks.checkpoints.tuned_generators import ENDINGS, share_space, tuned_path

    for ending in ENDINGS:
        for path in candidate_paths({'path': tuned_path(tuned_to.path, ending)}, snapshot):
            record = tuning_record(path)
            if record is None or not share_space(reference, {'sha256': file_sha256(path), **record}):
                say(f'Note: {path} was not tuned from the image generator of {os.path.basename(snapshot)}, and is not used')
                continue
            digests = record['tuning'].get('data_sha256'), tuned_to.sha256()
            if None not in digests and digests[0] != digests[1]:
                say(f'Note: {path} was tuned to other codes than those of {os.path.basename(tuned_to.path)}, and is not used')
                continue
            instead = f'; {options.network} takes another one' if options else ''
            say(f'{path} was tuned to {os.path.basename(tuned_to.path)} and is used{instead}')
            return path
    return None
