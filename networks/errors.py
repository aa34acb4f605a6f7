"""The exception for what a user got wrong, and what a caller may go on after."""

MOST_SHOWN = 600  # letters of a sentence about a damaged file


def readable(sentence: str) -> str:
    """A sentence with words of a file in it, as a terminal may show it: printable, and not without end.

    What is too long loses its middle: the beginning says where something is wrong, and the end what to do.
    """
    long = len(sentence) > 20 * MOST_SHOWN
    if long:
        sentence = sentence[: 10 * MOST_SHOWN] + sentence[-10 * MOST_SHOWN :]
    text = ''.join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in sentence)
    half = (MOST_SHOWN - 5) // 2
    return text if len(text) <= MOST_SHOWN else f'{text[:half]} ... {text[-half:]}'


class InputError(Exception):
    """Something that the user gave cannot be used.

    The text is one clear sentence: what is wrong, where, and what to do. The commands print it and leave with exit
    code 2; library callers can catch it.
    """


class DamagedVideo(InputError):
    """One video of a set cannot be read; the others can."""
