"""How Sphinx builds the documentation: ``make docs``, with warnings as errors."""

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(_DOCS), str(_DOCS.parent)]

project = "genres"
release = version = version_of("genres")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "numpydoc",
    "sphinx_click",
    "reference_tables",
]
html_theme = "furo"
html_title = "genres"
# Of files that lie outside this folder nothing is copied: links to code lead into the checkout.
exclude_patterns = ["pictures", "notebooks"]

# `make linkcheck`: this machine's own pages are not the world's.
linkcheck_ignore = [r"https?://(127\.0\.0\.1|localhost)[:/]"]
linkcheck_timeout = 20

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

_PAGES = {
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "genres/settings.py": "reference/settings.md",
}
"""Where the site has what pages beside this folder link to."""


def _from_the_checkouts_root(app: "Sphinx", path: Path, parent: str, content: list[str]) -> None:
    """Let the links of a page that lies in the checkout's root lead where they do there."""

    def target(match: re.Match[str]) -> str:
        link = match[1]
        return f"]({_PAGES.get(link) or (link[5:] if link.startswith('docs/') else f'../{link}')})"

    content[0] = re.sub(r"\]\((?!https?:|#)([^)]+)\)", target, content[0])


def _headings_without_labels(_app: "Sphinx", what: str, *about: Any) -> None:
    """Let modules have headings of the same names, of which each would be a label of the whole site."""
    lines: list[str] = about[-1]
    if what == "module":
        for number, line in enumerate(lines):
            if line and set(line) == {"-"}:
                lines[number - 1 : number + 1] = [f".. rubric:: {lines[number - 1]}", ""]


def setup(app: "Sphinx") -> None:
    """Listen for the pages that are included from beside this folder, and for the modules' docstrings."""
    app.connect("include-read", _from_the_checkouts_root)
    # Before numpydoc, which would label the headings.
    app.connect("autodoc-process-docstring", _headings_without_labels, priority=100)
