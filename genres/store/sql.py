"""SQLAlchemy and the project's tables, loaded when they are first used.

Dagster imports the code locations in every process that it starts, and the modules that ask the database are among
what they import. They take both from here, so that importing them loads no SQLAlchemy.
"""

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["OnFirstUse", "sa", "tables"]


class OnFirstUse:
    """Stands for a thing that is costly to build or to load, and asks `find` for it with each attribute."""

    def __init__(self, find: Callable[[], Any]) -> None:
        self._find = find

    def __getattr__(self, name: str) -> Any:
        return getattr(self._find(), name)


if TYPE_CHECKING:
    import sqlalchemy as sa

    from genres.store import tables
else:
    sa = OnFirstUse(lambda: import_module("sqlalchemy"))
    tables = OnFirstUse(lambda: import_module("genres.store.tables"))
