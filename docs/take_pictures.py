"""Take the pictures of the documentation from the running system, as a browser shows it.

``make pictures`` runs this while ``make ui`` is open on what ``make demo`` left.
"""

import io
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from genres.errors import GenresError
from genres.settings import Settings
from genres.store.database import Database
from genres.store.ledger import dataset_meant
from genres.store.model_registry import ModelRegistry

if TYPE_CHECKING:
    from playwright.sync_api import Page

_FOLDER = Path(__file__).with_name("pictures")
_MOST_BYTES = 150_000
"""Of a picture: they are in every clone."""
_WIDTH, _HEIGHT = 1280, 900
_PHONE = 390, 844
_PATIENCE_MS = 60_000
_SETTLED_MS = 3_000
"""How long a page that has what is looked for may still move."""


def main() -> None:
    """Take each picture, and say which."""
    settings = Settings()
    dataset = dataset_meant(Database(settings.database), **settings.meaning())
    registry = ModelRegistry(settings.tracking_uri)
    with _browser() as page:
        address = f"http://127.0.0.1:{settings.ports.page}"
        page.goto(address)
        _try_it(page, "page_try_it")
        for view in ("Stream", "Library"):
            _play_first(page, view, f"page_{view.lower()}")
        _models(page)
        page.set_viewport_size({"width": _PHONE[0], "height": _PHONE[1]})
        page.goto(address)
        _try_it(page, "page_try_it_390")
        _play_first(page, "Stream", "page_stream_390")
        page.set_viewport_size({"width": _WIDTH, "height": _HEIGHT})
        page.goto(f"{settings.dagster_url}/assets/champion_model?view=lineage&lineageDepth=3")
        page.get_by_text("batch_predictions").first.wait_for()
        page.wait_for_timeout(_SETTLED_MS)
        _save("asset_graph", page.screenshot())
        page.goto(registry.page(dataset))
        page.get_by_text("candidates").first.wait_for()
        page.wait_for_timeout(_SETTLED_MS)
        _save("mlflow", page.screenshot())
    parent = registry.latest_training(dataset)
    _save("models", Path(registry.client.download_artifacts(parent.info.run_id, "models.png")).read_bytes())


def _try_it(page: "Page", name: str) -> None:
    page.get_by_label("Or a track of the library").click()
    page.get_by_role("option").first.click()
    _seek(page)
    _save(name, page.screenshot(full_page=True))


def _play_first(page: "Page", view: str, name: str) -> None:
    """Play the first clip of a view's table, and go some seconds into it."""
    _choose_first(page, view)
    _seek(page)
    _save(name, page.screenshot(full_page=True))


def _models(page: "Page") -> None:
    """Read the newest version's card."""
    _choose_first(page, "Models")
    page.get_by_role("heading", name="Figures").filter(visible=True).first.wait_for()
    page.wait_for_timeout(_SETTLED_MS)
    # The card is longer than a picture need be.
    _save("page_models", page.screenshot())


def _choose_first(page: "Page", view: str) -> None:
    page.get_by_role("tab", name=view).click()
    page.get_by_role("gridcell").filter(visible=True).first.click()


def _seek(page: "Page") -> None:
    curve = page.get_by_role("slider", name="Position in the clip").filter(visible=True)
    curve.wait_for()
    curve.press("PageUp")
    page.wait_for_timeout(_SETTLED_MS)
    page.wait_for_function("() => !document.body.innerText.includes('processing |')")


@contextmanager
def _browser() -> "Iterator[Page]":
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        raise GenresError("no Chromium here: install it (apt install chromium)")
    with sync_playwright() as playwright:
        # As root it has no sandbox; it opens the system's own pages only.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT})
        page.set_default_timeout(_PATIENCE_MS)
        yield page
        browser.close()


def _save(name: str, data: bytes) -> None:
    """Store a picture with as many colours as fit in it."""
    from PIL import Image

    picture = Image.open(io.BytesIO(data)).convert("RGB")
    for colours in (256, 128, 64, 32):
        written = io.BytesIO()
        picture.quantize(colours).save(written, "PNG", optimize=True)
        if len(written.getvalue()) <= _MOST_BYTES:
            break
    path = _FOLDER / f"{name}.png"
    path.write_bytes(written.getvalue())
    sys.stdout.write(f"{path.name}: {len(written.getvalue()) // 1000} kB, {colours} colours\n")


if __name__ == "__main__":
    main()
