"""The front door: the settings that every room reads and the ``genres`` command. No logic of its own."""
