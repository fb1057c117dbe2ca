"""An embedding file as a map: the rows to show, their places, colours and pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ..clusters.clusters import FALSE_LINKS, number_clusters
from ..clusters.graph import people_in_graph
from ..clusters.outputs import COLUMN
from ..errors import ConfigError
from ..extras import require
from ..pairs.all_pairs import ScoredPairs
from ..pipeline.contract import limits_of
from ..records import FacePlace
from ..storage.calibration import find_calibration
from ..storage.file import EmbeddingFile
from .map_page import Groups, MapPage, render_map
from .map_projection import LEAST, project, sample_rows
from .page import check_page_path, save_page
from .thumbnails import thumbnails

logger = logging.getLogger(__name__)

COLORS = ("auto", "cluster", "folder")
PICTURE_SIDE = 88  # pixels
_FOLDERS = range(2, 51)  # folders that colours can tell apart; of more or fewer, clusters say more
_BLOCK_ROWS = 1024
_RANDOM_PAIRS = 200_000
_GONE = "the photo cannot be shown"


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a map shows.

    Attributes:
        shown: embeddings on the map.
        rows: embeddings in the file.
        groups: of those shown.
        gone: embeddings shown without a picture, since their photo is missing or damaged; 0 for a map without pictures.
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
        return words + (f", {self.gone:,} without a picture: their photos cannot be shown" if self.gone else "")


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
        color: one of COLORS; see `group_rows`.
        limit: embeddings on the map at most, drawn evenly from the file.
        seed: of the draw, the clusters and the projection.
        pictures: whether photos are read.
        force: replace an existing page.
    Raises:
        ConfigError: there are too few embeddings, or `output` is no place for a page.
        MissingDependencyError: scikit-learn or Plotly is not installed.
        OutputExistsError: the page exists, and `force` is not given.
        StorageError: the file is damaged, or the page cannot be written; an existing page stays.
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
    vectors = gallery.vectors_of(rows)  # (n, D)
    paths = gallery.names(rows.tolist())
    logger.info("arranging %s of %s embeddings", f"{len(rows):,}", f"{gallery.rows:,}")
    groups = group_rows(gallery, rows, paths, vectors, color, seed)
    places = project(vectors, seed)
    notes: list[str] = [""] * len(rows)
    jpegs: list[bytes | None] = [None] * len(rows)
    if pictures:
        logger.info("reading photos")
        notes, jpegs = _read_photos(gallery, rows.tolist())
    gone = jpegs.count(None) if pictures else 0
    drawn = Drawn(len(rows), gallery.rows, groups, gone, str(gallery.metadata.get("warning", "")))
    facts = [
        drawn.facts(),
        f"colours: {groups.origin}",
        f"{gallery.metadata.get('embedded', gallery.rows):,} photos in the file",
        f"model {gallery.metadata.get('model', 'unknown')}",
        f"seed {seed}",
    ]
    page = MapPage(f"Map of {gallery.path.name}", facts, drawn.warning, places, groups, paths, notes, jpegs)
    save_page(output, render_map(page), gallery.path)
    return drawn


def group_rows(
    gallery: EmbeddingFile,
    rows: NDArray[np.int64],
    paths: Sequence[str],
    vectors: NDArray[np.float32],
    color: str,
    seed: int,
) -> Groups:
    """What the colours of a map say.

    Args:
        gallery: an open embedding file.
        rows: (n,) int64, of the points.
        paths: n entries of `/image_paths`.
        vectors: (n, D) float32, unit rows.
        color: "folder": the sub-folder of each photo. "cluster": the column `/cluster` of the file, which
            `facemill cluster` writes; in a file without that column, clusters of the n points alone. "auto": the column
            if the file has it, else 2 to 50 folders, else clusters of the points.
        seed: of those clusters.
    """
    if color != "folder" and gallery.has_column(COLUMN):
        return groups_of_column(np.asarray(gallery.column(COLUMN, 0, gallery.rows)[rows], np.int64))
    if color != "cluster":
        folders = groups_of_folders(paths)
        if color == "folder" or len(folders.names) in _FOLDERS:
            return folders
    calibration = find_calibration(gallery)
    if calibration is None:
        return groups_of_vectors(vectors, estimate_threshold(vectors, seed), "estimated from their scores", seed)
    lowest = calibration.lowest(FALSE_LINKS, len(rows))
    return groups_of_vectors(vectors, lowest or min(calibration.beyond, 1.0), "from the calibration", seed)


def groups_of_folders(paths: Sequence[str]) -> Groups:
    """Groups by the first folder of each path, as `facemill evaluate` knows people; -1 for a photo in none.

    Args:
        paths: n paths below the root.
    """
    folders = [path.split("/")[0] if "/" in path else None for path in paths]
    numbers = {name: i for i, name in enumerate(sorted({folder for folder in folders if folder is not None}))}
    labels = np.array([-1 if folder is None else numbers[folder] for folder in folders], np.int64)
    return _largest_first("folder", "folders of the photos", labels, tuple(numbers))


def groups_of_column(clusters: NDArray[np.int64]) -> Groups:
    """Groups by the numbers of `facemill cluster`.

    Args:
        clusters: (n,) int64, of `/cluster`; 0 for a row in no cluster.
    """
    numbers, labels = np.unique(clusters, return_inverse=True)
    if len(numbers) and numbers[0] == 0:
        numbers, labels = numbers[1:], labels - 1
    names = tuple(f"cluster {number}" for number in numbers.tolist())
    return _largest_first("cluster", "clusters in the file, from facemill cluster", labels.reshape(-1), names)


def groups_of_vectors(vectors: NDArray[np.float32], threshold: float, reason: str, seed: int) -> Groups:
    """Clusters of the points alone, made as `facemill cluster` makes those of a file; -1 for a face like no other.

    Args:
        vectors: (n, D) float32, unit rows.
        threshold: two faces that reach it are linked; above 0.
        reason: where the threshold comes from.
        seed: of the clusters.
    """
    labels, scores = people_in_graph(_links(vectors, threshold), len(vectors), seed=seed)
    clusters = number_clusters(labels, scores, method="whispers", threshold=threshold, seed=seed)
    shared = clusters.with_at_least(2)
    of = np.where(clusters.of <= shared, clusters.of, 0).astype(np.int64) - 1
    origin = f"clusters of the embeddings shown, at threshold {threshold:.3f} {reason}"
    return Groups("cluster", origin, of, tuple(f"cluster {i + 1}" for i in range(shared)))


def estimate_threshold(vectors: NDArray[np.float32], seed: int) -> float:
    """A threshold for colours only, for a file that carries no calibration.

    Nearly all pairs of faces are of two people. Their scores are taken as normal around the median, with a spread that
    pairs of one person do not move (the median absolute deviation); at the threshold, a face is linked with FALSE_LINKS
    strangers on average.

    Args:
        vectors: (n, D) float32, unit rows, n at least 2.
        seed: of the pairs that are drawn.
    """
    first, second = np.random.default_rng(seed).integers(0, len(vectors), (2, _RANDOM_PAIRS))
    different = first != second
    first, second = first[different], second[different]
    scores = np.concatenate(
        [
            np.einsum("nd,nd->n", vectors[first[at : at + 8192]], vectors[second[at : at + 8192]])
            for at in range(0, len(first), 8192)
        ]
    )
    median = float(np.median(scores))
    spread = float(np.median(np.abs(scores - median))) / NormalDist().inv_cdf(0.75)
    tail = NormalDist().inv_cdf(1 - min(0.5, FALSE_LINKS / max(1, len(vectors) - 1)))
    return min(max(median + tail * spread, 0.001), 1.0)


def _links(vectors: NDArray[np.float32], threshold: float) -> ScoredPairs:
    """All pairs of rows that reach a threshold."""
    parts = []
    for start in range(0, len(vectors), _BLOCK_ROWS):
        scores = vectors[start : start + _BLOCK_ROWS] @ vectors[start:].T  # (b, n - start)
        first, second = np.nonzero(np.triu(scores >= threshold, 1))
        parts.append((first + start, second + start, scores[first, second]))
    first, second, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    return ScoredPairs(first.astype(np.int64), second.astype(np.int64), scores.astype(np.float32))


def _largest_first(kind: str, origin: str, labels: NDArray[np.int64], names: tuple[str, ...]) -> Groups:
    """Number the groups by size; among equals the order stays."""
    order = np.argsort(-np.bincount(labels[labels >= 0], minlength=len(names)), kind="stable")
    new = np.append(np.argsort(order), -1)  # the last one is for label -1
    return Groups(kind, origin, new[labels], tuple(names[i] for i in order))


def _read_photos(gallery: EmbeddingFile, rows: list[int]) -> tuple[list[str], list[bytes | None]]:
    """What the box shows of each point beyond its path and group, and its picture."""
    faces = gallery.face_places(rows)
    boxes = [None if face is None else face.box for face in faces]
    jpegs = thumbnails([gallery.photo_path(row) for row in rows], boxes, limits_of(gallery.contract), side=PICTURE_SIDE)
    return list(map(_note, faces, jpegs)), jpegs


def _note(face: FacePlace | None, jpeg: bytes | None) -> str:
    rank = 0 if face is None else face.index
    return ", ".join([*([f"face {rank + 1} in it"] if rank else []), *([_GONE] if jpeg is None else [])])
