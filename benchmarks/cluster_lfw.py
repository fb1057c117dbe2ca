#!/usr/bin/env python3
"""Clusters against known people: pairwise precision, recall and F1 over thresholds, and k-means with the true number.

    python process.py LFW/ -o lfw.h5 --align largest
    python benchmarks/cluster_lfw.py lfw.h5

The folder of a photograph is who it shows. Beside Chinese whispers stands what it starts from: connected components.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from material import ROOT  # noqa: F401 - puts the checkout on the path
from report import write_results

from runtime.clusters.clusters import cluster_by_count
from runtime.clusters.graph import connected_components, find_people
from runtime.pages.map import groups_of_folders
from runtime.pairs.all_pairs import ScoredPairs, join_pairs, pairs_above
from runtime.storage.file import EmbeddingFile
from tests.oracles.agreement import Agreement, agreement

SEEDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="an embedding file of LFW's photographs")
    parser.add_argument("--lowest", type=float, default=0.40)
    parser.add_argument("--highest", type=float, default=0.60)
    parser.add_argument("--step", type=float, default=0.02)
    options = parser.parse_args()
    thresholds = np.round(np.arange(options.lowest, options.highest + options.step / 2, options.step), 6).tolist()
    with EmbeddingFile(options.file) as gallery:
        person = groups_of_folders(gallery.names(range(gallery.rows))).labels
        start = time.perf_counter()
        every = join_pairs(list(pairs_above(gallery, min(thresholds))))
        compared_s = time.perf_counter() - start
        rows = [whispers_row(every, threshold, person) for threshold in thresholds]
        start = time.perf_counter()
        people = len(np.unique(person))
        means = cluster_by_count(gallery, people)
        means_s = time.perf_counter() - start
        model = str(gallery.metadata["model"])
    rows.append(
        {
            "method": "k-means",
            "threshold or k": people,
            "links": "",
            "false links": "",
            "clusters": means.count,
            **figures(agreement(means.labels.astype(np.int64), person)),
            "F1 over seeds": "",
            "F1 of components": "",
            "s": f"{means_s:.2f}",
        }
    )
    write_results(
        f"cluster_lfw_{model}",
        f"Clusters of LFW's {len(person):,} photographs of {people:,} people, {model}",
        rows,
        [
            "Pairs of photographs: precision is the share of one person among those in one cluster, recall the share "
            "in one cluster among those of one person",
            f"F1 over seeds: the lowest and highest of {SEEDS} seeds; the other columns are of seed 0",
            f"s: from the links to clusters; comparing all pairs took {compared_s:.2f} s once",
        ],
    )


def whispers_row(every: ScoredPairs, threshold: float, person: np.ndarray) -> dict[str, object]:
    """What the links above a threshold give."""
    kept = every.scores >= np.float32(threshold)
    links = ScoredPairs(every.first[kept], every.second[kept], every.scores[kept])
    start = time.perf_counter()
    labels, _ = find_people(links, len(person))
    taken_s = time.perf_counter() - start
    others = [agreement(find_people(links, len(person), seed=seed)[0], person).f1 for seed in range(SEEDS)]
    return {
        "method": "whispers",
        "threshold or k": f"{threshold:g}",
        "links": len(links),
        "false links": int((person[links.first] != person[links.second]).sum()),
        "clusters": len(np.unique(labels)),
        **figures(agreement(labels, person)),
        "F1 over seeds": f"{min(others):.4f} to {max(others):.4f}",
        "F1 of components": f"{agreement(connected_components(links, len(person)), person).f1:.4f}",
        "s": f"{taken_s:.2f}",
    }


def figures(found: Agreement) -> dict[str, object]:
    return {name: f"{getattr(found, name):.4f}" for name in ("precision", "recall", "f1")}


if __name__ == "__main__":
    main()
