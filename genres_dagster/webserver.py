"""Dagster's webserver behind `genres.own_pages`: ``python -m genres_dagster.webserver``."""

from dagster_webserver import app
from dagster_webserver.cli import main
from dagster_webserver.webserver import DagsterWebserver
from starlette.middleware import Middleware

from genres.own_pages import OwnPagesOnly


class GuardedWebserver(DagsterWebserver):
    """Dagster's webserver, which looks at who asks before anything else does."""

    def build_middleware(self) -> list[Middleware]:
        """Return Dagster's own, behind the guard."""
        return [Middleware(OwnPagesOnly), *super().build_middleware()]


# Dagster has no setting for the class that it serves with.
setattr(app, "DagsterWebserver", GuardedWebserver)  # noqa: B010 - a name that it imports

if __name__ == "__main__":
    main()  # type: ignore[no-untyped-call]
