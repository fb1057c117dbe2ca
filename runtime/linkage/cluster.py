"""Which photographs belong together: the rows of a file in clusters, by a threshold or for a known number of people."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from ..errors import ConfigError
from ..index.gallery import Gallery
from ..pipeline.comparable import find_calibration
from .blocks import Found, Tiling, pairs_above
from .clusters import Clusters, number
from .eta import Eta
from .kmeans import split_into
from .links import MOST_LINKS, gather_links
from .products import open_products
from .whispers import people_of

# Photographs of other people that one photograph is linked with, on average. Whispers see through a false link here and
# there, as long as most links of a photograph are right.
FALSE_LINKS = 0.02

logger = logging.getLogger(__name__)


def by_threshold(
    gallery: Gallery, threshold: float, *, seed: int = 0, device: str = "auto", most: int = MOST_LINKS
) -> Clusters:
    """Link all pairs of rows that reach a threshold, and find the people in the graph; see `whispers`.

    Args:
        gallery: an open embedding file.
        threshold: above 0.
        seed: of `people_of`.
        device: where scores are computed, as for `open_products`.
        most: links that are kept.
    Raises:
        ConfigError: the threshold is out of range, or so low that there are more links.
        MissingDependencyError, EngineError, StorageError: as their messages say.
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"the threshold is {threshold}; wanted: above 0, and at most 1")
    links = gather_links(_compared(gallery, threshold, device, most), gallery.rows, most=most)
    labels, scores = people_of(links, seed=seed)
    return number(labels, scores, method="whispers", threshold=threshold, seed=seed)


def for_people(gallery: Gallery, k: int, *, seed: int = 0) -> Clusters:
    """Split all rows among k people by k-means; see `kmeans.split_into`."""
    labels, scores = split_into(gallery, k, seed=seed, say=Eta())
    return number(labels, scores, method="k-means", k=k, seed=seed)


def usual_threshold(gallery: Gallery) -> float:
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
    counts = calibration.at_least
    enough = FALSE_LINKS * calibration.pairs / max(1, gallery.rows)  # false pairs of the calibration
    place = next(i for i, count in enumerate(counts) if count <= enough)
    threshold = (calibration.first + place) / 1000
    if counts[place] == 0 and enough < 3:  # the rule of three, as in Calibration
        logger.warning(
            "the calibration's %s pairs are too few to show %g false links a photograph among %s: the threshold is "
            "%.3f, at which it has none. There may be more false links; look at the sheets",
            f"{calibration.pairs:,}",
            FALSE_LINKS,
            f"{gallery.rows:,}",
            threshold,
        )
    return threshold


def _compared(gallery: Gallery, threshold: float, device: str, most: int) -> Iterator[tuple[Found, float]]:
    """All pairs above the threshold, with the share of all pairs that is compared; the log tells it."""
    tiling, eta = Tiling(gallery.rows), Eta()
    wanted = max(1, gallery.rows * (gallery.rows - 1) // 2)
    products = open_products(device)
    done = links = 0
    found = pairs_above(gallery, threshold, tiling=tiling, products=products, most=most)
    for block, some in zip(tiling.blocks(), found, strict=True):
        done += tiling.pairs(block)
        links += len(some)
        eta("comparing", done / wanted, f"{links:,} links")
        yield some, done / wanted
