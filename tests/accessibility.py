"""What axe, the usual checker of accessibility, has against a page that is open."""

from typing import TYPE_CHECKING

from tests.tools import skip_without

if TYPE_CHECKING:
    from playwright.sync_api import Page

_GRAVE = ("serious", "critical")
_GRADIOS = {"aria-prohibited-attr": 'aria-label="Empty value"'}
"""Violations of Gradio's own, by rule: it labels the place of a component that has no value yet, which has no role."""


def grave_violations(page: "Page") -> list[str]:
    """Return each serious or critical violation: the rule's id, and the element; skip the test where axe is not."""
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        skip_without("axe is not installed (pip install axe-playwright-python)")
    axe = Axe()
    return [
        f"{rule['id']}: {node['html']}"
        for rule in axe.run(page).response["violations"]
        for node in rule["nodes"]
        if rule["impact"] in _GRAVE and (rule["id"] not in _GRADIOS or _GRADIOS[rule["id"]] not in node["html"])
    ]
