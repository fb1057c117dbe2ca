#!/usr/bin/env python3
"""Score clusters against known people: pairwise precision, recall and F1 over thresholds, and k-means with the true k.

    python process.py LFW/ -o lfw.h5 --align largest
    python benchmarks/cluster_lfw.py lfw.h5

A photo's folder names its person. Connected components, from which Chinese whispers starts, are shown for comparison.
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
    parser.add_argument("file", type=Path, help="embedding file of LFW's photos")
    parser.add_argument("--lowest", type=float, default=0.40, help="lowest threshold; default: 0.4")
    parser.add_argument("--highest", type=float, default=0.60, help="highest threshold; default: 0.6")
    parser.add_argument("--step", type=float, default=0.02, help="step between thresholds; default: 0.02")
    options = parser.parse_args()
    thresholds = np.round(np.arange(options.lowest, options.highest + options.step / 2, options.step), 6).tolist()
    with EmbeddingFile(options.file) as file:
        person = groups_of_folders(file.names(range(file.rows))).labels
        start = time.perf_counter()
        all_links = join_pairs(list(pairs_above(file, min(thresholds))))
        compared_s = time.perf_counter() - start
        rows = [make_whispers_row(all_links, threshold, person) for threshold in thresholds]
        start = time.perf_counter()
        people = len(np.unique(person))
        kmeans = cluster_by_count(file, people)
        means_s = time.perf_counter() - start
        model = str(file.metadata["model"])
    rows.append(
        {
            "method": "k-means",
            "threshold or k": people,
            "links": "",
            "false links": "",
            "clusters": kmeans.count,
            **format_agreement(agreement(kmeans.labels.astype(np.int64), person)),
            "F1 over seeds": "",
            "F1 of components": "",
            "s": f"{means_s:.2f}",
        }
    )
    write_results(
        f"cluster_lfw_{model}",
        f"Clusters of LFW's {len(person):,} photos of {people:,} people, {model}",
        rows,
        [
            "Counted in pairs of photos. Precision: share of pairs in one cluster that show one person. Recall: share "
            "of pairs of one person that are in one cluster",
            f"F1 over seeds: lowest and highest of {SEEDS} seeds; the other columns use seed 0",
            f"s: time from links to clusters; comparing all pairs once took {compared_s:.2f} s",
        ],
    )


def make_whispers_row(all_links: ScoredPairs, threshold: float, person: np.ndarray) -> dict[str, object]:
    """Cluster by the links at or above a threshold, and score the result."""
    selected = all_links.scores >= np.float32(threshold)
    links = ScoredPairs(all_links.first[selected], all_links.second[selected], all_links.scores[selected])
    start = time.perf_counter()
    labels, _ = find_people(links, len(person))
    taken_s = time.perf_counter() - start
    f1_by_seed = [agreement(find_people(links, len(person), seed=seed)[0], person).f1 for seed in range(SEEDS)]
    return {
        "method": "whispers",
        "threshold or k": f"{threshold:g}",
        "links": len(links),
        "false links": int((person[links.first] != person[links.second]).sum()),
        "clusters": len(np.unique(labels)),
        **format_agreement(agreement(labels, person)),
        "F1 over seeds": f"{min(f1_by_seed):.4f} to {max(f1_by_seed):.4f}",
        "F1 of components": f"{agreement(connected_components(links, len(person)), person).f1:.4f}",
        "s": f"{taken_s:.2f}",
    }


def format_agreement(result: Agreement) -> dict[str, object]:
    return {name: f"{getattr(result, name):.4f}" for name in ("precision", "recall", "f1")}


if __name__ == "__main__":
    main()
