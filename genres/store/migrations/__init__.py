"""Alembic migrations: each changes the tables from one version's form to the next's."""
