"""``python -m genres``: the same as the ``genres`` command."""

from genres.cli import main

main()
