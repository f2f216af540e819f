"""The library: settings and errors, audio and its features, datasets, and what is kept. No engine and no Dagster.

Its modules import downwards only: ``store``, then ``datasets``, then ``audio``, then ``settings`` and ``errors``.
"""
