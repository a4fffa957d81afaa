"""The report: one page that asks nothing of the network; the figures in it and beside it."""

import re
import shutil
import subprocess
import tempfile
from html.parser import HTMLParser

import pytest
import toy_experiment

from benign_kernels.experiments import Figure, Plan, Records, Store, figures, runner
from benign_kernels.report import page, versions

pytest.importorskip("matplotlib")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Reader(HTMLParser):
    """Checks that every element is closed, and gathers attributes and text."""

    def __init__(self):
        super().__init__()
        self.open, self.attributes, self.tags, self.texts = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def plan_and_records():
    plan = Plan.of(toy_experiment.make())
    with tempfile.TemporaryDirectory() as folder, Store(f"{folder}/s") as store:
        runner.run(plan, store, jobs=1)
        return plan, store.load(plan)


@pytest.fixture(scope="module")
def html(plan_and_records):
    plan, records = plan_and_records
    return page(plan, records, command="benign report toy --set 'a=<b>'", versions=versions(), seconds=1.0)


def read(html):
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def test_the_page_is_whole_and_says_what_it_must(html):
    reader = read(html)
    text = " ".join(reader.texts)
    for part in ("A toy & its errors", "Errors <are> small", "holds", "'a=<b>'", "Everything is made up.", "(c)"):
        assert part in text
    for name, version in versions().items():
        assert name in text
        assert version in text
    assert reader.tags.count("svg") == 1
    assert {"html", "table", "figure", "figcaption", "path"} <= set(reader.tags)


def test_the_page_loads_nothing(html):
    reader = read(html)
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(reader.tags)
    assert "://" not in html
    assert "@import" not in html
    for _, name, value in reader.attributes:
        if name in ("href", "src", "xlink:href"):
            assert value.startswith("#")
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))


def test_ids_are_unique_and_references_lead_somewhere(plan_and_records):
    _, records = plan_and_records
    twice = [figures.inline_svg(Figure(name, "t", "c", toy_experiment._draw), records) for name in ("one", "two")]
    svg = "".join(twice)
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert len(set(ids)) == len(ids)
    used = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg)
    assert used
    assert {a or b for a, b in used} <= set(ids)


def test_the_same_records_give_the_same_figure(plan_and_records):
    plan, records = plan_and_records
    figure = plan.experiment.figures[0]
    assert figures.render(figure, records, "svg") == figures.render(figure, records, "svg")
    assert figures.render(figure, records, "png").startswith(b"\x89PNG")
    assert figures.render(figure, records, "pdf").startswith(b"%PDF")
    with pytest.raises(ValueError, match="format: got 'gif', expected one of 'svg', 'pdf', 'png'"):
        figures.render(figure, records, "gif")


def test_a_page_without_trials_says_so():
    html = page(Plan.of(toy_experiment.make()), Records([]), command="", versions={}, seconds=0.0)
    text = " ".join(read(html).texts)
    assert "0 of 9 trials" in text
    assert "no trials where the claim speaks" in text
    assert "<svg" not in html


def dump(html, folder):
    """What a browser makes of the page; it complains of nothing. What the page's policy refuses, it logs as CONSOLE."""
    if BROWSER is None:
        pytest.skip("no chromium here")
    (folder / "page.html").write_text(html, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={folder}/u"]
    command = [BROWSER, *options, "--dump-dom", (folder / "page.html").as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0
    assert "CONSOLE" not in result.stderr
    return result.stdout


def test_a_browser_shows_it_without_an_error(html, tmp_path):
    shown = dump(html, tmp_path)
    assert "<svg" in shown
    assert "Errors &lt;are&gt; small" in shown


def test_a_browser_that_is_refused_something_says_so(html, tmp_path):
    """So that the silence of the others means something."""
    asking = html.replace("</body>", '<img src="data:image/png;base64,AAAA"></body>')
    with pytest.raises(AssertionError, match="CONSOLE"):
        dump(asking, tmp_path)
