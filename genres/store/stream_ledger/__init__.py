"""The stream's ledger in SQL: ranges, leases, results and the producer's memory, each change one transaction.

What is to be done is decided elsewhere (``streaming_sensors.offset_plan``); here it is written down so that runs that
are killed, doubled or late do no harm: the first write of a key wins, and a run that lost its lease writes nothing.
In each stream each distinct sha256 ends in exactly one of ``stream_predictions`` and the open rows of
``stream_quarantine``. A prediction stays, and closes a refusal; another model, or another version, adds one of its own.
"""
