"""What is kept, for both halves: lake paths and commits, SQL tables and migrations, the ledger, dataset facts.

No Dagster and no Spark in here.
"""
