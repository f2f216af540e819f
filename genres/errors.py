"""The one exception a user is meant to read: a line that names the thing and says what to do."""


class GenresError(Exception):
    """Something outside the code is wrong (an address, a folder, a missing model) and a user can fix it.

    The message is one line: what is wrong, with the value, then what to do about it. The command line
    prints it without a traceback and exits non-zero; Dagster shows it as the step's error.
    """
