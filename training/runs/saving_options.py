"""When long trainings save, and what they do in trouble: options that train_video.py and train_encoder.py share."""

from __future__ import annotations

import dataclasses
from typing import Literal

from training.commands.option_tree import OptionGroup, option

SAVING = 'Saving and trouble'


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavingOptions(OptionGroup):
    """When the state of a training is saved, and what happens in trouble; none of this changes a result."""

    checkpoint_minutes: float = option(
        2.0, 'Save the training state at least this often; 0: with snapshots only', metavar='MINUTES', at_least=0
    )
    keep_states: int = option(0, 'Also keep every N-th training state; 0: only the newest', metavar='N', at_least=0)
    on_full: Literal['go-on', 'stop'] = option('go-on', 'When the disk is full: keep training and try again, or stop')
    on_nan: Literal['stop', 'rollback'] = option(
        'stop', 'When weights become NaN: stop, or go back to the last state and continue with other random numbers'
    )
