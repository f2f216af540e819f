"""Facts about labelled audio: reading a folder of it, GTZAN's known faults, the split by track, synthetic clips.

Pure functions on folders, arrays and tables. What needs the lake, the database, Spark or Dagster lives elsewhere.
"""
