"""Which photographs belong together: the rows of a file in clusters, by a threshold or for a known number of people."""

from __future__ import annotations

import logging

from ..errors import ConfigError
from ..interrupt import Control
from ..pairs.pairs import Wanted, find_pairs
from ..pairs.parts import Parts
from ..progress import Listener
from ..storage.comparable import find_calibration
from ..storage.file import EmbeddingFile
from .clusters import Clusters, number
from .kmeans import split_into
from .whispers import people_of

# Photographs of other people that one photograph is linked with, on average. Whispers see through a false link here and
# there, as long as most links of a photograph are right.
FALSE_LINKS = 0.02

logger = logging.getLogger(__name__)


def by_threshold(
    gallery: EmbeddingFile,
    parts: Parts,
    wanted: Wanted,
    *,
    seed: int = 0,
    force: bool = False,
    listener: Listener | None = None,
    control: Control | None = None,
) -> Clusters:
    """Link all pairs of rows that reach a threshold, and find the people in the graph; see `whispers`.

    Two faces of one photograph are not linked.

    Args:
        gallery: an open embedding file.
        parts: of that file, as for `find_pairs`: the search goes on with what an unfinished one has left.
        wanted: of the links; the threshold is above 0.
        seed: of `people_of`.
        force: as for `find_pairs`.
        listener: shows the progress; None logs a line every five seconds.
        control: pauses and stops the search for links; None for neither.
    Raises:
        TooManyPairsError: the threshold is so low that there are more links.
        ConfigError, MissingDependencyError, EngineError, StorageError, Interrupted: as their messages say.
    """
    if not 0 < wanted.threshold <= 1:
        raise ConfigError(f"the threshold is {wanted.threshold}; wanted: above 0, and at most 1")
    links = find_pairs(gallery, parts, wanted, force=force, listener=listener, control=control)
    if links.share is not None:
        logger.warning("the links: %s", links.method())
    labels, scores = people_of(links.found, gallery.rows, seed=seed)
    return number(labels, scores, method="whispers", threshold=wanted.threshold, seed=seed)


def for_people(gallery: EmbeddingFile, k: int, *, seed: int = 0, listener: Listener | None = None) -> Clusters:
    """Split all rows among k people by k-means; see `kmeans.split_into`."""
    labels, scores = split_into(gallery, k, seed=seed, listener=listener)
    return number(labels, scores, method="k-means", k=k, seed=seed)


def usual_threshold(gallery: EmbeddingFile) -> float:
    """The lowest threshold at which a photograph is linked with FALSE_LINKS strangers at most, by the calibration.

    Where the calibration has too few pairs to show so few, it is the lowest at which it has none, and the log says so.

    Raises:
        ConfigError: the file carries no calibration.
    """
    calibration = find_calibration(gallery)
    if calibration is None:
        raise ConfigError(
            f"who belongs together in {gallery.path} is not decided: it carries no calibration that gives a threshold. "
            f"Name one with --threshold, or the number of people with -k, or calibrate the file with: "
            f"facemill evaluate FOLDER --calibrate {gallery.path}"
        )
    found = calibration.lowest(FALSE_LINKS, gallery.rows)
    if found is None:
        logger.warning(
            "the calibration's %s pairs are too few to show that a photograph is linked with %g strangers among %s: "
            "the threshold is %.3f, which none of them reached. Look at the sheets",
            f"{calibration.pairs:,}",
            FALSE_LINKS,
            f"{gallery.rows:,}",
            calibration.beyond,
        )
        found = min(calibration.beyond, 1.0)
    return found
