"""Render and save pages. Each page is one file with its scripts and styles.

A page needs no network, and its content security policy blocks all access to it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..extras import require
from ..files import durable_file
from ..outputs import check_output
from ..regular import AnyPath
from ..storage.derived import derived_file
from ..storage.file import EmbeddingFile
from ..text import printable

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_ROOM = Path(__file__).parent


def render(
    template: str,
    *,
    styles: Iterable[str] = (),
    scripts: Sequence[str] = (),
    script_sources: str = "",
    image_sources: str = "data:",
    **values: Any,
) -> str:
    """Fill in a template. Every value is escaped, and its hidden characters are made visible.

    Args:
        template: name of a file in `templates/`, without `.html`.
        styles: names of files in `assets/`, without `.css`; they follow the style of all pages.
        scripts: texts of the scripts; the page runs no others.
        script_sources: further script sources of the content security policy.
        image_sources: where the page may load pictures from.
        values: values of the template; `data` becomes JSON for the scripts.
    Returns:
        The text of the page.
    """
    from markupsafe import Markup

    policy = f"default-src 'none'; img-src {image_sources}; style-src 'unsafe-inline'"
    if scripts:
        sources = " ".join(f"'sha256-{digest(script)}'" for script in scripts)
        policy += f"; script-src {script_sources and script_sources + ' '}{sources}"
    if "data" in values:
        values["data"] = _json_in_html(values["data"])
    return (
        environment(_ROOM)
        .get_template(f"{template}.html")
        .render(
            style=Markup("".join(asset(f"{name}.css") for name in ("page", *styles))),
            scripts=list(map(Markup, scripts)),
            policy=policy,
            **values,
        )
    )


def check_page_path(path: Path, *, force: bool, option: str = "--html", inputs: Iterable[AnyPath] = ()) -> None:
    """Check, before the work, that a page can be written.

    Args:
        path: the page.
        force: replace an existing page.
        option: the option that names the page.
        inputs: the files that the command reads.
    Raises:
        ConfigError, OutputExistsError: see `outputs.check_output`.
    """
    other = f"another file with {option}"
    check_output(path, "the page", (".html", ".htm"), force=force, inputs=inputs, other=other)


def save_page(path: Path, text: str, file: Path | EmbeddingFile | None) -> None:
    """Write a page atomically, with permissions no wider than those of the embedding file that it shows.

    Args:
        path: the page; replaced if it exists.
        text: its content.
        file: the embedding file, open if the page shows its rows. It records the page, because a person removed from
            the file is still on the page.
    Raises:
        StorageError: the page cannot be written, and an existing page is unchanged; or see `record_page`.
    """
    with durable_file(path, "the page") if file is None else derived_file(file, path, "the page") as page:
        page.write(encode(text))


def encode(text: str) -> bytes:
    """Encode a page; a byte of a path that is not UTF-8 becomes `\\xNN`."""
    return text.encode("utf-8", "backslashreplace")


def asset(name: str) -> str:
    """Read a file in `assets/`."""
    return (_ROOM / "assets" / name).read_text("utf-8")


def digest(text: str) -> str:
    """Return the SHA-256 in Base64, by which a content security policy names a script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def picture(jpeg: bytes | None) -> Markup:
    """Return the data URL of a picture; "" for none."""
    from markupsafe import Markup

    return Markup("" if jpeg is None else f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}")


def count(number: int, singular: str, plural: str) -> str:
    """Return `1 hit`, `2 hits`."""
    return f"{number:,} {singular if number == 1 else plural}"


@lru_cache(maxsize=2)
def environment(room: Path) -> Environment:
    """Make the environment of the templates of a room, which may extend and include those of this room.

    Every value is escaped, and its hidden characters are made visible.
    """
    jinja2 = require("jinja2", purpose="writing a page")

    def load(name: str) -> str:
        own = room / "templates" / name
        return (own if own.is_file() else _ROOM / "templates" / name).read_text("utf-8")

    environment: Environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(load),
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
    """Make hidden characters of text visible. `Markup` is ours and stays as it is."""
    return printable(value) if type(value) is str else value


def _json_in_html(data: Any) -> Markup:
    """Encode JSON that cannot end a script element: it is ASCII, and `<` is escaped."""
    from markupsafe import Markup

    return Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"))
