"""The stream's ledger in SQL: ranges, leases, results and the producer's memory, each change one transaction.

What is to be done is decided elsewhere (``streaming_sensors.offset_plan``); here it is written down so that runs that
are killed, doubled or late do no harm: the first write of a key wins, and a run that lost its lease writes nothing.
Each distinct sha256 of a stream ends in exactly one of ``stream_predictions`` and the stream's open rows of
``stream_quarantine``. A prediction stays, and closes the stream's refusal; another model, or another version, adds one
of its own. Its key has no topic: of streams that one model scores, the first that commits a clip has its row, and the
others have none; refusals are each stream's own.
"""
