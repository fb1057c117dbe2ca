"""What commands say about their results, line by line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..sources.kinds import passed_over_text
from ..text import count, printable
from .tables import align, stage_lines

if TYPE_CHECKING:
    from ..api.people import ClusterReport
    from ..pipeline.summary import Summary
    from ..search.compare import Comparison

_VERDICTS = {"same": "one person", "different": "two people", "unknown": "no verdict"}


def run_lines(summary: Summary) -> Iterator[str]:
    """What `facemill process` says about a run."""
    yield f"{printable(summary.output)}: {summary.embedded:,} of {summary.scanned:,} photos embedded"
    yield from (f"  {name}: {count:,}" for name, count in summary.outcomes.items())
    if summary.crops:
        yield f"  taken as aligned crops, because of their size: {summary.crops:,} (--align detect looks at all photos)"
    if summary.passed_over:
        yield f"  {printable(passed_over_text(tuple(summary.passed_over.items())))}"
    if summary.failed:
        yield "  list them with the reasons: facemill outcomes; process them again: --retry"
    if summary.processed:
        speed = f"{summary.images_per_s:,.0f} images/s ({summary.elapsed_s:.1f} s with start-up)"
        yield f"{summary.processed:,} in this run, {speed}, {summary.verdict}"
        yield from stage_lines(summary.stages)
    else:
        yield "nothing to do: all photos were processed before"
    if summary.warning:
        yield f"WARNING: {summary.warning}"


def cluster_lines(report: ClusterReport) -> Iterator[str]:
    """What `facemill cluster` says about the clusters."""
    clusters = report.clusters
    several, zeros = clusters.count_at_least(2), len(clusters.labels) - int(clusters.sizes.sum())
    method = f"k-means, k = {clusters.k:,}" if clusters.k else f"threshold {clusters.threshold:g}"
    yield f"{len(clusters.labels):,} embeddings in {count(len(report), 'cluster')} ({method})"
    yield f"  {several:,} with several photos, {int(clusters.sizes[:several].sum()):,} in all"
    yield f"  {len(report) - several:,} of one photo"
    if zeros:
        yield f"  {zeros:,} embeddings are zeros, or not selected, and belong to no cluster (0)"
    if report.decisions:
        yield f"  {count(report.decisions, 'decision')} of people obeyed, {count(len(report.names), 'cluster')} named"
    if several:
        yield f"  the largest has {int(clusters.sizes[0]):,}"
    yield f"model: {report.model}"


def cluster_outputs(
    report: ClusterReport, output: Path | None, folders: Path | None, sheets: Path | None, file: Path | None
) -> Iterator[str]:
    """What `facemill cluster` says about its outputs; None for those that were not asked for."""
    if output is not None:
        yield str(output)
    if report.folders is not None:
        written = report.folders
        missing = f"; {written.missing:,} photos are missing" if written.missing else ""
        yield f"{folders}: {count(written.folders, 'folder')}, {written.photos:,} photos{missing}"
        if written.refused:
            yield f"  {written.refused:,} photos left out: links, or no photos any more. --mode symlink takes links"
    if report.sheets is not None and sheets is not None:
        yield f"{sheets / 'index.html'}: {count(report.sheets, 'sheet')}"
    if file is not None:
        yield f"{file}: /cluster"


def _rate(comparison: Comparison) -> str:
    if comparison.false_match_rate is not None:
        return str(comparison.false_match_rate)
    return (
        "stated for the threshold alone: no calibration" if comparison.threshold.stated else "unknown: no calibration"
    )


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """What `facemill compare` says about two photos."""
    for photo in comparison.photographs:
        yield printable(photo.photo) + (f"  ({photo.choice})" if photo.choice else "")
    rate, threshold = comparison.false_match_rate, comparison.threshold
    rows = [
        ("verdict", _VERDICTS[comparison.verdict]),
        ("score", f"{comparison.score:.4f}"),
        ("threshold", "unknown" if threshold.value is None else f"{threshold.value:.4f}"),
        ("false match rate", _rate(comparison)),
    ]
    yield from align(rows)
    yield f"threshold: {printable(threshold.origin)}"
    if rate is not None:
        yield f"false match rate: {printable(comparison.explain_rate())}"
    yield f"model: {printable(comparison.model_label)}"
