"""Sphinx directives for what the code knows better than any page: settings, columns, metrics."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_CHECKOUT = Path(__file__).resolve().parent.parent


def settings() -> Iterable[str]:
    """Return the lines of a Markdown table of all settings."""
    from pydantic import SecretStr
    from pydantic_core import PydanticUndefined

    from genres.settings import Settings

    def shown(default: Any) -> str:
        if isinstance(default, SecretStr):
            default = default.get_secret_value()
        if default is PydanticUndefined or default in (None, "", ()):
            return ""
        # Of this machine nothing is said.
        text = str(default).replace(str(_CHECKOUT), "<checkout>").replace(str(Path.home()), "~")
        return f"`{text}`"

    yield from ("| variable | default | what it is |", "|---|---|---|")
    for name, field in Settings.model_fields.items():
        yield f"| `GENRES_{name.upper()}` | {shown(field.default)} | {field.description} |"


def stored_tables() -> Iterable[str]:
    """Return a section for each stored table, with its columns."""
    from genres.store import schemas

    names = (("<feature>",), ("windows_<set>",))
    features = [schemas.audio_features(*names), schemas.stream_features(*names)]
    for found in (*vars(schemas).values(), *features):
        if isinstance(found, schemas.Table):
            yield from ("", f"## `{found.name}`", "", found.description, "")
            yield from ("| column | kind | key | may be empty | what it is |", "|---|---|---|---|---|")
            for column in found.columns:
                key, empty = "yes" if column.key else "", "yes" if column.nullable else ""
                yield f"| `{column.name}` | {column.kind} | {key} | {empty} | {column.description} |"


def feature_columns() -> Iterable[str]:
    """Return a section for each feature set, with the names of its columns in their order."""
    from genres.audio.feature_sets import FEATURE_SETS

    for name, found in FEATURE_SETS.items():
        yield from ("", f"## `{name}`", "", f"Version `{found.feature_version}`, {len(found.columns)} columns:", "")
        yield ", ".join(f"`{column}`" for column in found.columns)


def stream_metrics() -> Iterable[str]:
    """Return the lines of a Markdown table of what Prometheus is answered."""
    from streaming_sensors.metrics import SERVICE_METRIC, STREAM_METRICS

    yield from ("| metric | labels | what it is |", "|---|---|---|")
    yield f"| `{SERVICE_METRIC}` | service | 1 if the service is healthy. |"
    for name, family in STREAM_METRICS.items():
        yield f"| `{name}` | {', '.join(('topic', *family.labels))} | {family.description} |"


class _Generated(SphinxDirective):
    """A directive that stands for the Markdown lines of a function."""

    lines: ClassVar[Callable[[], Iterable[str]]]

    def run(self) -> list[nodes.Node]:
        """Return what the lines say."""
        return self.parse_text_to_nodes("\n".join(type(self).lines()), allow_section_headings=True)


def setup(app: "Sphinx") -> dict[str, bool]:
    """Register a directive for each kind of table."""
    for lines in (settings, stored_tables, feature_columns, stream_metrics):
        name = lines.__name__.replace("_", "-")
        app.add_directive(name, type(name, (_Generated,), {"lines": staticmethod(lines)}))
    return {"parallel_read_safe": True}
