"""The front door: the ``genres`` command, the demo and what they print. No logic of its own; nothing imports it."""
