"""The one exception a user is meant to read, and the one line of any error that a person is told."""

import re
from typing import Protocol

_OF_SPARK = re.compile(r"\((?:java|scala|org\.apache\.spark)\.[\w.$]+\) ")
"""How Spark Connect begins what the server threw, which names no server."""


class GenresError(Exception):
    """Something outside the code is wrong (an address, a folder, a missing model) and a user can fix it.

    The message is one line: what is wrong, with the value, then what to do about it. The command line
    prints it without a traceback and exits non-zero; Dagster shows it as the step's error.
    """


class ErrorInfo(Protocol):
    """An error of another process, as Dagster keeps it."""

    @property
    def cls_name(self) -> str | None:
        """Its class."""

    @property
    def message(self) -> str:
        """Class and words."""

    @property
    def cause(self) -> "ErrorInfo | None":
        """What it was raised from."""


def last_words(error: BaseException | ErrorInfo) -> str:
    """Return the line of an error that says most.

    It is our own error's, wherever that stands among the causes or in a worker's traceback that came as text; else the
    innermost cause's, and of a traceback's text the last error's.
    """
    chain = []
    link: BaseException | ErrorInfo | None = error
    while link is not None:
        if isinstance(link, BaseException):
            chain.append((type(link).__name__, str(link)))
            link = link.__cause__
        else:
            chain.append((link.cls_name or "", link.message))
            link = link.cause
    names = _our_names(GenresError)
    name, text = ([link for link in chain if link[0] in names] or chain)[-1]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return name
    for line in lines:
        if ours := re.search(rf"\b(?:{'|'.join(names)}): (.+)", line):
            return ours[1]
    if "Traceback" not in text:
        spark = "Spark failed (`genres status` shows whether it runs): " if _OF_SPARK.match(lines[0]) else ""
        return spark + lines[0]
    told = [
        line
        for line in lines
        if line.partition(":")[0].endswith(("Error", "Exception")) and "PythonException" not in line
    ]
    return (told or lines)[-1]


def _our_names(kind: type[GenresError]) -> set[str]:
    """Return the names of a class and of those derived from it, as far as they are imported."""
    return {kind.__name__}.union(*map(_our_names, kind.__subclasses__()))
