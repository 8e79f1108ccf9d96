"""Every page of a whole demo's book in a headless Chromium, from file://: wide, narrow and dark."""

import urllib.parse

import numpy as np
import pytest
from browser import chromium, find_chromium
from PIL import Image

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="no $CHROMIUM, and no Chromium or Chrome on the PATH")]

READY = "window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => true) : true"
# What stands in the main part of a page: equations, pictures, texts that an equation was to be made of
FOUND = """(() => {
    const main = document.querySelector('main'), all = what => [...main.querySelectorAll(what)];
    const walker = document.createTreeWalker(main, NodeFilter.SHOW_TEXT), raw = [];
    while (walker.nextNode()) {
        const node = walker.currentNode;
        if (!node.parentElement.closest('pre, code, script, style, mjx-container')
            && /\\\\[([]|\\$\\S[^$]*\\$/.test(node.data)) raw.push(node.data.trim().slice(0, 80));
    }
    return {
        equations: all('.math').length,
        unrendered: all('.math').filter(math => !math.querySelector('mjx-math, mjx-container svg'))
            .map(math => math.textContent.slice(0, 80)),
        failed: all('mjx-merror, [data-mjx-error]').map(math => math.textContent.slice(0, 80)), raw,
        pictures: [...document.images].map(image => (
            {src: image.src, alt: image.alt, width: image.naturalWidth})),
    }; })()"""
# What reaches over the window's edge and can't be scrolled to, and how large the type is
NARROW = """(() => {
    const scrolls = what => ['auto', 'scroll'].includes(getComputedStyle(what).overflowX);
    const inBox = what => what && what.tagName !== 'MAIN' && (scrolls(what) || inBox(what.parentElement));
    const shown = [...document.querySelectorAll('main article *')].filter(what => what.checkVisibility());
    return {
        width: document.documentElement.scrollWidth,
        cut: shown.filter(what => what.getBoundingClientRect().right > innerWidth + 1 && !inBox(what)
                                  && !what.closest('.visually-hidden, mjx-assistive-mml'))
            .map(what => what.tagName + ' ' + what.textContent.trim().slice(0, 60)),
        small: shown.filter(what => what.matches('p, li, dd, figcaption, td, th, pre'))
            .filter(what => what.innerText.trim())
            .filter(what => parseFloat(getComputedStyle(what).fontSize)
                            < (what.closest('table, pre, .cell_output') ? 12 : 14))
            .map(what => what.tagName + ' ' + what.textContent.trim().slice(0, 60)),
    }; })()"""
# Text whose contrast with its ground is below WCAG's 4.5; grounds that shine through are mixed
CONTRAST = """(() => {
    const numbers = color => [...color.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
    const over = (top, below) => [0, 1, 2].map(i => top[3] * top[i] + (1 - top[3]) * below[i]).concat([1]);
    const ground = what => { if (!what) return [255, 255, 255, 1];
        const own = numbers(getComputedStyle(what).backgroundColor);
        return own[3] === 1 ? own : over(own, ground(what.parentElement)); };
    const light = color => { const [r, g, b] = color.slice(0, 3).map(x => x / 255)
        .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const texts = [...document.querySelectorAll('main article *')].filter(what => what.checkVisibility()
        && !what.closest('mjx-container, .headerlink, .visually-hidden')
        && [...what.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
    return {texts: texts.length, ground: light(ground(document.querySelector('main'))), pale: texts
        .map(what => { const back = ground(what), text = over(numbers(getComputedStyle(what).color), back);
            const [high, low] = [light(text), light(back)].sort((a, b) => b - a);
            return [(high + 0.05) / (low + 0.05), what.tagName + '.' + what.className + ' '
                    + what.textContent.trim().slice(0, 60)]; })
        .filter(([ratio, what]) => ratio < 4.5)}; })()"""


@pytest.fixture(scope="module")
def html(demo):
    return demo.output / "book" / "_build" / "html"


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    pytest.importorskip("websocket", reason="JupyterLab's own dependency, websocket-client, is missing")
    with chromium(tmp_path_factory.mktemp("chromium") / "profile") as page:
        yield page


def walk(tab, html, script, **window):
    """{page: what the script finds there}, in a window of that kind."""
    tab.look(**window)
    found = {}
    for path in sorted(html.rglob("*.html")):
        if "_static" not in path.parts:
            tab.open(path.as_uri())
            tab.evaluate(READY)
            found[str(path.relative_to(html))] = tab.evaluate(script)
    return found


@pytest.fixture(scope="module")
def pages(tab, html):
    """What stands on each page, and what was asked for and complained of on the way."""
    tab.requests.clear()
    tab.errors.clear()
    found = walk(tab, html, FOUND)
    return found, list(tab.requests), list(tab.errors)


def listed(found, key):
    """All entries under a key, with their page."""
    return [(page, entry) for page, facts in found.items() for entry in facts[key]]


def test_all_parts_of_the_book_are_there(pages, html):
    found, _, _ = pages
    assert {"index.html", "report.html", "figures.html", "map.html", "glossary.html", "teaching.html",
            "search.html", "genindex.html", "api/index.html", "api/paper.html"} <= set(found)
    assert len([page for page in found if page.startswith("notebooks/")]) == 10


def test_no_page_asks_the_network_or_logs_an_error(pages):
    _, requests, errors = pages
    assert len(requests) > 100
    assert [address for address in requests if not address.startswith(("file:", "data:"))] == []
    assert errors == []


def test_every_equation_is_rendered(pages):
    found, _, _ = pages
    assert found["api/paper.html"]["equations"] >= 5 and found["map.html"]["equations"] >= 1
    assert found["notebooks/02_retrieval_and_eq1.html"]["equations"] > 10
    for key in ("unrendered", "failed", "raw"):
        assert listed(found, key) == [], key


def test_every_picture_is_loaded_and_described(pages, html):
    found, _, _ = pages
    pictures = listed(found, "pictures")
    assert len(pictures) > 60
    assert [(page, picture["src"]) for page, picture in pictures if picture["width"] == 0] == []
    for page, picture in pictures:  # words, not a file's name
        assert len(picture["alt"].split()) >= 5 and ".png" not in picture["alt"], (page, picture)
        assert not picture["alt"].startswith("Output of a cell"), (page, picture["alt"])


def test_the_gallery_has_each_figure_of_the_run_once(pages, demo):
    shown = [urllib.parse.unquote(picture["src"]).rpartition("/")[2] for picture in
             pages[0]["figures.html"]["pictures"]]
    assert sorted(shown) == sorted(path.name for path in demo.output.glob("results/demo/figures/*.png"))
    descriptions = [picture["alt"] for picture in pages[0]["figures.html"]["pictures"]]
    assert len(set(descriptions)) == len(descriptions)


def test_a_page_fits_a_window_of_400_pixels(tab, html):
    found = walk(tab, html, NARROW, width=400, height=800)
    assert {page: facts["width"] for page, facts in found.items() if facts["width"] > 400} == {}
    assert listed(found, "cut") == []
    assert listed(found, "small") == []


def test_dark_pages_can_be_read(tab, html):
    found = walk(tab, html, CONTRAST, dark=True)
    assert all(facts["ground"] < 0.05 for facts in found.values())
    assert sum(facts["texts"] for facts in found.values()) > 10_000
    assert listed(found, "pale") == []


def test_figures_bring_their_own_light_ground(html):
    """Black type on a transparent ground would vanish in the dark."""
    figures = list((html / "_images").glob("*.png"))
    assert len(figures) > 40
    for path in figures:
        with Image.open(path) as picture:
            corners = np.asarray(picture.convert("RGBA"))[::picture.height - 1, ::picture.width - 1]
        assert corners.min() > 240, path.name  # red, green, blue and opacity


def test_search_finds_without_a_network(tab, html):
    tab.look()
    tab.requests.clear()
    tab.errors.clear()
    tab.open((html / "search.html").as_uri() + "?q=attention")
    tab.wait_for("document.querySelectorAll('#search-results li a').length >= 3")
    assert any("03_ram_training" in link for link in
               tab.evaluate("[...document.querySelectorAll('#search-results li a')].map(link => link.href)"))
    tab.evaluate("new Promise(done => setTimeout(done, 500))")
    assert tab.errors == []
    assert [address for address in tab.requests if not address.startswith(("file:", "data:"))] == []
