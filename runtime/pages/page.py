"""What all pages have in common: templates filled in, scripts and styles carried in the page, the file written whole.

A page is one file. It needs no network, and its content security policy lets it reach nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..extras import require
from ..files import check_output, write_durable
from ..storage.derived import recording
from ..text import printable

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_ROOM = files(__package__)


def render(
    template: str,
    *,
    styles: Iterable[str] = (),
    scripts: Sequence[str] = (),
    script_sources: str = "",
    image_sources: str = "data:",
    **values: Any,
) -> str:
    """Fill in a template. Every value is escaped, and its hidden characters are made visible, wherever it stands.

    Args:
        template: a file in `templates/`, without `.html`.
        styles: files in `assets/`, without `.css`, after the style of all pages.
        scripts: texts; only these run, whatever else is in the page.
        script_sources: what else the content security policy allows to scripts.
        image_sources: where the page may load pictures from.
        values: for the template; `data` becomes JSON for the scripts.
    Returns:
        The page.
    """
    from markupsafe import Markup

    policy = f"default-src 'none'; img-src {image_sources}; style-src 'unsafe-inline'"
    if scripts:
        sources = " ".join(f"'sha256-{digest(script)}'" for script in scripts)
        policy += f"; script-src {script_sources and script_sources + ' '}{sources}"
    if "data" in values:
        values["data"] = _json_in_html(values["data"])
    return (
        _environment()
        .get_template(f"{template}.html")
        .render(
            style=Markup("".join(asset(f"{name}.css") for name in ("page", *styles))),
            scripts=list(map(Markup, scripts)),
            policy=policy,
            **values,
        )
    )


def check_page_path(path: Path, *, force: bool, option: str = "--html") -> None:
    """Check, before the work, that a page can be written.

    Args:
        path: the page.
        force: it may replace an existing page.
        option: the option that names the page.
    Raises:
        ConfigError: the name ends in neither .html nor .htm, or the folder does not exist.
        OutputExistsError: the file exists, and `force` is not given.
    """
    check_output(path, "the page", (".html", ".htm"), force=force, other=f"another file with {option}")


def save_page(path: Path, text: str, file: Path | None) -> None:
    """Write a page, whole or not at all, no more readable than the embedding file that it shows.

    Args:
        path: the page; an existing one is replaced.
        text: its content.
        file: the embedding file, which remembers the page: a person who is removed from the file is on the page too.
    Raises:
        StorageError: an existing page stays.
    """
    with nullcontext() if file is None else recording(file, path):
        write_durable(path, encode(text), "the page", like=() if file is None else file)


def encode(text: str) -> bytes:
    """A page as bytes; a byte of a path that is not UTF-8 becomes `\\xNN`."""
    return text.encode("utf-8", "backslashreplace")


def asset(name: str) -> str:
    """The text of a file in `assets/`."""
    return (_ROOM / "assets" / name).read_text("utf-8")


def digest(text: str) -> str:
    """SHA-256 in Base64, as a content security policy names a script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def picture(jpeg: bytes | None) -> Markup:
    """The address of a picture that the page carries; "" for none."""
    from markupsafe import Markup

    return Markup("" if jpeg is None else f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}")


def count(number: int, singular: str, plural: str) -> str:
    """`1 hit`, `2 hits`."""
    return f"{number:,} {singular if number == 1 else plural}"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    jinja2 = require("jinja2", purpose="writing a page")
    environment: Environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (_ROOM / "templates" / name).read_text("utf-8")),
        autoescape=True,
        finalize=_printable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda number: f"{number:,}"
    environment.globals["count"] = count
    return environment


def _printable(value: Any) -> Any:
    """Make visible what text from outside hides; `Markup` is from inside."""
    return printable(value) if type(value) is str else value


def _json_in_html(data: Any) -> Markup:
    """JSON that ends no script element: it is ASCII, and nothing in it opens a tag."""
    from markupsafe import Markup

    return Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"))
