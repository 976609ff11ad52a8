"""`scrcl_infer.report_html`: a page that is whole, safe, and says what the report says."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from scrcl_infer.contract import Bundle, CellType, Manifest
from scrcl_infer.errors import OutputError
from scrcl_infer.pipeline import Model
from scrcl_infer.report_html import build_html, write_html
from scrcl_infer.result import AssignOptions, Sketch, Summary
from scrcl_infer.tally import SKETCHED
from scrcl_infer.target import Target
from tests.infer.test_levels import BROAD, WIDE, levelled
from tests.infer.test_pipeline import query
from tests.infer.test_report import NO_CELLS, SUMMARY
from tests.make_bundle import tiny_bundle

MANIFEST = tiny_bundle().manifest
EVIL = """</title></svg><script>alert("1")</script>&'<img src=x onerror="x">"""
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Checks that tags are balanced, and keeps tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def summary_of(n: int, *, options: AssignOptions, folder: Path, bundle: Bundle | None = None) -> Summary:
    path = folder / "q.h5ad"
    query(n=n).write_h5ad(path)
    model = Model(bundle or tiny_bundle(), sha256="abc", threads=1)
    return model.assign_file(path, Target(folder / "o.tsv", force=True), options=options)


def is_safe(page: Page) -> None:
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "use", "image"} & set(page.tags)
    names = {name for name, _ in page.attributes}
    assert not {"src", "href", "xlink:href", "srcset", "action", "data"} & names
    assert not [name for name in names if name.startswith("on")]
    assert not [value for _, value in page.attributes if value and ("url(" in value or "//" in value)]


def test_the_page_shows_the_answers(tmp_path: Path) -> None:
    summary = summary_of(200, options=AssignOptions(vote=True, explain=True), folder=tmp_path)
    text = build_html(summary, MANIFEST)
    page = Page(text)
    is_safe(page)
    assert "http" not in text.replace("http-equiv", "")
    shown = " ".join(page.text)
    for name, n in summary.cells_per_type.items():
        assert name in shown
        assert f"{n:,} ({n / 200:.1%})" in shown
    found = summary.rejection
    assert found.n_unknown_strange > 0
    assert f"{summary.n_unknown} ({summary.n_unknown / 200:.1%}) of them {found.n_unknown_strange} too strange" in shown
    assert "1 without counts in the model's genes" in shown
    assert summary.matrix.reason in shown
    assert f"{summary.genes.n_found:,} of {summary.genes.n_model:,}" in shown
    assert all(gene in shown for gene in summary.genes.missing_top)
    assert "abc" in shown
    assert "temperature 1.50" in shown
    assert f"{summary.extra['vote']['n_changed']:,}" in shown
    assert page.tags.count("circle") == 199  # all but the cell without counts
    assert page.tags.count("svg") == 3
    listed = [row["gene"] for row in summary.extra["explanation"] if row["rank"] == 1]
    assert all(gene in shown for gene in listed)


def test_warnings_come_first() -> None:
    text = build_html(replace(SUMMARY, warnings=("look <here>",)), MANIFEST)
    assert 0 < text.index("look &lt;here&gt;") < text.index("<table>")
    assert "No warnings" not in text
    assert "No warnings" in build_html(replace(SUMMARY, warnings=()), MANIFEST)


def test_each_coarser_level_has_a_table(tmp_path: Path) -> None:
    bundle = levelled(BROAD, WIDE)
    summary = summary_of(200, options=AssignOptions(), folder=tmp_path, bundle=bundle)
    page = Page(build_html(summary, bundle.manifest))
    is_safe(page)
    headings = {f"Cells at level '{key}'": key for key in ("broad", "wide")}
    assert set(headings) < set(page.text)
    for heading, key in headings.items():
        at = page.text.index(heading) + 2  # a line feed comes after the heading
        expected = summary.extra["levels"][key]
        rows = page.text[at : at + 2 * len(expected)]
        assert dict(zip(rows[::2], rows[1::2], strict=True)) == {
            name: f"{n} ({n / 200:.1%})" for name, n in expected.items()
        }
        assert sum(expected.values()) == 200
        assert rows[-2] == "unknown"
    assert "level" not in " ".join(Page(build_html(SUMMARY, MANIFEST)).text)


def test_hostile_names_stay_text() -> None:
    manifest: Manifest = replace(MANIFEST, name=EVIL, cell_types=(CellType(EVIL, 1), *MANIFEST.cell_types[1:]))
    sketch = Sketch((0,) * 19 + (4,), np.eye(4, 2, dtype=np.float32), np.zeros(4, np.int32), (EVIL, "b", "c", "d"))
    row = {"cell_type": EVIL, "symbol": EVIL, "gene": EVIL, "in_query": True}
    summary = replace(
        SUMMARY,
        cells_per_type={EVIL: 4},
        warnings=(EVIL,),
        sketch=sketch,
        genes=replace(SUMMARY.genes, matched_by=EVIL, missing_top=(EVIL,)),
        matrix=replace(SUMMARY.matrix, where=EVIL, reason=EVIL),
        extra={
            "model": {"sha256": EVIL},
            "input": {"path": EVIL},
            "options": {EVIL: EVIL},
            "explanation": [row],
            "levels": {EVIL: {EVIL: 4}},
        },
    )
    page = Page(build_html(summary, manifest))
    is_safe(page)
    assert sum(EVIL in text for text in page.text) > 8


def test_nothing_to_show_is_no_error() -> None:
    empty = Summary(0, 0, 0, {}, 0.0, SUMMARY.matrix, SUMMARY.genes, NO_CELLS)
    nowhere = Sketch((0,) * 20, np.full((3, 2), np.nan, np.float32), np.full(3, -1, np.int32), ("a",))
    one_place = Sketch((1,) * 20, np.ones((3, 2), np.float32), np.full(3, -1, np.int32), ("a",))
    for sketch in (None, nowhere, one_place):
        is_safe(Page(build_html(replace(empty, sketch=sketch), MANIFEST)))


def test_the_map_takes_some_cells_of_a_long_file_and_always_the_same(tmp_path: Path) -> None:
    whole = summary_of(SKETCHED + 8, options=AssignOptions(), folder=tmp_path).sketch
    parts = summary_of(SKETCHED + 8, options=AssignOptions(block_size=333), folder=tmp_path).sketch
    assert whole is not None
    assert parts is not None
    assert len(whole.places) == SKETCHED // 2 + 4 <= SKETCHED
    np.testing.assert_array_equal(whole.places, parts.places)
    np.testing.assert_array_equal(whole.cell_type, parts.cell_type)
    assert whole.confidence == parts.confidence
    assert sum(whole.confidence) == SKETCHED + 8


def test_an_existing_page_needs_force(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_html(SUMMARY, MANIFEST, path)
    with pytest.raises(OutputError, match="--force"):
        write_html(SUMMARY, MANIFEST, path)
    write_html(SUMMARY, MANIFEST, path, force=True)
    assert list(tmp_path.iterdir()) == [path]
