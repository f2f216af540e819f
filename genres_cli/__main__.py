"""``python -m genres_cli``: the same as the ``genres`` command."""

from genres_cli.main import main

main()
