"""Spark's room: sessions and pipelines, and the audio code that runs in Spark's Python workers."""
