"""The page for a reviewer is one file, loads nothing, and keeps and saves the answers."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import html.parser
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.pages.pairs_page import review_page, write_review
from runtime.pairs.all_pairs import ScoredPairs
from runtime.pairs.table import PairTable
from runtime.storage.file import EmbeddingFile
from runtime.storage.pagelist import read_list
from tests.support.browser import ParsedPage, open_in_browser
from tests.support.duplicate_people import calibration_of, pairs_by_numpy, rows_with_duplicates, write_rows

EVIL = '</script><script>document.title="run"</script><img src=x onerror="document.title=1">\n\x1b[31m\u202e<b>,&amp;'


def write_page(folder: Path, *, most: int = 500, names: list[bytes] | None = None, threshold: float = 0.5) -> str:
    vectors = rows_with_duplicates(60)
    pairs = np.array(pairs_by_numpy(vectors, threshold)).reshape(-1, 3)
    first, second, scores = pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64), pairs[:, 2]
    path = write_rows(folder / "p.h5", vectors, names=names)
    with EmbeddingFile(path) as gallery:
        calibration = calibration_of(np.linspace(-0.6, 0.6, 1000))
        table = PairTable(gallery, ScoredPairs(first, second, scores.astype(np.float32)), calibration)
        write_review(folder / "r.html", gallery, review_page(gallery, table, "exact, for the test", threshold, most))
    return (folder / "r.html").read_text()


def data_of(text: str) -> Any:
    return json.loads(ParsedPage(text).scripts[0])


def test_every_pair_is_listed_once_with_the_best_first(tmp_path: Path) -> None:
    text = write_page(tmp_path)
    expected = pairs_by_numpy(rows_with_duplicates(60), 0.5)
    rows = data_of(text)["pairs"]
    assert [(row_a, row_b) for *_, row_a, row_b in rows] == [pair[:2] for pair in expected]
    assert [score for _, _, score, *_ in rows] == [f"{score:.6f}" for *_, score in expected]
    assert [path for path, *_ in rows] == [f"p{first}.jpg" for first, *_ in expected]
    assert text.count('<article class="pair card"') == len(expected)
    assert text.count("cannot be shown") == 2 * len(expected)  # the photos of these pairs are missing
    assert f"<li>{len(expected)} pairs at 0.5 or above" in text
    assert "exact, for the test" in text
    assert "false pairs expected at the threshold" in text
    assert read_list(tmp_path / "p.h5").pages() == [tmp_path / "r.html"]


def test_only_the_best_of_many_pairs_are_shown(tmp_path: Path) -> None:
    text = write_page(tmp_path, most=3)
    expected = pairs_by_numpy(rows_with_duplicates(60), 0.5)
    assert [pair[-2:] for pair in data_of(text)["pairs"]] == [list(pair[:2]) for pair in expected[:3]]
    assert f"The best 3 of {len(expected)} pairs" in text


def test_a_page_without_pairs_says_so(tmp_path: Path) -> None:
    text = write_page(tmp_path, threshold=1.5)
    assert "<li>No pairs at 1.5 or above" in text
    assert data_of(text)["pairs"] == []


def test_a_half_written_page_is_listed_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("runtime.pages.pairs_page.encode", killed)
    with pytest.raises(KeyboardInterrupt):
        write_page(tmp_path)
    assert read_list(tmp_path / "p.h5").pages() == [tmp_path / "r.html"]


def test_answers_belong_to_the_pairs_on_the_page(tmp_path: Path) -> None:
    keys = set()
    for name, most in (("a", 3), ("b", 3), ("c", 4)):
        (tmp_path / name).mkdir()
        keys.add(data_of(write_page(tmp_path / name, most=most))["key"])
    assert len(keys) == 2


def test_the_page_loads_nothing_and_runs_only_our_script(tmp_path: Path) -> None:
    page = ParsedPage(write_page(tmp_path))
    for _, attributes in page.tags:
        assert not {"src", "href"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    (policy,) = [a["content"] or "" for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert policy.startswith("default-src 'none';")
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in page.scripts[1:]]
    assert re.findall(r"script-src 'sha256-([^']+)'$", policy) == digests


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    text = write_page(tmp_path, names=[EVIL.encode()] * 60)
    page = ParsedPage(text)
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 2
    assert "img" not in tags
    for hidden in ("\x1b", "\u202e"):
        assert hidden not in text
    assert data_of(text)["pairs"][0][0] == EVIL  # exactly, because it is copied into the saved file


# Acts as a reviewer and records what is visible. The page is loaded twice.
DRIVER = """
const seen = document.createElement("pre");
const press = (key) => dispatchEvent(new KeyboardEvent("keydown", { key }));
const state = () => ({
  counter: document.getElementById("counter").textContent,
  here: [...document.querySelectorAll(".pair")].findIndex((card) => card.classList.contains("here")),
  same: [...document.querySelectorAll(".pair")].map((card) => card.dataset.same),
  hidden: [...document.querySelectorAll(".pair")].map((card) => card.hidden),
});
if (!localStorage.getItem("again")) {
  const states = [state()];
  for (const key of ["y", "n", "ArrowRight", "y", "ArrowUp", "ArrowLeft", "u"]) { press(key); states.push(state()); }
  document.querySelectorAll(".pair")[5].querySelector(".no").click();
  states.push(state());
  document.getElementById("undecided").click();
  states.push(state());
  localStorage.setItem("again", JSON.stringify(states));
  location.reload();
} else {
  seen.id = "seen";
  let blob = null;
  URL.createObjectURL = (made) => { blob = made; return "blob:null/0"; };
  HTMLAnchorElement.prototype.click = function () { seen.dataset.name = this.download; };
  document.getElementById("save").click();
  const states = JSON.parse(localStorage.getItem("again"));
  states.push(state());
  blob.text().then((text) => {
    seen.textContent = JSON.stringify({ states, text, title: document.title });
    document.body.append(seen);
  });
}
"""


@pytest.mark.slow
def test_a_browser_keeps_the_answers_and_saves_them(tmp_path: Path) -> None:
    text = write_page(tmp_path, names=[f'{row} "x"{EVIL}'.encode() for row in range(60)], most=8)
    allowed = f"script-src 'sha256-{base64.b64encode(hashlib.sha256(DRIVER.encode()).digest()).decode()}' "
    driven = text.replace("script-src ", allowed, 1).replace("</body>", f"<script>{DRIVER}</script></body>")
    (tmp_path / "driven.html").write_text(driven)
    result = open_in_browser(tmp_path / "driven.html")
    match = re.search(r'<pre id="seen" data-name="([^"]*)">(.*?)</pre>', result.stdout, re.DOTALL)
    assert match is not None, result.stderr
    assert match[1] == "p-decisions.csv"
    observations = json.loads(html.unescape(match[2]))
    first, *states, clicked, filtered, again = observations["states"]
    assert first == {"counter": "0 of 8 decided: 0 yes, 0 no", "here": 0, "same": [""] * 8, "hidden": [False] * 8}
    assert [state["here"] for state in states] == [1, 2, 3, 4, 3, 2, 2]
    assert states[-1]["same"] == ["yes", "no", "", "yes", "", "", "", ""]
    assert clicked["same"] == again["same"] == ["yes", "no", "", "yes", "", "no", "", ""]
    assert again["counter"] == "4 of 8 decided: 2 yes, 2 no"
    assert filtered["hidden"] == [True, True, False, True, False, True, False, False]
    assert observations["title"] == "Pairs in p.h5"
    lines = list(csv.DictReader(io.StringIO(observations["text"], newline="")))
    pairs = data_of(text)["pairs"]
    assert [(line["path_a"], line["path_b"], line["score"]) for line in lines] == [
        tuple(pairs[position][:3]) for position in (0, 1, 3, 5)
    ]
    assert [line["same"] for line in lines] == ["yes", "no", "yes", "no"]
    assert [int(line["row_b"]) for line in lines] == [pairs[position][4] for position in (0, 1, 3, 5)]
