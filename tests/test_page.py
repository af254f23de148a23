"""The HTML page: whole, safe, small, and usable in a real browser where there is one."""

from __future__ import annotations

import base64
import html
import json
import re
import unicodedata

import numpy as np
import pytest
from chromium import browser, executable
from test_clean import hostile_graph, random_spans
from test_view import graph_of, random_graph, solved

from babblegraph.born import Born
from babblegraph.budget import Budget, Meter
from babblegraph.clean import visible
from babblegraph.graph import BabbleGraph
from babblegraph.history import at_round
from babblegraph.page import NATS, in_notebook, to_html
from babblegraph.status import Status
from babblegraph.stem import hold_back
from babblegraph.step_text import no_text, step_text
from babblegraph.subtrees import passing, worth

SPANS = random_spans(2000, seed=5)


def data_of(page):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1]
    )


def array_of(data, name):
    kind, packed = data["arrays"][name]
    return np.frombuffer(base64.b64decode(packed), np.dtype(kind).newbyteorder("<"))


def test_the_page_holds_the_whole_graph():
    graph = hostile_graph(SPANS, 1)
    graph.merges.append((5, 3))
    data = data_of(to_html(graph))
    for name in (
        "parent",
        "start",
        "stop",
        "value",
        "connectivity",
        "score",
        "status",
        "gate",
        "flags",
        "born",
        "died",
    ):
        assert np.array_equal(array_of(data, name), getattr(graph, name), equal_nan=True), name
    assert array_of(data, "merges").tolist() == [5, 3]
    assert array_of(data, "passed").astype(bool).tolist() == passing(graph).tolist()
    told = array_of(data, "nats") / NATS
    assert np.abs(told - np.clip(-graph.token_log_q, 0, 255 / NATS)).max() <= 0.5 / NATS + 1e-6


def draw_from(graph, n, seed):
    return np.random.default_rng(seed).choice(graph.frontier(), n)


@pytest.mark.parametrize("pieces", ["bytes", "characters", "stems"])
def test_every_text_of_the_page_is_the_safe_text_of_its_node(pieces):
    if pieces == "bytes":
        graph = hostile_graph(SPANS, 1)
    elif pieces == "stems":  # whose ends are those of nodes far above
        graph = graph_of(*SPANS[:50], parent=[0] * 50)
        for at in range(50, 200, 50):
            hold_back(graph, graph.frontier()[::3])
            parents = draw_from(graph, 50, at)
            graph.add(Born.of_spans(parents, [list(s) for s in SPANS[at : at + 50]], [-1.0] * 50))
    else:  # tokens of several characters, of which some join the one before
        words = [s.decode("utf-8", "replace") for s in SPANS[:200] if s]
        graph = BabbleGraph(["p"], [[0]], {i: w.encode() for i, w in enumerate(words)})
        draw = np.random.default_rng(0)
        spans = [draw.integers(0, len(words), 4).tolist() for _ in range(300)]
        graph.add(Born.of_spans([0] * 300, spans, [-1.0] * 300))
    data = data_of(to_html(graph))
    tokens, start, stop = (array_of(data, name) for name in ("tokens", "start", "stop"))
    for node in range(graph.size):
        pieces = "".join(data["pieces"][t] for t in tokens[start[node] : stop[node]])
        shown = data["texts"].get(str(node), pieces)
        assert shown == (visible(step_text(graph, node, 10**6)) or no_text(graph, node)), node


def test_nothing_in_the_page_is_obeyed_and_nothing_is_fetched():
    graph = hostile_graph([b"</script><script>alert(1)</script>", b"<img src=http://x>", *SPANS], 1)
    graph.prompts[0] = "</script><b>\u202e&amp;"
    graph.meta["model"] = "</title><script>alert(2)</script>"
    page = to_html(graph)
    assert page == to_html(graph)
    assert page.count("<script") == page.count("</script>") == 2
    assert page.count("<title>") == page.count("</title>") == 1
    assert not {c for c in page if unicodedata.category(c)[0] == "C"} - {"\n"}
    frame = page.replace(json.dumps(data_of(page)), "")
    program = re.sub(r'<script type="application/json".*?</script>', "", frame, flags=re.DOTALL)
    assert "default-src 'none'" in program
    for word in (
        "http:",
        "https:",
        "src=",
        "href=",
        "url(",
        "@import",
        "fetch(",
        "XMLHttp",
        "innerHTML",
        "eval(",
    ):
        assert word not in program, word


def test_a_hundred_thousand_nodes_take_less_than_twenty_megabytes():
    draw, n = np.random.default_rng(0), 100_000
    graph = BabbleGraph(["p"], [[0]], {i: f" word{i}".encode() for i in range(30_000)})
    while graph.size < n:
        m = min(5000, n - graph.size)
        spans = draw.integers(0, 30_000, (m, 12)).tolist()
        graph.add(Born.of_spans(draw.integers(0, graph.size, m), spans, [-20.0] * m))
    assert len(to_html(graph).encode()) < 20_000_000


def test_a_notebook_shows_the_page_in_a_frame_of_its_own():
    graph = solved()
    shown = graph._repr_html_()
    assert shown == in_notebook(graph)
    inside = re.fullmatch(r'<iframe sandbox="allow-scripts" style="[^"]*" srcdoc="([^"]*)"></iframe>', shown)
    assert inside
    assert html.unescape(inside[1]) == to_html(graph)
    assert "20001 nodes" in random_graph(20_001, 0)._repr_html_()


# ------------------------------------------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def page():
    path = executable()
    if path is None:
        pytest.skip("no Chromium is installed: the page was not tried in a browser")
    with browser(path) as found:
        yield found


@pytest.fixture
def show(page, tmp_path):
    def shown(graph, fragment=""):
        file = tmp_path / "graph.html"
        file.write_text(to_html(graph), "utf-8")
        page.requests.clear()
        page.problems.clear()
        page.open(file, fragment)
        return page

    return shown


def said(page):
    return page.evaluate("[...document.querySelectorAll('.row')].map(r => r.textContent)")


def chosen(page):
    page.settle()
    return page.evaluate("+document.querySelector('.row.chosen').dataset.node")


def test_the_browser_opens_the_page_on_the_way_to_the_best_leaf(show):
    page = show(solved())
    rows = said(page)
    assert any("★ yes" in row and "passed" in row for row in rows)
    assert any("✗ two" in row and "dead" in row for row in rows)
    assert any("⊘ three" in row and "node gate" in row for row in rows)
    assert any("⇢ four" in row and "→ #1" in row for row in rows)
    assert chosen(page) == 6
    assert "passed the threshold" in page.evaluate("document.getElementById('node').textContent")
    assert "passed with score 1.00" in page.evaluate("$('verdict').textContent")
    assert page.evaluate("[...document.querySelectorAll('.won .step')].map(e => e.textContent)") == [
        *("3 5 7>38⏎", "one⏎", "yes⏎")
    ]
    kinds = page.evaluate("[...document.querySelectorAll('.kind')].map(e => e.textContent)")
    assert kinds == [
        "★ 1 passed",
        "✗ 1 dead",
        "⊘ 1 pruned",
        "⇢ 1 merged",
        "◆ 1 finished, failed",
        "○ 1 live",
        "● 2 expanded",
    ]
    assert [r for r in page.requests if not r.startswith(("file:", "about:"))] == []
    assert page.problems == []


def test_every_key_of_the_page_does_what_it_says(show):
    page = show(solved())
    for key, wanted in [
        ("Home", 0), ("ArrowDown", 1), ("ArrowDown", 6), ("ArrowUp", 1), ("ArrowLeft", 1), ("ArrowDown", 2),
        ("ArrowUp", 1), ("ArrowRight", 1), ("ArrowRight", 6), ("ArrowLeft", 1), ("End", 5), ("PageUp", 0),
        ("PageDown", 5), ("b", 6), ("Home", 0), ("Enter", 0), ("ArrowDown", 0), ("Enter", 0), ("ArrowDown", 1),
    ]:  # fmt: skip
        page.press(key)
        assert chosen(page) == wanted, key
    page.press("/")
    assert page.evaluate("document.activeElement.id") == "search"


def test_search_and_filters_show_what_matches_and_all_above_it(show):
    page = show(solved(), "#search=no")
    assert [re.sub(r"\W*(\w+).*", r"\1", row) for row in said(page)] == ["3", "one", "no"]
    assert page.evaluate("[...document.querySelectorAll('.row.found')].map(r => +r.dataset.node)") == [7]
    page.evaluate("$('search').value = ''; document.querySelector('.kind[data-kind=leaf_dead]').click()")
    assert page.evaluate("[...document.querySelectorAll('.row')].map(r => +r.dataset.node)") == [0, 2]
    assert page.evaluate("document.querySelector('.kind[aria-pressed=true]').dataset.kind") == "leaf_dead"
    page.evaluate(
        "document.querySelector('.kind[data-kind=leaf_dead]').click(); $('least').value = '0.85'; filter()"
    )
    assert page.evaluate("[...document.querySelectorAll('.row.found')].map(r => +r.dataset.node)") == [1, 6]


def test_the_map_leads_to_the_node_under_the_mouse(show):
    graph = graph_of("aaaa", "bb", "cc", threshold=1.0)
    graph.add(Born.of_spans([1], [list(b"dddd")], [-1.0]))
    page = show(graph)
    area = page.evaluate("(({x, y, width, height}) => [x, y, width, height])(canvas.getBoundingClientRect())")

    def at(across, down):
        place = {
            "x": area[0] + area[2] * across,
            "y": area[1] + area[3] * down,
            "button": "left",
            "clickCount": 1,
        }
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            page.call("Input.dispatchMouseEvent", type=kind, **place)
        return chosen(page)

    # node 1 and what is below it have 8 of 12 tokens, nodes 2 and 3 a sixth each
    assert [at(0.3, 0.1), at(0.3, 0.5), at(0.3, 0.9), at(0.75, 0.5), at(0.95, 0.5)] == [0, 1, 4, 2, 3]
    assert "cc" in page.evaluate("$('tip').textContent")


def test_the_page_goes_back_to_an_earlier_round(show):
    graph = graph_of(threshold=1.0)
    for graph.round in (1, 2, 3):
        graph.add(Born.of_spans([graph.size - 1], [[96 + graph.round]], [-1.0]))
    graph.stop_nodes([3], Status.LEAF_DEAD)
    page = show(graph, "#round=2")
    there = "[...document.querySelectorAll('.row')].map(r => +r.dataset.node)"
    page.evaluate("$('open').click()")
    assert page.evaluate(there) == [0, 1, 2]
    assert page.evaluate("kind(2)") == "frontier"
    page.press("]")
    assert page.evaluate(there) == [0, 1, 2, 3]
    assert page.evaluate("[kind(3), what(2)[0], what(1)[0]]") == ["leaf_dead", "all dead", "all dead"]
    for _ in range(5):
        page.press("[")
    assert page.evaluate(there) == [0]
    page.evaluate("$('play').click()")
    for _ in range(100):
        page.evaluate("new Promise(r => setTimeout(r, 50))")
        if page.evaluate("!playing"):
            break
    assert page.evaluate("round") == 3
    assert page.problems == []


def test_hostile_text_runs_nothing_in_the_browser(show):
    spans = [
        b"<img src=x onerror=alert(1)>",
        b"</script><script>document.title='owned'</script>",
        *SPANS[:300],
    ]
    page = show(hostile_graph(spans, 2), "#open=1")
    assert page.evaluate("document.title").startswith("babblegraph")
    assert page.evaluate("document.querySelectorAll('#rows img, #rows script, #node img').length") == 0
    for node in range(0, 300, 37):
        page.evaluate(f"choose({node})")
    assert page.problems == []


@pytest.mark.slow
def test_a_hundred_thousand_nodes_open_scroll_and_search_at_once(show):
    page = show(random_graph(100_000, 2), "#open=1")
    assert page.evaluate("rows.length") == 100_000
    assert page.evaluate("document.querySelectorAll('.row').length") < 100
    assert page.evaluate("+document.documentElement.dataset.ready") < 15_000  # about a second on an idle core
    page.evaluate("document.getElementById('tree').scrollTop = 1e6")
    page.settle()
    assert page.evaluate("document.querySelectorAll('.row').length") < 100
    assert page.evaluate("const t = performance.now(); choose(99_999); performance.now() - t") < 3000


def test_a_leaf_that_ended_without_text_says_so(show):
    graph = graph_of("a", "", status=Status.LEAF_END)
    assert any("(end)" in row for row in said(show(graph)))


def test_the_page_and_the_graph_agree_on_the_best_leaf(show):
    """Where weights are unbiased they are not what ties are broken by."""
    graph = graph_of("aa", "bb", status=Status.LEAF_STOP, threshold=1.0)
    graph.score[1:], graph.log_p_g[1:], graph.log_p_f[1:] = 1, (-1, -2), (-1, -2)
    graph.log_inclusion[1:] = -1, -9
    assert [show(graph).evaluate("best")] == graph.best() == [1]


def test_keys_and_buttons_survive_a_filter_that_leaves_nothing(show):
    page = show(solved(), "#search=nowhere")
    assert said(page) == []
    for key in ("ArrowDown", "End", "PageUp", "Home", "Enter", "ArrowLeft", "ArrowRight", "n", "[", "]", "b"):
        page.press(key)
    page.evaluate("$('close').click()")
    assert page.evaluate("chosen") == 6
    assert page.problems == []


def test_the_least_value_is_compared_in_the_bits_that_values_have(show):
    page = show(solved())
    page.evaluate("$('least').value = '0.9'; said(filter())")  # in 32 bits 0.9 is a little less
    assert page.evaluate("[...document.querySelectorAll('.row.found')].map(r => +r.dataset.node)") == [1, 6]


def test_next_goes_to_what_was_folded_away_and_the_count_stays(show):
    page = show(solved(), "#search=yes")
    page.evaluate("$('close').click()")
    page.press("n")
    assert chosen(page) == 6
    page.evaluate("location.hash = '#node=2'")
    page.evaluate("new Promise(r => setTimeout(r, 50))")
    assert page.evaluate("$('foot').textContent").startswith("1 found")


@pytest.mark.parametrize("seed", range(3))
def test_a_round_of_the_page_is_that_of_the_history(show, seed):
    draw, graph = np.random.default_rng(seed), graph_of(threshold=1.0)
    for graph.round in range(1, 9):
        hold_back(graph, draw.choice(graph.frontier(), min(2, len(graph.frontier())), replace=False))
        places = draw.choice(graph.frontier(), 2)
        new = graph.add(Born.of_spans(places, [[97]] * 2, [-1.0] * 2))
        graph.value[new] = draw.random(2)
        for status in (Status.PRUNED, Status.LEAF_DEAD):
            at = draw.choice(graph.frontier())
            if draw.random() < 0.5 and len(graph.frontier()) > 3:
                graph.stop_nodes(at, status)
                graph.score[at] = 0 if status == Status.LEAF_DEAD else np.nan
    page = show(graph)
    for number in range(graph.round + 1):
        wanted = at_round(graph, number)
        page.evaluate(f"setRound({number})")
        assert page.evaluate(f"[...status].slice(0, {wanted.size})") == wanted.status.tolist(), number
        shown = page.evaluate(f"[...worth].slice(0, {wanted.size}).map((x) => (Number.isNaN(x) ? null : x))")
        assert shown == [None if np.isnan(x) else x for x in worth(wanted).tolist()], number
        assert page.evaluate("[...Array(N).keys()].filter(isThere).length") == wanted.size


def test_a_notebook_keeps_its_keys(page, tmp_path):
    (tmp_path / "notebook.html").write_text(
        "<!doctype html><textarea id=cell></textarea><p id=output>", "utf-8"
    )
    page.call("Page.navigate", url=(tmp_path / "notebook.html").as_uri())
    for _ in range(500):
        if page.evaluate("document.getElementById('output') !== null"):
            break
    shown = json.dumps(in_notebook(solved()))
    page.evaluate(
        f"new Promise((done) => {{ cell.focus(); output.innerHTML = {shown}; output.firstChild.onload = done; }})"
    )
    page.evaluate("new Promise((done) => setTimeout(done, 300))")
    assert page.evaluate("document.activeElement.id") == "cell"


def test_a_narrow_window_needs_no_scrolling_to_the_side(show):
    graph = random_graph(3000, 0)
    graph.meta["spent"] = Meter(Budget(tokens=123_456), 1).to_json()
    page = show(graph)
    page.call("Emulation.setDeviceMetricsOverride", width=320, height=600, deviceScaleFactor=1, mobile=False)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.call("Emulation.clearDeviceMetricsOverride")


def test_buttons_that_are_drawn_anew_leave_the_keys_where_they_were(show):
    page = show(solved())
    page.evaluate("document.querySelector('.kind[data-kind=pruned]').focus()")
    page.evaluate("document.activeElement.click()")
    assert page.evaluate("document.activeElement.dataset.kind") == "pruned"
    page.evaluate("document.activeElement.click(); document.querySelector('.step').focus()")
    page.evaluate("document.activeElement.click()")
    assert page.evaluate("document.activeElement.id") == "tree"
