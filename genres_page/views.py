"""The page's four views in Gradio: what stands where, and which of `Page`'s methods each touch calls.

A view is filled when its tab is chosen, the first one when the page is opened too, so that what was loaded since is
there, in what it offers to choose from as well.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genres.errors import GenresError
from genres_page.page import ANY, Page

if TYPE_CHECKING:
    import gradio as gr

_HERE = Path(__file__).parent
_PLAYER: dict[str, Any] = {"waveform_options": {"show_recording_waveform": False}, "buttons": ["download"]}
"""The browser's own player, which keyboards and screen readers know; the waveform is drawn with the genres below it."""
_FILTER: dict[str, Any] = {"min_width": 240, "elem_classes": "filter"}
"""A checkbox with its label, in pixels and for `page.css`: a phone has each on a line of its own."""
_EVERY_S = 2.0
"""How often the stream is looked at, in seconds."""
_STREAM = "Stream"
_BY_KEYBOARD = "Play"
"""What rows are chosen by where there is no mouse: a table's cells take the focus, but no key chooses one."""
# The system's own: others would be fetched from elsewhere.
_FONTS = ("system-ui", "sans-serif")


def build(page: Page) -> "gr.Blocks":
    """Build the page.

    Parameters
    ----------
    page
        What stands behind it.
    """
    import gradio as gr

    # What a clip is played from lies in the cache for an hour.
    with gr.Blocks(title="genres", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        blocks.temp_file_sets.append(page.files)
        gr.Markdown("# genres")
        every = gr.Timer(_EVERY_S, active=False)

        def only_while_seen(chosen: gr.SelectData) -> gr.Timer:
            """Let nobody ask for the stream's news while nobody looks at them."""
            return gr.Timer(active=chosen.value == _STREAM)

        with gr.Tabs() as tabs:
            for name, view in (("Try it", _try_it), (_STREAM, _stream), ("Library", _library), ("Models", _models)):
                with gr.Tab(name) as tab:
                    view(page, blocks, tab, every)
        tabs.select(only_while_seen, None, every, api_visibility="private", show_progress="hidden")
    return blocks


def css() -> str:
    """Return what the theme leaves open."""
    return _HERE.joinpath("page.css").read_text(encoding="utf-8")


def theme() -> "gr.themes.Base":
    """Return how it looks; nothing is fetched from elsewhere."""
    import gradio as gr

    base = gr.themes.Default(font=list(_FONTS), font_mono=["ui-monospace", "monospace"])
    # Lighter by default than can be read well.
    return base.set(body_text_color_subdued="*neutral_600", input_placeholder_color="*neutral_500")


def _try_it(page: Page, blocks: "gr.Blocks", tab: "gr.Tab", _every: "gr.Timer") -> None:
    import gradio as gr

    gr.Markdown("Drop a clip, or record one: the champion says what it hears.")
    with gr.Row():
        with gr.Column():
            # No format is named, since Gradio would write each clip again in it before it is answered.
            clip = gr.Audio(label="Clip", sources=["upload", "microphone"], type="filepath", elem_id="clip", **_PLAYER)
            curve = _curve("clip")
            track = gr.Dropdown([], label="Or a track of the library")
        with gr.Column():
            said = gr.Textbox(label="Answer", interactive=False)
            likely = gr.Label(label="Probability", num_top_classes=5)
    gr.Markdown("### Mel spectrogram")
    picture = gr.Plot(show_label=False)
    tags = gr.Label(label="Tags heard", num_top_classes=10, visible=False)

    def answer(path: str | None) -> tuple[Any, ...]:
        with _said():
            *shown, heard = page.answer(path)
            return *shown, gr.Label(value=heard, visible=bool(heard))

    def answer_track(chosen: str | None) -> Any:
        if not chosen:
            return gr.skip()
        dataset, _, name = chosen.partition(": ")
        with _said():
            path = page.track_file(dataset, name)
        return path, *answer(path)

    shown = [likely, said, curve, picture, tags]
    # Not `change`, which a track of the library would set off twice: when it is sent, and when the browser has it.
    clip.input(answer, clip, shown, api_name="answer", show_progress="minimal")
    # Nor `input` here, which Gradio says twice of one choice. What is taken away or replaced is chosen no more, and so
    # can be chosen again.
    track.change(answer_track, track, [clip, *shown], api_visibility="private", show_progress="minimal")
    clip.input(lambda: None, None, track, api_visibility="private", show_progress="hidden")
    for looked in (blocks.load, tab.select):
        looked(lambda: gr.Dropdown(page.track_names()), None, track, api_visibility="private", show_progress="hidden")


def _stream(page: Page, _blocks: "gr.Blocks", tab: "gr.Tab", every: "gr.Timer") -> None:
    import gradio as gr

    now = gr.Textbox(label="Now", interactive=False)
    with gr.Row():
        genre = gr.Dropdown([ANY], value=ANY, label="Predicted genre")
        uncertain = gr.Checkbox(label="uncertain or unlike anything learnt", **_FILTER)
        wrong = gr.Checkbox(label="other than the folder's name says", **_FILTER)
    player, curve = _player("stream-clip")
    clip = gr.Dropdown([], label=_BY_KEYBOARD)
    shown = gr.State("")
    rows = gr.Dataframe(
        interactive=False,
        label="Newest clips; choose one to play it",
        column_widths=["84px", "168px", "98px", "98px", "112px", "98px", "98px", "70px", "280px", "70px"],
    )

    def look(shown: str, genre: str, uncertain: bool, wrong: bool) -> tuple[str, Any, Any, str]:
        try:
            said, table = page.stream_now(), page.streamed(genre, uncertain=uncertain, wrong=wrong)
        except GenresError as error:  # is looked at again, and would be said again each time
            return str(error), gr.skip(), gr.skip(), shown
        found = table.to_csv()
        if found == shown:  # stays as it is, with who scrolled and chose in it
            return said, gr.skip(), gr.skip(), found
        offered = [
            (f"{row.time} {row.file}: {row.predicted}", f"{row.range} {row.offset}") for row in table.itertuples()
        ]
        return said, table, gr.Dropdown(offered, value=None), found

    def play(place: str | None) -> tuple[str | None, dict[str, Any] | None]:
        partition_key, _, offset = (place or "").rpartition(" ")
        with _said():
            return page.play_streamed(partition_key, int(offset)) if partition_key else (None, None)

    def play_row(table: Any, chosen: gr.SelectData) -> tuple[str | None, dict[str, Any] | None]:
        row = table.iloc[chosen.index[0]]
        return play(f"{row['range']} {row['offset']}")

    filters = [genre, uncertain, wrong]
    for looked in (every.tick, tab.select, *(part.change for part in filters)):
        looked(look, [shown, *filters], [now, rows, clip, shown], api_visibility="private", show_progress="hidden")
    rows.select(play_row, rows, [player, curve], api_visibility="private")
    clip.input(play, clip, [player, curve], api_visibility="private")
    tab.select(
        lambda: gr.Dropdown([ANY, *page.streamed_genres()]),
        None,
        genre,
        api_visibility="private",
        show_progress="hidden",
    )


def _library(page: Page, _blocks: "gr.Blocks", tab: "gr.Tab", _every: "gr.Timer") -> None:
    import gradio as gr

    with gr.Row():
        dataset = gr.Dropdown([], label="Dataset")
        genre = gr.Dropdown([ANY], value=ANY, label="Genre")
        uncertain = gr.Checkbox(label="uncertain or unlike anything learnt", **_FILTER)
        wrong = gr.Checkbox(label="predicted wrongly", **_FILTER)
    player, curve = _player("track")
    track = gr.Dropdown([], label=_BY_KEYBOARD)
    confusion = gr.Plot(show_label=False)
    rows = gr.Dataframe(
        interactive=False,
        label="Tracks; choose one to play it",
        column_widths=["196px", "112px", "112px", "112px", "70px", "98px", "70px"],
    )
    refused = gr.Dataframe(
        interactive=False, wrap=True, label="Refused", column_widths=["196px", "84px", "168px", "308px"]
    )

    def look(dataset: str | None, genre: str, uncertain: bool, wrong: bool) -> tuple[Any, ...]:
        with _said():
            table, confusions = page.tracks(_required(page, dataset), genre, uncertain=uncertain, wrong=wrong)
            offered = gr.Dropdown(list(table["track"]), value=None)
            return table, offered, confusions, page.refused(_required(page, dataset))

    def play(dataset: str | None, track: str | None) -> tuple[str | None, dict[str, Any] | None]:
        with _said():
            return page.play_track(_required(page, dataset), track) if track else (None, None)

    def play_row(dataset: str | None, table: Any, chosen: gr.SelectData) -> tuple[str | None, dict[str, Any] | None]:
        return play(dataset, str(table.iloc[chosen.index[0]]["track"]))

    def look_again(dataset: str | None, genre: str, uncertain: bool, wrong: bool) -> tuple[Any, ...]:
        with _said():
            names, dataset = _offered(page, dataset)
            genres = page.genres(dataset or "")
            genre = genre if genre in genres else ANY
            offered = gr.Dropdown(names, value=dataset), gr.Dropdown([ANY, *genres], value=genre)
        return *offered, *look(dataset, genre, uncertain, wrong)

    def offer_genres(dataset: str | None) -> "gr.Dropdown":
        with _said():
            return gr.Dropdown([ANY, *page.genres(dataset or "")], value=ANY)

    filters, shown = [dataset, genre, uncertain, wrong], [rows, track, confusion, refused]
    for looked in (genre.input, uncertain.input, wrong.input):
        looked(look, filters, shown, api_visibility="private")
    tab.select(look_again, filters, [dataset, genre, *shown], api_visibility="private")
    # Another dataset has other genres: it is looked at when the filter is that of all.
    chosen = dataset.input(offer_genres, dataset, genre, api_visibility="private")
    chosen.then(look, filters, shown, api_visibility="private")
    rows.select(play_row, [dataset, rows], [player, curve], api_visibility="private")
    track.input(play, [dataset, track], [player, curve], api_visibility="private")


def _models(page: Page, _blocks: "gr.Blocks", tab: "gr.Tab", _every: "gr.Timer") -> None:
    import gradio as gr

    dataset = gr.Dropdown([], label="Dataset")
    rows = gr.Dataframe(
        interactive=False,
        wrap=True,
        label="Versions; choose one, or write its number below, to read its card",
        column_widths=["91px", "98px", "210px", "154px", "196px", "364px"],
    )
    with gr.Row():
        version = gr.Number(label="Version", precision=0, value=None)
        why = gr.Textbox(label="Why", placeholder="is kept with the change")
        sure = gr.Checkbox(label="I mean it: streams score with it from their next range on")
    with gr.Row():
        promote = gr.Button("Make this version the champion")
        rollback = gr.Button("Back to the champion before")
    done = gr.Textbox(label="Done", interactive=False)
    card = gr.HTML(elem_classes="card")

    def look(dataset: str | None) -> Any:
        with _said():
            return page.versions(_required(page, dataset))

    def look_again(dataset: str | None) -> tuple[Any, Any]:
        with _said():
            names, dataset = _offered(page, dataset)
        return gr.Dropdown(names, value=dataset), look(dataset)

    def look_at(dataset: str | None) -> tuple[Any, None]:
        return look(dataset), None  # a version of the other dataset is no longer meant

    def choose(table: Any, chosen: gr.SelectData) -> int:
        return int(table.iloc[chosen.index[0]]["version"])

    def show_card(dataset: str | None, version: float | None) -> str:
        with _said():
            return "" if version is None else page.card(_required(page, dataset), int(version))

    def promoted(dataset: str | None, version: float | None, why: str, sure: bool) -> tuple[str, Any, bool]:
        with _said():
            _require_reason(why, sure=sure)
            said = page.promote(_required(page, dataset), int(version or 0), why)
            return said, page.versions(_required(page, dataset)), False

    def rolled_back(dataset: str | None, why: str, sure: bool) -> tuple[str, Any, bool]:
        with _said():
            _require_reason(why, sure=sure)
            return page.rollback(_required(page, dataset), why), page.versions(_required(page, dataset)), False

    tab.select(look_again, dataset, [dataset, rows], api_visibility="private")
    dataset.input(look_at, dataset, [rows, version], api_visibility="private")
    rows.select(choose, rows, version, api_visibility="private")
    version.change(show_card, [dataset, version], card, api_visibility="private", show_progress="hidden")
    # What is refused is said in a corner; over the fields it would keep them from being filled.
    promote.click(
        promoted, [dataset, version, why, sure], [done, rows, sure], api_visibility="private", show_progress="hidden"
    )
    rollback.click(
        rolled_back, [dataset, why, sure], [done, rows, sure], api_visibility="private", show_progress="hidden"
    )


def _player(name: str) -> "tuple[gr.Audio, gr.HTML]":
    """Return a player, and the curve below it."""
    import gradio as gr

    return gr.Audio(label="Player", interactive=False, autoplay=True, elem_id=name, **_PLAYER), _curve(name)


def _curve(player: str) -> "gr.HTML":
    """Return what shows a clip's waveform and genres over time, with the playhead of the player of this name."""
    import gradio as gr

    script = _HERE.joinpath("curve.js").read_text(encoding="utf-8")
    return gr.HTML(None, html_template='<div class="curve"></div>', js_on_load=script, player=player)


def _offered(page: Page, chosen: str | None) -> tuple[list[str], str | None]:
    """Return the datasets that there are now, and the chosen one or, if it is not there, the one that is meant."""
    names = page.datasets()
    return names, chosen if chosen in names else next(iter(names), None)


def _required(page: Page, dataset: str | None) -> str:
    """Return the dataset; who touches a view before it offers any looks at the one that is meant."""
    if not (dataset := dataset or next(iter(page.datasets()), "")):
        raise GenresError("no dataset is loaded yet: `genres demo`, or `genres load FOLDER`")
    return dataset


def _require_reason(why: str, *, sure: bool) -> None:
    if not sure or not why.strip():
        raise GenresError("say why, and tick that you mean it")


@contextlib.contextmanager
def _said() -> Iterator[None]:
    """Show what a person can fix on the page, in one line."""
    import gradio as gr

    try:
        yield
    except GenresError as error:
        raise gr.Error(str(error), print_exception=False) from error
