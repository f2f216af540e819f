"""The folder producer: what is dropped in a folder goes to a topic, each file once it is whole.

Belongs here: finding the files, telling when they are whole, sending them, remembering what the broker confirmed and
setting aside what cannot be audio. The message's form is ``streaming_sensors.envelope``'s, the judgement of a header
``genres.audio.gate``'s, the memory ``genres.store.stream_ledger``'s.
"""
