"""The stream's ledger in SQL: ranges, leases, results and the producer's memory, each change one transaction.

What is to be done is decided elsewhere (``streaming_sensors.offset_plan``); here it is written down so that runs that
are killed, doubled or late do no harm: the first write of a key wins, and a run that lost its lease writes nothing.
Each distinct sha256 ends in exactly one of ``stream_predictions`` and ``stream_quarantine``, the one it reached first;
only another model, or another version of one, may add a prediction to a predicted clip.
"""
