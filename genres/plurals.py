"""Numbers with their nouns, in the lines that people read."""


def counted(number: int, what: str) -> str:
    """Return a number with its noun, whose plural ends in s."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def waits(number: int, what: str) -> str:
    """Return in words that so many of something wait, such as ``1 clip waits``."""
    return f"{counted(number, what)} {'waits' if number == 1 else 'wait'}"
