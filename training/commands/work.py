"""What an unfinished work is, so that the same command of a later version knows it again.

A work is told by its settings. A later version may know settings that an earlier one did not: what work of that time meant by
leaving them out (`unsaid`) is what they count as then, so that it is gone on with instead of begun again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any


def completed(settings: Mapping[str, Any], unsaid: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Settings with those that are missing.

    Args:
        settings: Nested dicts.
        unsaid: Path ('tuning.ema') -> what settings mean that do not hold it.
        prefix: Path of `settings`, with a dot at its end.
    """
    result = {
        name: completed(value, unsaid, f'{prefix}{name}.') if isinstance(value, dict) else value
        for name, value in settings.items()
    }
    for path, value in unsaid.items():
        name = path.removeprefix(prefix)
        if path.startswith(prefix) and '.' not in name:
            result.setdefault(name, value)
    return result


def as_begun(
    now: Mapping[str, Any], before: Mapping[str, Any], unsaid: Mapping[str, Any], chosen: Collection[str] = (), prefix: str = ''
) -> dict[str, Any]:
    """`now` for going on with work of an earlier version: what that did not know stays as it was.

    Args:
        now: What the command line and the defaults of today come to, nested dicts.
        before: Settings of the work, as it recorded them.
        unsaid: As of `completed`.
        chosen: Paths that the command line gives, which stay as they are in `now`.
        prefix: Path of both, with a dot at its end.
    """
    result = dict(now)
    for name, value in now.items():
        path, old = prefix + name, before.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            result[name] = as_begun(value, old, unsaid, chosen, f'{path}.')
        elif name not in before and path in unsaid and path not in chosen:
            result[name] = unsaid[path]
    return result


def differences(before: Mapping[str, Any], now: Mapping[str, Any], unsaid: Mapping[str, Any], prefix: str = '') -> list[str]:
    """Paths of the settings that are not the same in both, which are nested dicts of JSON values."""
    before, now = completed(before, unsaid, prefix), completed(now, unsaid, prefix)
    found = []
    for name in [*now, *(name for name in before if name not in now)]:
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, unsaid, f'{prefix}{name}.')
        elif old != new or (name in before) != (name in now):
            found.append(prefix + name)
    return found


@dataclasses.dataclass(frozen=True)
class Work:
    """What decides the content of files that are being made.

    Attributes:
        settings: All of it, nested dicts of JSON values.
        unsaid: As of `completed`.
        parts: What belongs to it beside the settings, such as a number of frames.
    """

    settings: Mapping[str, Any]
    unsaid: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    parts: tuple[Any, ...] = ()

    @property
    def key(self) -> str:
        """A digest; notes of earlier versions hold nothing else."""
        plain = json.dumps([self.settings, *self.parts], sort_keys=True, default=str)
        return hashlib.sha256(plain.encode()).hexdigest()

    def note(self) -> str:
        """Text to leave beside the unfinished files."""
        return f'{self.key}\n{json.dumps([self.settings, *self.parts], sort_keys=True, default=str)}\n'

    def left(self, note: str) -> bool:
        """Whether this text was left by the same work."""
        key, _, text = str(note).partition('\n')
        if key == self.key:
            return True
        try:
            settings, *parts = json.loads(text)
            wanted, *wanted_parts = json.loads(json.dumps([self.settings, *self.parts], default=str))
            return parts == wanted_parts and not differences(settings, wanted, json.loads(json.dumps(self.unsaid, default=str)))
        except (ValueError, TypeError, AttributeError, RecursionError):  # damaged
            return False
