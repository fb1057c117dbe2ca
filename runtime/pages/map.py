"""An embedding file to a map: which rows, where, in which colours, with which pictures."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from ..extras import require
from ..files import write_durable
from ..index.takerows import take_rows
from ..records import FacePlace
from ..search.embedder import query_limits
from ..storage.derived import recording
from ..storage.file import EmbeddingFile
from .map_groups import Groups, group
from .map_page import Map, page_of
from .map_projection import LEAST, project, sample_rows
from .search_page import check_page_path
from .thumbnails import thumbnails

logger = logging.getLogger(__name__)

PICTURE_SIDE = 88  # pixels
_GONE = "the photograph cannot be shown"


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a map shows.

    Attributes:
        shown, rows: embeddings on the map, and in the file.
        groups: of those shown.
        gone: how many of those shown have no picture, their photograph being gone or damaged; 0 if none was wanted.
        warning: of the embeddings; empty for none.
    """

    shown: int
    rows: int
    groups: Groups
    gone: int
    warning: str

    def facts(self) -> str:
        """In a line."""
        of = f"all {self.rows:,}" if self.shown == self.rows else f"{self.shown:,} of {self.rows:,}"
        words = f"{of} embeddings, {len(self.groups.names):,} {self.groups.kind}"
        words += "" if len(self.groups.names) == 1 else "s"
        return words + (f", {self.gone:,} without a picture: their photographs cannot be shown" if self.gone else "")


def draw_map(
    gallery: EmbeddingFile,
    output: Path,
    *,
    color: str = "auto",
    limit: int = 5000,
    seed: int = 0,
    pictures: bool = True,
    force: bool = False,
) -> Drawn:
    """Write the map of a file, whole or not at all.

    Args:
        gallery: an open embedding file.
        output: ends in .html.
        color: "folder", "cluster" or "auto"; see `groups.group`.
        limit: embeddings on the map at most, drawn evenly from the file.
        seed: of the draw and the projection.
        pictures: whether photographs are read.
        force: replace an existing page.
    Raises:
        ConfigError: there are too few embeddings, or `output` is no place for a page.
        MissingDependencyError: scikit-learn or Plotly is not installed.
        OutputExistsError, StorageError: as their messages say; an existing page stays.
    """
    check_page_path(output, force=force, option="-o")
    for module in ("plotly", "sklearn"):
        require(module, extra="map", purpose="drawing a map")
    if gallery.rows < LEAST:
        raise ConfigError(
            f"{gallery.path} holds {gallery.rows} embeddings; wanted: {LEAST} or more for a map. Embed more "
            f"photographs with: facemill process PHOTOS -o OTHER.h5"
        )
    rows = sample_rows(gallery.rows, limit, seed)
    vectors = take_rows(gallery.blocks(), rows, gallery.dimension)  # (n, D)
    paths = gallery.names(rows.tolist())
    logger.info("arranging %s of %s embeddings", f"{len(rows):,}", f"{gallery.rows:,}")
    groups = group(color, paths, vectors)
    places = project(vectors, seed)
    shown = _Shown([""] * len(rows), [None] * len(rows), 0)
    if pictures:
        logger.info("reading photographs")
        shown = _show(gallery, rows.tolist())
    drawn = Drawn(len(rows), gallery.rows, groups, shown.gone, str(gallery.metadata.get("warning", "")))
    photographs, model = gallery.metadata.get("embedded", gallery.rows), gallery.metadata.get("model", "unknown")
    facts = f"{drawn.facts()} \u00b7 {photographs:,} photographs in the file \u00b7 model {model} \u00b7 seed {seed}"
    title = f"Map of {gallery.path.name}"
    page = page_of(Map(title, facts, drawn.warning, places, groups, paths, shown.notes, shown.pictures))
    with recording(gallery.path, output):
        write_durable(output, page.encode(), "the map")
    return drawn


@dataclass(frozen=True, slots=True)
class _Shown:
    """Of n points what a box shows beyond path and group; `gone` have no picture and should have one."""

    notes: list[str]
    pictures: list[bytes | None]
    gone: int


def _show(gallery: EmbeddingFile, rows: list[int]) -> _Shown:
    faces = gallery.face_places(rows)
    boxes = [None if face is None else face.box for face in faces]
    pictures = thumbnails([gallery.photo_path(row) for row in rows], boxes, query_limits(gallery), side=PICTURE_SIDE)
    return _Shown(list(map(_note, faces, pictures)), pictures, pictures.count(None))


def _note(face: FacePlace | None, jpeg: bytes | None) -> str:
    """What there is to say of a point beyond its path and group."""
    rank = 0 if face is None else face.index
    return ", ".join([*([f"face {rank + 1} in it"] if rank else []), *([_GONE] if jpeg is None else [])])
