"""Draw an embedding file as a map: choose rows, and find their positions, colours and pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ..clusters.clusters import FALSE_LINKS, number_clusters
from ..clusters.graph import find_people
from ..clusters.outputs import COLUMN
from ..errors import ConfigError
from ..extras import require
from ..pairs.all_pairs import ScoredPairs
from ..pipeline.contract import limits_of
from ..records import FacePlace
from ..storage.calibration import find_calibration
from ..storage.file import EmbeddingFile
from .map_page import Groups, MapPage, render_map
from .map_projection import MIN_ROWS, project, sample_rows
from .page import check_page_path, count, save_page
from .thumbnails import thumbnails

logger = logging.getLogger(__name__)

COLORS = ("auto", "cluster", "folder")
PICTURE_SIDE = 88  # pixels
_COLOURED_FOLDERS = range(2, 51)  # numbers of folders that colours can show; otherwise clusters say more
_BLOCK_ROWS = 1024
_RANDOM_PAIRS = 200_000
_NO_PICTURE = "the photo cannot be shown"


@dataclass(frozen=True, slots=True)
class MapReport:
    """Content of a map.

    Attributes:
        shown: embeddings on the map.
        rows: embeddings in the file.
        groups: groups of the embeddings on the map.
        missing: embeddings without a picture, because their photo is missing or damaged; 0 for a map without pictures.
        warning: warning about the embeddings; empty for none.
    """

    shown: int
    rows: int
    groups: Groups
    missing: int
    warning: str

    def facts(self) -> str:
        """Summarise the map in one line."""
        shown = f"all {self.rows:,}" if self.shown == self.rows else f"{self.shown:,} of {self.rows:,}"
        groups = count(len(self.groups.names), self.groups.kind, f"{self.groups.kind}s")
        missing = f", {self.missing:,} without a picture: their photos cannot be shown" if self.missing else ""
        return f"{shown} embeddings, {groups}{missing}"


def draw_map(
    embeddings: EmbeddingFile,
    output: Path,
    *,
    color: str = "auto",
    limit: int = 5000,
    seed: int = 0,
    pictures: bool = True,
    force: bool = False,
) -> MapReport:
    """Write the map of a file, atomically.

    Args:
        embeddings: an open embedding file.
        output: ends in .html.
        color: one of COLORS; see `group_rows`.
        limit: most embeddings on the map, drawn evenly from the file.
        seed: random seed of the sample, the clusters and the projection.
        pictures: whether to read photos and show them.
        force: replace an existing page.
    Raises:
        ConfigError: the file has too few embeddings, `output` does not end in .html, or its folder does not exist.
        MissingDependencyError: scikit-learn or Plotly is not installed.
        OutputExistsError: the page exists and `force` is false.
        StorageError: the file is damaged, or the page cannot be written; an existing page is unchanged.
    """
    check_page_path(output, force=force, option="-o")
    for module in ("plotly", "sklearn"):
        require(module, extra="map", purpose="drawing a map")
    if embeddings.rows < MIN_ROWS:
        raise ConfigError(
            f"{embeddings.path} holds {embeddings.rows} embeddings; expected: {MIN_ROWS} or more for a map. Embed more "
            f"photos with: facemill process PHOTOS -o OTHER.h5"
        )
    rows = sample_rows(embeddings.rows, limit, seed)
    vectors = embeddings.vectors_of(rows)  # (n, D)
    paths = embeddings.names(rows.tolist())
    logger.info("arranging %s of %s embeddings", f"{len(rows):,}", f"{embeddings.rows:,}")
    groups = group_rows(embeddings, rows, paths, vectors, color, seed)
    positions = project(vectors, seed)
    notes: list[str] = [""] * len(rows)
    jpegs: list[bytes | None] = [None] * len(rows)
    if pictures:
        logger.info("reading photos")
        notes, jpegs = _read_photos(embeddings, rows.tolist())
    missing = jpegs.count(None) if pictures else 0
    report = MapReport(len(rows), embeddings.rows, groups, missing, str(embeddings.metadata.get("warning", "")))
    facts = [
        report.facts(),
        f"colours: {groups.origin}",
        f"{embeddings.metadata.get('embedded', embeddings.rows):,} photos in the file",
        f"model {embeddings.metadata.get('model', 'unknown')}",
        f"seed {seed}",
    ]
    page = MapPage(f"Map of {embeddings.path.name}", facts, report.warning, positions, groups, paths, notes, jpegs)
    save_page(output, render_map(page), embeddings)
    return report


def group_rows(
    embeddings: EmbeddingFile,
    rows: NDArray[np.int64],
    paths: Sequence[str],
    vectors: NDArray[np.float32],
    color: str,
    seed: int,
) -> Groups:
    """Group the points of a map, for their colours.

    Args:
        embeddings: an open embedding file.
        rows: (n,) int64, rows of the points.
        paths: n entries of `/image_paths`.
        vectors: (n, D) float32, unit rows.
        color: "folder": by sub-folder of each photo. "cluster": by the column `/cluster`, which `facemill cluster`
            writes, or, in a file without it, by clusters of the n points alone. "auto": by the column if it exists,
            else by 2 to 50 folders, else by clusters of the points.
        seed: random seed of the clusters of the points.
    """
    if color != "folder" and embeddings.has_column(COLUMN):
        return groups_of_column(np.asarray(embeddings.column(COLUMN, 0, embeddings.rows)[rows], np.int64))
    if color != "cluster":
        folders = groups_of_folders(paths)
        if color == "folder" or len(folders.names) in _COLOURED_FOLDERS:
            return folders
    calibration = find_calibration(embeddings)
    if calibration is None:
        return groups_of_vectors(vectors, estimate_threshold(vectors, seed), "estimated from their scores", seed)
    lowest = calibration.lowest(FALSE_LINKS, len(rows))
    return groups_of_vectors(vectors, lowest or min(calibration.beyond, 1.0), "from the calibration", seed)


def groups_of_folders(paths: Sequence[str]) -> Groups:
    """Group points by the first folder of each path, as `facemill evaluate` does; -1 for a photo in no folder.

    Args:
        paths: n paths below the root.
    """
    folders = [path.split("/")[0] if "/" in path else None for path in paths]
    numbers = {name: i for i, name in enumerate(sorted({folder for folder in folders if folder is not None}))}
    labels = np.array([-1 if folder is None else numbers[folder] for folder in folders], np.int64)
    return _largest_first("folder", "folders of the photos", labels, tuple(numbers))


def groups_of_column(clusters: NDArray[np.int64]) -> Groups:
    """Group points by the column that `facemill cluster` writes.

    Args:
        clusters: (n,) int64, values of `/cluster`; 0 for a row in no cluster.
    """
    numbers, labels = np.unique(clusters, return_inverse=True)
    if len(numbers) and numbers[0] == 0:
        numbers, labels = numbers[1:], labels - 1
    names = tuple(f"cluster {number}" for number in numbers.tolist())
    return _largest_first("cluster", "clusters in the file, from facemill cluster", labels.reshape(-1), names)


def groups_of_vectors(vectors: NDArray[np.float32], threshold: float, reason: str, seed: int) -> Groups:
    """Cluster the points alone, as `facemill cluster` clusters a file; -1 for a point without links.

    Args:
        vectors: (n, D) float32, unit rows.
        threshold: lowest score of a link, above 0.
        reason: source of the threshold.
        seed: random seed of the clusters.
    """
    labels, scores = find_people(_links(vectors, threshold), len(vectors), seed=seed)
    clusters = number_clusters(labels, scores, method="whispers", threshold=threshold, seed=seed)
    shared = clusters.count_at_least(2)
    labels = np.where(clusters.labels <= shared, clusters.labels, 0).astype(np.int64) - 1
    origin = f"clusters of the embeddings shown, at threshold {threshold:.3f} {reason}"
    return Groups("cluster", origin, labels, tuple(f"cluster {i + 1}" for i in range(shared)))


def estimate_threshold(vectors: NDArray[np.float32], seed: int) -> float:
    """Estimate a threshold for a file without a calibration. It is good enough for colours only.

    Nearly all pairs of faces are of two people. Their scores are taken as normal around the median. Their spread is the
    median absolute deviation, which pairs of one person hardly change. At the threshold, a face has FALSE_LINKS false
    links on average.

    Args:
        vectors: (n, D) float32, unit rows, n at least 2.
        seed: random seed of the sampled pairs.
    """
    first, second = np.random.default_rng(seed).integers(0, len(vectors), (2, _RANDOM_PAIRS))
    different = first != second
    first, second = first[different], second[different]
    scores = np.concatenate(
        [
            np.einsum("nd,nd->n", vectors[first[start : start + 8192]], vectors[second[start : start + 8192]])
            for start in range(0, len(first), 8192)
        ]
    )
    median = float(np.median(scores))
    spread = float(np.median(np.abs(scores - median))) / NormalDist().inv_cdf(0.75)
    tail = NormalDist().inv_cdf(1 - min(0.5, FALSE_LINKS / max(1, len(vectors) - 1)))
    return min(max(median + tail * spread, 0.001), 1.0)


def _links(vectors: NDArray[np.float32], threshold: float) -> ScoredPairs:
    """Find all pairs of rows that reach a threshold."""
    parts = []
    for start in range(0, len(vectors), _BLOCK_ROWS):
        scores = vectors[start : start + _BLOCK_ROWS] @ vectors[start:].T  # (b, n - start)
        first, second = np.nonzero(np.triu(scores >= threshold, 1))
        parts.append((first + start, second + start, scores[first, second]))
    first, second, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    return ScoredPairs(first.astype(np.int64), second.astype(np.int64), scores.astype(np.float32))


def _largest_first(kind: str, origin: str, labels: NDArray[np.int64], names: tuple[str, ...]) -> Groups:
    """Number the groups by size; equal groups keep their order."""
    order = np.argsort(-np.bincount(labels[labels >= 0], minlength=len(names)), kind="stable")
    new_label = np.append(np.argsort(order), -1)  # the last element is for label -1
    return Groups(kind, origin, new_label[labels], tuple(names[i] for i in order))


def _read_photos(embeddings: EmbeddingFile, rows: list[int]) -> tuple[list[str], list[bytes | None]]:
    """Return the note and the picture of each point."""
    faces = embeddings.face_places(rows)
    jpegs = thumbnails(
        [embeddings.photo_path(row) for row in rows], faces, limits_of(embeddings.contract), side=PICTURE_SIDE
    )
    return list(map(_note, faces, jpegs)), jpegs


def _note(face: FacePlace | None, jpeg: bytes | None) -> str:
    rank, page = (0, None) if face is None else (face.index, face.page)
    places = [*([f"face {rank + 1} in it"] if rank else []), *([f"page {page}"] if page else [])]
    return ", ".join([*places, *([_NO_PICTURE] if jpeg is None else [])])
