"""The page is one file, loads nothing, and shows names as text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.pages.map_page import Groups, MapPage, figure_of, render_map
from tests.support.browser import ParsedPage, open_in_browser
from tests.support.extras import require_package

require_package("plotly", "map")
EVIL = '</script><script>document.title="run"</script><img src=x onerror="document.title=1">\n\x1b[31m\u202e<b>&amp;'
PICTURE = b"\xff\xd8\xff picture"


def map_of(groups: int, points: int, name: str = "group", **fields: Any) -> MapPage:
    """Assign points to groups in turn; the last point has no group."""
    of = np.append(np.arange(points - 1) % groups, -1)
    names = tuple(f"{name} {i}" for i in range(groups))
    return MapPage(
        **{
            "title": "Map of people.h5",
            "facts": ["facts"],
            "warning": "",
            "positions": np.random.default_rng(0).standard_normal((points, 2)).astype(np.float32),
            "groups": Groups("folder", "folders", of, names),
            "paths": [f"{i}.jpg" for i in range(points)],
            "notes": [""] * points,
            "pictures": [PICTURE] * (points - 1) + [None],
            **fields,
        }
    )


def data_of(page: ParsedPage) -> Any:
    return json.loads(page.scripts[0])


def test_the_page_contains_every_point_once() -> None:
    page = ParsedPage(render_map(map_of(3, 10)))
    data = data_of(page)
    traces = data["figure"]["data"]
    assert sorted(point for trace in traces for point in trace["customdata"]) == list(range(10))
    assert data["points"]["path"] == [f"{i}.jpg" for i in range(10)]
    assert base64.b64decode(data["points"]["picture"][0]) == PICTURE
    assert data["points"]["picture"][9] == ""
    assert data["points"]["groups"] == ["group 0 (3)", "group 1 (3)", "group 2 (3)"]


def test_the_page_loads_nothing_and_runs_only_our_scripts() -> None:
    page = ParsedPage(render_map(map_of(3, 10)))
    for _, attributes in page.tags:
        assert not {"src", "href"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    (policy,) = [a["content"] or "" for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in page.scripts[1:]]
    assert re.findall(r"'sha256-([^']+)'", policy) == digests
    assert "script-src 'unsafe-inline'" not in policy


def test_names_cannot_become_markup() -> None:
    text = render_map(map_of(3, 10, EVIL, title=EVIL, facts=[EVIL], warning=EVIL, paths=[EVIL] * 10))
    page = ParsedPage(text)
    assert [tag for tag, _ in page.tags].count("script") == 3
    assert [tag for tag, _ in page.tags].count("img") == 1
    assert "b" not in [tag for tag, _ in page.tags]
    for hidden in ("\x1b", "\u202e"):
        assert hidden not in text.replace(page.scripts[1], "")
    data = data_of(page)
    assert data["points"]["path"][0].startswith('</script><script>document.title="run"')
    assert "\\n\\x1b[31m\\u202e" in data["points"]["path"][0]
    for trace in data["figure"]["data"]:
        assert "<" not in trace["name"]  # Plotly takes <b> and <a href> in a name for markup


def test_plotly_markup_in_a_short_name_is_escaped() -> None:
    figure = figure_of(
        np.zeros((2, 2), np.float32), Groups("folder", "folders", np.array([0, 0]), ('<a href="x">&lt;',))
    )
    assert figure["data"][0]["name"] == '&lt;a href="x"&gt;&amp;lt; (2)'
    assert figure["config"]["typesetMath"] is False


def test_the_largest_groups_have_distinct_colours_and_shapes() -> None:
    map_data = map_of(40, 401)
    traces = figure_of(map_data.positions, map_data.groups)["data"]
    assert [trace["name"] for trace in traces[:2]] == ["in no folder (1)", "22 other folders (220)"]
    looks = {(trace["marker"]["color"], trace["marker"]["symbol"]) for trace in traces[2:-1]}
    assert len(looks) == len(traces[2:-1]) == 18
    assert traces[-1]["customdata"] == []  # for the marks
    assert {trace["type"] for trace in traces} == {"scattergl"}


def test_groups_beyond_the_colours_are_one_other_group() -> None:
    map_data = map_of(19, 190)
    assert figure_of(map_data.positions, map_data.groups)["data"][1]["name"] == "1 other folder (9)"


def test_many_points_are_drawn_smaller() -> None:
    sizes = [
        figure_of(np.zeros((n, 2), np.float32), Groups("folder", "folders", np.full(n, -1), ())) for n in (3, 200, 5000)
    ]
    assert sizes[0]["data"][0]["marker"]["size"] > sizes[1]["data"][0]["marker"]["size"]
    assert sizes[1]["data"][0]["marker"]["size"] > sizes[2]["data"][0]["marker"]["size"] >= 3


@pytest.mark.slow
def test_a_browser_draws_it_and_runs_no_name(tmp_path: Path) -> None:
    page = render_map(map_of(3, 40, EVIL, title=EVIL, facts=[EVIL], warning=EVIL, paths=[EVIL] * 40))
    (tmp_path / "map.html").write_text(page)
    result = open_in_browser(tmp_path / "map.html", "--enable-unsafe-swiftshader")
    assert "gl-canvas" in result.stdout, result.stderr
    assert "document.title" in ParsedPage(result.stdout).scripts[0]
    assert re.search(r"<title>(.{7})", result.stdout)[1] != "run"  # type: ignore[index]
    assert result.stdout.count('class="legendtext"') == 4
