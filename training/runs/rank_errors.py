"""What goes wrong between ranks."""

from networks.errors import InputError


class RankLost(InputError):
    """Another rank has died, or cannot be reached any more."""


class AgreedError(InputError):
    """A mistake that all ranks know of, so that one of them is enough to tell it."""
