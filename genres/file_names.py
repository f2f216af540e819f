"""Names of files as text: what the operating system returns for a name need be neither valid Unicode nor one line.

Belongs here: spelling a name for a message, a table, a person or a path of the lake.
"""

import hashlib
import os
import unicodedata
from pathlib import Path


def unicode_name(name: str) -> str:
    r"""Return a name from the file system as valid Unicode in composed form (NFC).

    A name that a Mac wrote in decomposed form becomes equal to the same name from elsewhere; bytes that are not UTF-8
    become ``\xff``. What is returned is for messages and tables, and need not open the file.

    Parameters
    ----------
    name
        A file's or folder's name as Python returns it, with surrogates for bytes that cannot be decoded.
    """
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))


def is_unicode(name: str) -> bool:
    """Return whether a name is valid Unicode, as tables, URLs and CSV files want it."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def display_path(path: Path) -> str:
    """Return a path on one line for a person to read, in quotes only if it has characters that need escaping."""
    return display_name(unicode_name(str(path)))


def display_name(text: str) -> str:
    """Return a name on one line, in quotes only if it has characters that a terminal would act on or not show."""
    return text if text.isprintable() else repr(text)


def safe_name(name: str) -> str:
    """Spell any name as one part of a path: letters, digits, ``.``, ``_`` and ``-``; all else as ``~`` and hex.

    Two names have the same spelling only if they are the same text (in Unicode's composed form). ``~`` needs no
    escape in a URL, so that WebHDFS, Spark and a shell see the same path. A leading ``.`` or ``_`` is spelt in
    hex as well, since Hadoop takes such files for hidden ones. A spelling of more than 100 characters is cut
    and ends in a hash of the whole.

    Examples
    --------
    >>> safe_name("hip hop"), safe_name("_demo"), safe_name("a/b")
    ('hip~20hop', '~5fdemo', 'a~2fb')
    """
    spelt = "".join(
        character
        if character in _SAFE_CHARACTERS and not (position == 0 and character in "._")
        else "".join(f"~{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
        for position, character in enumerate(unicodedata.normalize("NFC", name))
    )
    return spelt if len(spelt) <= 100 else f"{spelt[:80]}~~{hashlib.sha256(spelt.encode()).hexdigest()[:16]}"


_SAFE_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
