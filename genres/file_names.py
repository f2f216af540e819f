"""Names of files as text: what the operating system returns for a name need be neither valid Unicode nor one line.

Belongs here: spelling a name for a message, a table or a person. Turning a name into a path of the lake is
``genres.datasets.folder.safe_name``'s.
"""

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
    text = unicode_name(str(path))
    return text if text.isprintable() else repr(text)
