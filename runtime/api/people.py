"""Find clusters among all rows of a file: the photos of each person."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import defaults
from ..attributes.selection import AttributeFilter
from ..clusters.clusters import Clusters, cluster_by_count, cluster_by_threshold, default_threshold
from ..clusters.folders import FolderCounts, check_folders, write_folders
from ..clusters.graph import require_scipy
from ..clusters.outputs import check_list_path, write_list
from ..clusters.outputs import write_column as write_cluster_column
from ..errors import OptionError
from ..interrupt import Control
from ..metrics.verification import check_threshold
from ..pages.sheets import check_sheets, write_sheets
from ..pairs import pairs as searching
from ..pairs.checkpoint import Checkpoint
from ..progress import Listener
from ..review.rows import RowRules
from ..search.model_label import file_model_label, model_warning
from ..storage.file import EmbeddingFile

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Cluster:
    """Rows that probably show the same person.

    Attributes:
        number: 1 for the largest cluster.
        rows: rows of `/embeddings`, ascending.
        paths: the photos of the rows, as in `/image_paths`.
        name: the name that people gave it; "" for none.
    """

    number: int
    rows: tuple[int, ...]
    paths: tuple[str, ...]
    name: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The cluster for JSON."""
        name = {"name": self.name} if self.name else {}
        return {
            "cluster": self.number,
            **name,
            "size": len(self.rows),
            "rows": list(self.rows),
            "paths": list(self.paths),
        }


@dataclass(frozen=True, slots=True, eq=False)
class ClusterReport:
    """The clusters of a file. Iterate over it for `Cluster` objects, the largest first.

    Attributes:
        file: the embedding file.
        clusters: the cluster of each row, with sizes and scores.
        model: the model of the file, for people.
        warning: a warning about untrained weights; empty for trained ones.
        folders: the folders that were filled; None if none were requested.
        sheets: number of pages that were written; None if none were requested.
        names: the names that people gave clusters, by number.
        decisions: number of decisions that the clusters obey.
    """

    file: Path
    clusters: Clusters
    model: str
    warning: str
    folders: FolderCounts | None = None
    sheets: int | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    decisions: int = 0

    @property
    def warnings(self) -> list[str]:
        """Warnings about untrained weights, and about clusters that are too large for one person."""
        clusters = self.clusters
        warnings = [self.warning] if self.warning else []
        if clusters.suspicious and not clusters.k:
            which = "cluster is" if clusters.suspicious == 1 else "clusters are"
            warnings.append(
                f"{clusters.suspicious:,} {which} too large to be a person; the largest has {int(clusters.sizes[0]):,} "
                f"of {len(clusters.labels):,} photos. The threshold {clusters.threshold:g} is too low, or many photos "
                f"show no face: try a higher one, and look at --sheets"
            )
        return warnings

    @property
    def numbers(self) -> NDArray[np.int32]:
        """(N,) int32: the number of each row's cluster; 0 for a row of zeros, which has no cluster."""
        return self.clusters.labels

    def __len__(self) -> int:
        return self.clusters.count

    def __iter__(self) -> Iterator[Cluster]:
        with EmbeddingFile(self.file) as gallery:
            for number in range(1, self.clusters.count + 1):
                rows = self.clusters.rows(number).tolist()
                yield Cluster(number, tuple(rows), tuple(gallery.names(rows)), self.names.get(number, ""))

    def to_dict(self) -> dict[str, Any]:
        """The figures for JSON, without the rows."""
        several = self.clusters.count_at_least(2)
        return {
            "embeddings": len(self.numbers),
            "clusters": len(self),
            "clusters_of_one": len(self) - several,
            "largest": int(self.clusters.sizes[0]) if len(self) else 0,
            "suspicious": self.clusters.suspicious,
            "method": self.clusters.method,
            "threshold": self.clusters.threshold,
            "k": self.clusters.k,
            **({"decisions": self.decisions} if self.decisions else {}),
            "model": self.model,
            **({"warning": self.warning} if self.warning else {}),
        }


def cluster(
    file: PathLike,
    *,
    people: int | None = None,
    threshold: float | None = None,
    gender: str | None = None,
    age: str | tuple[int, int] | None = None,
    unsure: str = defaults.UNSURE,
    output: PathLike | None = None,
    csv_safe: bool = False,
    folders: PathLike | None = None,
    mode: str = "symlink",
    sheets: PathLike | None = None,
    min_photos: int = defaults.MIN_PHOTOS,
    write_column: bool = True,
    review: bool = True,
    seed: int = 0,
    budget_s: float | None = None,
    max_pairs: int = defaults.MAX_LINKS,
    device: str = "auto",
    force: bool = False,
    listener: Listener | None = None,
    control: Control | None = None,
) -> ClusterReport:
    """Group the photos in a file by person.

    With `people`, rows are split by k-means. Without it, photos whose score reaches the threshold are linked, and
    Chinese whispers finds the people in the graph (needs SciPy). The links so far are kept beside the file until the
    clusters are written: after a crash the same call resumes. The clusters obey the decisions of people about the file
    (see `Review`).

    Args:
        file: a finished embedding file.
        people: number of people, if it is known.
        threshold: lowest score of two linked photos, above 0 and at most 1; None for the calibration's.
        gender, age, unsure: group only these faces; the others are in no cluster. See `facemill.filter`.
        output: file for a list, `.csv`; None to write none.
        csv_safe: write `'` into the list before a name that a spreadsheet computes.
        folders: folder in which to make a folder for each cluster; None to make none.
        mode: content of these folders: "symlink", "hardlink" or "copy".
        sheets: write pages with the photos into this folder; None to write none.
        min_photos: clusters with fewer photos get no folder and no sheet.
        write_column: write the numbers into the file, as `/cluster`.
        review: obey the decisions of people; False to ignore them.
        seed: random seed of k-means and Chinese whispers.
        budget_s, device, listener, control: see `find_pairs`.
        max_pairs: stop if more pairs are linked; 30 million take some 3 GB.
        force: replace outputs, and drop an unfinished search with other options.
    Returns:
        The clusters; cluster 1 is the largest.
    Raises:
        TooManyPairsError: there are more than `max_pairs`.
        OptionError: options exclude each other.
        ConfigError: there is no calibration to take a threshold from.
        OutputExistsError: an output exists.
        StorageError, EngineError, MissingDependencyError: the file is damaged, or a package or device is missing.
        Interrupted: the control stopped the search.

    Example:
        >>> import facemill
        >>> report = facemill.cluster("people.h5", threshold=0.5, write_column=False)
        >>> report.numbers.shape, next(iter(report)).number
        ((12,), 1)
    """
    if people is not None and threshold is not None:
        raise OptionError("people and threshold are given; expected: one of them")
    check_threshold(threshold, above_zero=True)
    chosen = AttributeFilter.of(gender, age, unsure)
    if people is None:
        require_scipy()
    path = Path(file)
    listed, filled, paged = (None if place is None else Path(place) for place in (output, folders, sheets))
    _check_apart({"--folders": filled, "--sheets": paged, "--output": listed})
    with ExitStack() as stack:
        gallery = stack.enter_context(EmbeddingFile(path))
        lowest = 0.0 if people is not None else default_threshold(gallery) if threshold is None else threshold
        checkpoint = stack.enter_context(Checkpoint(path, "pairs" if people is None else "clusters"))
        job: dict[str, Any] = {"threshold": lowest, "budget_s": budget_s, "people": people, "seed": seed, "mode": mode}
        job |= {"clusters": gallery.source["run_id"], "min_photos": min_photos, "csv_safe": csv_safe}
        mask = None
        if chosen:
            mask, job["chosen"] = chosen.rows(gallery), str(chosen)
        rules = RowRules.of(gallery) if review else None
        if not rules:
            rules = None
        else:
            job["decisions"] = rules.clock
        outputs = checkpoint.outputs(job)
        for place, check in ((listed, check_list_path), (filled, check_folders), (paged, check_sheets)):
            if place is not None:
                check(place, force=force or outputs.owns(place))
        if people is not None:
            checkpoint.keep({"source": gallery.source, "k": people, "seed": seed})
            clusters = cluster_by_count(gallery, people, seed=seed, mask=mask, rules=rules, listener=listener)
        else:
            query = searching.PairQuery(lowest, max_pairs=max_pairs, budget_s=budget_s, device=device)
            clusters = cluster_by_threshold(
                gallery,
                checkpoint,
                query,
                seed=seed,
                mask=mask,
                rules=rules,
                force=force,
                listener=listener,
                control=control,
            )
        if listed is not None:
            write_list(listed, gallery, clusters, csv_safe=csv_safe, rules=rules, ready=outputs.ready(listed))
        folder_counts = pages = None
        if filled is not None:
            owned, ready = force or outputs.owns(filled), outputs.ready(filled)
            folder_counts = write_folders(
                filled, gallery, clusters, mode=mode, min_rows=min_photos, force=owned, ready=ready
            )
        if paged is not None:
            owned, ready = force or outputs.owns(paged), outputs.ready(paged)
            pages = write_sheets(paged, gallery, clusters, min_rows=min_photos, force=owned, ready=ready)
        if write_column:
            checkpoint.before_rewriting()
            write_cluster_column(path, clusters, str(gallery.metadata["run_id"]))
        checkpoint.remove()
        return ClusterReport(
            path,
            clusters,
            file_model_label(gallery),
            model_warning(gallery),
            folder_counts,
            pages,
            {} if rules is None else rules.cluster_names(clusters.labels),
            0 if rules is None else len(rules.constraints.decisions),
        )


def _check_apart(outputs: dict[str, Path | None]) -> None:
    """Refuse an output in a folder that facemill fills, which must not hold other files.

    Raises:
        OptionError: there is one.
    """
    folders_by_option = {name: Path(os.path.realpath(path)) for name, path in outputs.items() if path is not None}
    for name, folder in folders_by_option.items():
        for other_option, other_folder in folders_by_option.items():
            if name != other_option and name != "--output" and other_folder.is_relative_to(folder):
                raise OptionError(f"{name} needs a folder of its own, and {other_option} is in it")
