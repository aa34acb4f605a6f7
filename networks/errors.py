"""The exception for what a user got wrong, and what a caller may go on after."""


class InputError(Exception):
    """Something that the user gave cannot be used.

    The text is one clear sentence: what is wrong, where, and what to do. The commands print it and leave with exit
    code 2; library callers can catch it.
    """


class DamagedVideo(InputError):
    """One video of a set cannot be read; the others can."""
