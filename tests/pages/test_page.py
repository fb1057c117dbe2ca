"""Rules of all pages: values are escaped, scripts and styles are inline, the file is written completely."""

from __future__ import annotations

import json
import stat
from importlib.resources import files
from pathlib import Path

import pytest

from runtime.errors import ConfigError, OutputExistsError
from runtime.pages import page
from runtime.pages.page import asset, check_page_path, digest, picture, render, save_page
from tests.support.browser import ParsedPage

EVIL = '</script><script>document.title="run"</script></style><img src=x onerror="alert(1)">\n\x1b[31m\u202e&amp;'
ROOM = files(page.__package__)
TEMPLATES = sorted(entry.name for entry in (ROOM / "templates").iterdir())
ASSETS = sorted(entry.name for entry in (ROOM / "assets").iterdir())


def comparison(**values: object) -> str:
    defaults = {
        "title": EVIL,
        "heading": EVIL,
        "verdict": EVIL,
        "warning": EVIL,
        "sides": [{"letter": EVIL, "path": EVIL, "picture": picture(b"jpeg"), "choice": EVIL}] * 2,
        "score_percent": 50.0,
        "threshold_percent": None,
        "rows": [(EVIL, EVIL, EVIL)],
    }
    return render("compare", styles=["compare"], **{**defaults, **values})  # type: ignore[arg-type]


def test_every_value_is_escaped_everywhere() -> None:
    text = comparison(data={EVIL: EVIL})
    parsed = ParsedPage(text)
    tags = [tag for tag, _ in parsed.tags]
    assert (tags.count("script"), tags.count("style"), tags.count("img")) == (1, 1, 2)
    for _, attributes in parsed.tags:
        assert not [name for name in attributes if name.startswith("on")]
    for hidden in ("\x1b", "\u202e"):
        assert hidden not in text
    assert [a["alt"] for tag, a in parsed.tags if tag == "img"] == [
        "Photo {0}: {0}".format(EVIL.replace("\n", "\\n").replace("\x1b", "\\x1b").replace("\u202e", "\\u202e"))
    ] * 2
    assert json.loads(parsed.scripts[0]) == {EVIL: EVIL}  # exactly: a script reads it, not a browser


def test_a_page_without_scripts_allows_none() -> None:
    policies = [a["content"] for tag, a in ParsedPage(comparison()).tags if tag == "meta" and "http-equiv" in a]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_only_the_scripts_of_the_page_are_allowed() -> None:
    parsed = ParsedPage(comparison(scripts=["1 < 2", "3"], script_sources="'unsafe-eval'"))
    (policy,) = [a["content"] for tag, a in parsed.tags if tag == "meta" and "http-equiv" in a]
    assert policy is not None
    assert policy.endswith(f"; script-src 'unsafe-eval' 'sha256-{digest('1 < 2')}' 'sha256-{digest('3')}'")
    assert parsed.scripts == ["1 < 2", "3"]  # exactly, or the browser refuses them


@pytest.mark.parametrize("name", ASSETS)
def test_an_asset_closes_no_element_and_loads_nothing(name: str) -> None:
    text = asset(name)
    for forbidden in ("</", "<!--", "http:", "https:", "@import", "url("):
        assert forbidden not in text


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_template_disables_escaping(name: str) -> None:
    text = (ROOM / "templates" / name).read_text("utf-8")
    for forbidden in ("|safe", "| safe", "autoescape", "<script>\n", "onclick", "http:", "https:"):
        assert forbidden not in text


def test_a_missing_value_is_an_error_not_an_empty_page() -> None:
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        render("compare", title="t", warning="")


def test_a_page_needs_an_html_name_a_folder_and_force_to_replace(tmp_path: Path) -> None:
    check_page_path(tmp_path / "a.html", force=False)
    check_page_path(tmp_path / "a.HTM", force=False)
    (tmp_path / "b.html").touch()
    check_page_path(tmp_path / "b.html", force=True)
    with pytest.raises(OutputExistsError):
        check_page_path(tmp_path / "b.html", force=False)
    for name in ("a.txt", "missing/a.html"):
        with pytest.raises(ConfigError):
            check_page_path(tmp_path / name, force=False)


def test_a_page_is_as_private_as_its_file(tmp_path: Path) -> None:
    (tmp_path / "people.h5").touch(0o600)
    save_page(tmp_path / "a.html", "text \udcff", tmp_path / "people.h5")
    assert (tmp_path / "a.html").read_bytes() == b"text \\udcff"
    assert stat.S_IMODE((tmp_path / "a.html").stat().st_mode) == 0o600
