"""The streaming code location: message envelope, folder producer, topic, offset planner, sensors, streaming assets.

What is kept (the ledger, the tables) is in ``store``, the engine's work (fetching, features, scoring) in ``spark``.
No feature maths is copied here, and nothing heavy is imported at the top: every run worker imports this again.
"""
