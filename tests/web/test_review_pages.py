"""The pages of the review: ten thousand pairs by the keyboard, people as faces, everything saved at once and undone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

import runtime as facemill
from runtime.faces.rules import FaceRules
from runtime.review.review import Review
from runtime.review.store import review_path
from tests.support.browser import WIDTHS_OF, assert_accessible
from tests.support.extras import require_package
from tests.support.photos_of_squares import squares
from tests.support.red_square_detector import build_red_squares
from tests.support.running_server import server
from tests.web.conftest import Browse

if TYPE_CHECKING:
    from playwright.sync_api import Page

require_package("scipy", "cluster")
pytestmark = pytest.mark.slow
EVIL = "<img src=x onerror=alert(1)>.png"
MOST_NODES = 400  # of the whole document


@pytest.fixture(scope="module")
def many(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a server of a file with 142 faces, which make more than 10,000 pairs, and the file."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "photos").mkdir()
    for number in range(142):
        name = EVIL if number == 7 else f"{number}.png"
        (folder / "photos" / name).write_bytes(squares(1, seed=number))
    detector = build_red_squares(folder).path
    engines = {"engine": tiny_engine, "detector": detector, "landmarks": "none"}
    faces = FaceRules("detect", min_iod=0.0, max_fit=1.0)
    facemill.process(folder / "photos", folder / "people.h5", faces=faces, **engines)
    options = ("--engine", tiny_engine, "--detector", detector, "--landmarks", "none", "--align", "detect")
    with server(folder / "people.h5", "--audit", folder / "audit.jsonl", *options) as (_, port):
        yield f"http://127.0.0.1:{port}", folder / "people.h5"


@pytest.fixture(scope="module")
def own(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a server of portraits of its own that are grouped by person, and the file."""
    file = Path(shutil.copy(people, tmp_path_factory.mktemp("own") / "people.h5"))
    facemill.cluster(file, threshold=0.8, device="cpu")
    with server(file, "--audit", file.with_name("audit.jsonl")) as (_, port):
        yield f"http://127.0.0.1:{port}", file


def show_pairs(page: Page, threshold: float, show: str = "open") -> None:
    page.select_option("#show", show)
    page.fill("#threshold", str(threshold))
    page.press("#threshold", "Enter")
    page.wait_for_selector(".pair[aria-current] img")


def wait_for_status(page: Page, text: str) -> None:
    expect(page.locator("#status")).to_contain_text(text, timeout=60_000)


def wait_until_saved(page: Page) -> None:
    expect(page.locator("#status")).not_to_contain_text("Saving", timeout=60_000)


def nodes(page: Page) -> int:
    count = page.evaluate("document.querySelectorAll('*').length")
    assert isinstance(count, int)
    return count


def test_ten_thousand_pairs_are_reviewed_with_a_bounded_document(visit: Browse, many: tuple[str, Path]) -> None:
    url, file = many
    with visit(url + "/same") as page:
        show_pairs(page, -1)
        wait_for_status(page, "of 10,011.")
        assert nodes(page) < MOST_NODES
        best = facemill.find_pairs(file, threshold=-1, device="cpu").table
        pairs = [pair.rows for pair in best.rows(0, 30)]
        for key in "ynsn":  # one key a decision
            page.keyboard.press(key)
        wait_until_saved(page)
        with Review(file) as review:
            stored = [decision.kind for decision in review.rules.constraints.decisions]
            assert stored == ["same", "different", "undecided", "different"]
            assert review.state(*pairs[0]) == "same"
        page.keyboard.press("End")  # the last pair, far down
        wait_for_status(page, "Pair 10,011 of 10,011")
        page.wait_for_selector(".pair[aria-posinset='10011'] img", timeout=60_000)
        assert nodes(page) < MOST_NODES
        page.keyboard.press("y")
        wait_until_saved(page)
        for _ in range(5):  # undo finds the pair wherever it is
            page.keyboard.press("u")
        wait_until_saved(page)
        wait_for_status(page, "Pair 1 of 10,011. 0 decided.")
        with Review(file) as review:
            assert not review.rules
        page.keyboard.press("r")
        wait_until_saved(page)
        assert page.locator(".pair[aria-current] .decision").inner_text() == "the same person"
        assert nodes(page) < MOST_NODES
        page.reload()  # nothing of it was in the page alone
        show_pairs(page, -1, "same")
        wait_for_status(page, "Pair 1 of 1.")
        page.keyboard.press("u")
        page.keyboard.press("u")
        page.wait_for_selector("text=There is nothing to undo.")
        assert page.locator("#error").get_attribute("role") == "alert"


def test_names_of_photos_are_text(visit: Browse, many: tuple[str, Path]) -> None:
    url, file = many
    rows = [row for row, name in enumerate(facemill.open(file).paths) if name == EVIL]
    assert rows
    with visit(url + "/same") as page:
        show_pairs(page, -1)
        page.wait_for_selector(".pair")
        while not page.get_by_text(EVIL).count():
            page.keyboard.press("PageDown")
        assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_with_faces_are_accessible(visit: Browse, own: tuple[str, Path], scheme: str) -> None:
    url, _ = own
    for width in WIDTHS_OF[scheme]:
        with visit(url + "/same", width=width, scheme=scheme) as page:
            show_pairs(page, 0.5, "all")
            page.wait_for_load_state("networkidle")
            assert page.locator(".pair img").first.evaluate("image => image.naturalWidth") > 50
            assert_accessible(page)
        with visit(url + "/people", width=width, scheme=scheme) as page:
            page.wait_for_selector(".person img")
            page.wait_for_load_state("networkidle")
            assert_accessible(page)
            page.locator(".person button", has_text="faces").first.click()
            page.wait_for_selector("#faces img")
            assert_accessible(page)


def test_people_are_named_merged_split_and_undone_by_the_keyboard(visit: Browse, own: tuple[str, Path]) -> None:
    url, file = own
    with visit(url + "/people") as page:
        page.wait_for_selector(".person img")
        before = page.locator("#status").inner_text()
        cards = page.locator(".person")
        sizes = [int(text.split()[1]) for text in cards.locator("button", has_text="All").all_inner_texts()]
        name = cards.first.get_by_role("textbox")
        name.focus()
        page.keyboard.type("Ämilia <b>")
        page.keyboard.press("Enter")
        wait_for_status(page, "is now called Ämilia <b>")
        assert cards.first.get_by_role("textbox").input_value() == "Ämilia <b>"

        for place in (0, 1):
            cards.nth(place).get_by_role("checkbox").focus()
            page.keyboard.press("Space")
        page.keyboard.press("m")
        wait_for_status(page, "One person now")
        assert cards.first.get_by_text(f"All {sizes[0] + sizes[1]} faces").count() == 1
        assert cards.first.get_by_role("textbox").input_value() == "Ämilia <b>"

        cards.first.locator("button", has_text="faces").press("Enter")
        page.wait_for_selector("#faces .face")
        split = page.get_by_role("button", name="Not this person")
        assert split.is_disabled()
        page.locator("#faces input").first.focus()
        page.keyboard.press("Space")
        split.press("Enter")
        wait_for_status(page, "1 face is somebody else now.")
        assert cards.first.get_by_text(f"All {sizes[0] + sizes[1] - 1} faces").count() == 1

        for what in ("split", "merge", "name"):
            page.keyboard.press("u")
            wait_for_status(page, f"The {what} is undone.")
        assert cards.first.get_by_role("textbox").input_value() == ""
        page.keyboard.press("u")
        wait_for_status(page, "There is nothing to undo.")
        page.keyboard.press("r")
        wait_for_status(page, "The name is done again.")
        page.reload()
        wait_for_status(page, before)
        assert cards.first.get_by_role("textbox").input_value() == "Ämilia <b>"
    with Review(file) as review:
        review.undo_cluster()


def test_photos_are_grouped_on_the_page(visit: Browse, many: tuple[str, Path]) -> None:
    url, file = many
    with visit(url + "/people") as page:
        page.wait_for_selector("#grouping[open]")
        assert "not grouped by person yet" in page.locator("#status").inner_text()
        page.fill("#threshold", "0.9")
        page.press("#threshold", "Enter")
        wait_for_status(page, " faces")
        assert page.locator("#error").is_hidden()
    assert facemill.open(file).has_column("cluster")
    assert not review_path(file).exists() or not facemill.Review(file).rules


def test_a_decision_that_is_not_saved_is_taken_back_and_said(visit: Browse, own: tuple[str, Path]) -> None:
    url, file = own
    with visit(url + "/same", refused=True) as page:
        show_pairs(page, 0.5)
        facemill.remove(file, "person11/4.jpg")  # the rows of the pairs have other numbers now
        page.keyboard.press("y")
        expect(page.locator("#error")).to_contain_text("Not saved", timeout=60_000)
        expect(page.locator("#error")).to_contain_text("have changed since")
        assert page.locator(".pair[aria-current] .decision").inner_text() == ""
        with Review(file) as review:
            assert not review.rules
        show_pairs(page, 0.5)
        page.click("#different")
        wait_until_saved(page)
        assert page.locator("#error").is_hidden()
        with Review(file) as review:
            assert [decision.kind for decision in review.rules.constraints.decisions] == ["different"]
