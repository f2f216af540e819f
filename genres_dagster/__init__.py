"""What both code locations need of Dagster: resources, checks, column schemas, figures, partitions, launching.

Nothing here knows an asset of either location.
"""
