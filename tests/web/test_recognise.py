"""The page Recognise in a browser, on portraits: photos, faces, hits, filters, and a comparison, by keyboard alone."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import runtime as facemill
from tests.support.asking import ask
from tests.support.browser import WIDTHS_OF, assert_accessible
from tests.support.portrait_people import join_photos
from tests.support.running_server import server
from tests.web.conftest import Browse

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

HITS = "#hits li[data-row]"
LOADED = """() => new Promise((done) => {
  const start = Date.now();
  const look = () => {
    const images = [...document.querySelectorAll("#hits img")];
    const shown = images.filter((image) => image.complete && image.naturalWidth).length;
    if (images.every((image) => image.complete) || Date.now() - start > 60000) done(shown);
    else setTimeout(look, 10);
  };
  look();
})"""


def choose(page: Page, *photos: Path) -> None:
    """Choose photos and wait until hits of one of them are there."""
    page.set_input_files("#photos", list(photos))
    page.locator(HITS).first.wait_for()


def paths(page: Page) -> list[str]:
    return [str(card.get_attribute("data-path")) for card in page.locator(HITS).all()]


def test_the_hits_are_those_of_the_library(visit: Browse, url: str, portraits: Path, people: Path) -> None:
    with visit(url + "/recognise") as page:
        choose(page, portraits / "somebody.jpg")
        shown = [
            (card.get_attribute("data-path"), card.get_attribute("data-score")) for card in page.locator(HITS).all()
        ]
        assert page.evaluate(LOADED) == 50
        assert "50 hits for somebody.jpg, face 1" in page.locator("#status").inner_text()
    with facemill.Search(people) as search:
        (answer,) = search.find(portraits / "somebody.jpg", k=50)
    assert shown == [(hit.path, f"{hit.score:.4f}") for hit in answer.hits]


def test_each_face_of_a_photo_is_searched_for(visit: Browse, url: str, portraits: Path, tmp_path: Path) -> None:
    photos = portraits / "photos"
    both = join_photos(tmp_path / "both.png", photos / "person3" / "0.jpg", photos / "person7" / "0.jpg")
    with visit(url + "/recognise") as page:
        choose(page, both)
        faces = page.locator(".faces button")
        faces.nth(1).wait_for()
        assert faces.count() == 2
        best = set()
        for number in range(2):
            faces.nth(number).click()
            page.get_by_text(f"for both.png, face {number + 1}").wait_for()
            assert faces.nth(number).get_attribute("aria-pressed") == "true"
            best.add(paths(page)[0].partition("/")[0])
        assert best == {"person3", "person7"}


def test_sliders_and_filters_search_again(visit: Browse, url: str, portraits: Path, people: Path) -> None:
    with visit(url + "/recognise") as page:
        choose(page, portraits / "somebody.jpg")
        page.locator("#k").fill("7")
        page.get_by_text("7 hits for").wait_for()
        page.locator("#by_folder").check()
        page.locator("#k").fill("5")
        page.get_by_text("5 hits for").wait_for()
        assert len({path.partition("/")[0] for path in paths(page)}) == 5
        page.locator("#by_folder").uncheck()
        page.locator("#k").fill("200")
        page.get_by_text("60 hits for").wait_for()
        page.locator("#threshold").fill("0.8")
        page.get_by_text("At 0.80 and above").wait_for()
        assert all(float(str(card.get_attribute("data-score"))) >= 0.8 for card in page.locator(HITS).all())
        page.locator("#threshold").fill("0")
        page.get_by_text("60 hits for").wait_for()
        page.locator("#gender").select_option("woman")
        page.get_by_text(re.compile(r"among \d+ rows: woman")).wait_for()
        shown = set(paths(page))
    women = facemill.AttributeFilter("woman")
    with facemill.open(people) as file:
        assert shown == {file.paths[row] for row in np.flatnonzero(women.rows(file))}


def test_the_keyboard_alone_recognises_and_compares(visit: Browse, url: str, portraits: Path) -> None:
    with visit(url + "/recognise") as page:
        with page.expect_file_chooser() as chooser:
            page.locator("#photos").press("Enter")
        chooser.value.set_files(portraits / "somebody.jpg")
        page.locator(HITS).first.wait_for()
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.locator(".cover:focus").count():
                break
        page.keyboard.press("Enter")
        title = page.locator("#compare-title")
        title.filter(has_text="Hit 1 of 50").wait_for()
        page.keyboard.press("ArrowRight")
        title.filter(has_text="Hit 2 of 50").wait_for()
        page.keyboard.press("Escape")
        page.locator("dialog[open]").wait_for(state="detached")
        page.locator("[aria-label='Compare with hit 2']:focus").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hits_and_comparison_are_accessible(visit: Browse, url: str, portraits: Path, scheme: str) -> None:
    for width in WIDTHS_OF[scheme]:
        with visit(url + "/recognise", width=width, scheme=scheme) as page:
            choose(page, portraits / "somebody.jpg")
            page.evaluate(LOADED)
            assert_accessible(page)
            page.locator(".cover").first.click()
            page.locator("dialog[open]").wait_for()
            assert_accessible(page)


def test_a_photo_without_a_face_and_a_file_that_is_none_are_named(visit: Browse, url: str, tmp_path: Path) -> None:
    from tests.support import encoded_images as make

    empty, damaged = tmp_path / "<b>empty.jpg", tmp_path / "damaged.jpg"
    empty.write_bytes(make.encode(make.scene(200, 200, seed=1)))
    damaged.write_bytes(b"\xff\xd8 no photo")
    with visit(url + "/recognise") as page:
        page.set_input_files("#photos", empty)
        page.get_by_text("<b>empty.jpg: no-face").wait_for()
    with visit(url + "/recognise", refused=True) as page:
        page.set_input_files("#photos", damaged)
        page.get_by_text("damaged.jpg: ").wait_for()


def test_hostile_names_are_shown_as_text(visit: Browse, portraits: Path, tmp_path: Path) -> None:
    names = ("<img src=x onerror=alert(1)>.jpg", "quo\"te'&amp;.jpg", "line\nbreak.jpg", "right\u202etfel.jpg")
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(names):
        (folder / name).write_bytes((portraits / "photos" / f"person{number}" / "0.jpg").read_bytes())
    with open(os.fsencode(folder) + b"/caf\xe9.jpg", "wb") as file:
        file.write((portraits / "photos" / "person5" / "0.jpg").read_bytes())
    facemill.process(folder, tmp_path / "hostile.h5")
    with server(tmp_path / "hostile.h5") as (_, port), visit(f"http://127.0.0.1:{port}/recognise") as page:
        choose(page, portraits / "somebody.jpg")
        assert page.evaluate(LOADED) == 5
        shown = {element.inner_text() for element in page.locator("#hits .name").all()}
        assert shown == {
            names[0],
            names[1],
            "line\\nbreak.jpg",
            "right\\u202etfel.jpg",
            "caf\\xe9.jpg",
        }
        page.locator(".cover").first.click()
        assert page.locator("#compare img, #hits img").count() == 6


def test_pictures_are_of_rows_alone_and_hold_no_metadata(url: str, people: Path, portraits: Path) -> None:
    prefix = picture_prefix(url, portraits)
    for view, side in (("small", 192), ("face", 480), ("photo", 960)):
        status, headers, content = ask(url, "GET", f"{prefix}0?view={view}")
        assert (status, headers["content-type"], headers["cache-control"]) == (200, "image/jpeg", "no-store")
        assert content.startswith(b"\xff\xd8\xff\xe0")
        assert not re.search(rb"\xff[\xe1-\xef\xfe]", content[:200])  # no EXIF, XMP, profile or comment
        assert max(size_of(content)) <= side
    for row in ("60", "-1", "0/..", "x"):
        assert ask(url, "GET", f"{prefix}{row}")[0] in (404, 422)
    assert ask(url, "GET", f"{prefix}0?view=huge")[0] == 422
    assert ask(url, "GET", "/pictures/people/0000000000000000/0")[0] == 404
    assert ask(url, "GET", "/pictures/nobody/0000000000000000/0")[0] == 404


def test_a_link_out_of_the_photos_is_refused(portraits: Path, tmp_path: Path) -> None:
    folder, secret = tmp_path / "photos", tmp_path / "secret.jpg"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.jpg").write_bytes((portraits / "photos" / f"person{number}" / "0.jpg").read_bytes())
    facemill.process(folder, tmp_path / "linked.h5")
    secret.write_bytes((portraits / "somebody.jpg").read_bytes())
    (folder / "0.jpg").unlink()
    (folder / "0.jpg").symlink_to(secret)
    (folder / "1.jpg").unlink()
    for roots, expected in (((), 403), (("--photos", tmp_path), 200)):
        with server(tmp_path / "linked.h5", *roots) as (_, port):
            url = f"http://127.0.0.1:{port}"
            prefix = picture_prefix(url, portraits, "linked")
            assert ask(url, "GET", f"{prefix}0")[0] == expected
            assert ask(url, "GET", f"{prefix}1")[0] == 404


def picture_prefix(url: str, portraits: Path, file: str = "people") -> str:
    """The path of the pictures of a file in its state now, without the row."""
    photo = (portraits / "somebody.jpg").read_bytes()
    status, _, content = ask(url, "POST", f"/api/v1/recognition?file={file}", {"Content-Type": "image/jpeg"}, photo)
    assert status == 200
    (facts,) = json.loads(ask(url, "GET", "/api/v1/files")[2])["files"]
    body = {"file": file, "model_sha256": facts["model_sha256"], "vector": json.loads(content)["faces"][0]["vector"]}
    status, _, hits = ask(url, "POST", "/recognise/hits", {"Content-Type": "application/json"}, json.dumps(body))
    assert status == 200
    match = re.search(rb'src="(/pictures/\w+/\w+/)\d+"', hits)
    assert match
    return match[1].decode()


def size_of(jpeg: bytes) -> tuple[int, int]:
    import cv2

    height, width = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape[:2]
    return height, width


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"file": "nobody"}, 404),
        ({"k": 0}, 422),
        ({"k": 201}, 422),
        ({"vector": [1.0]}, 422),
        ({"vector": [3.0] * 512}, 422),
        ({"vector": ["a"] * 512}, 422),
        ({"model_sha256": "another"}, 409),
        ({"gender": "x"}, 422),
        ({"age": "40-18"}, 422),
        ({"threshold": 2.0}, 422),
        ({"other": 1}, 400),
    ],
)
def test_questions_that_cannot_be_answered_are_problems(url: str, change: dict[str, object], status: int) -> None:
    (facts,) = json.loads(ask(url, "GET", "/api/v1/files")[2])["files"]
    body = {"file": "people", "model_sha256": facts["model_sha256"], "vector": [512**-0.5] * 512, **change}
    answer = ask(url, "POST", "/recognise/hits", {"Content-Type": "application/json"}, json.dumps(body))
    assert answer[0] == status
    assert answer[1]["content-type"] == "application/problem+json"
