"""Verify a finished embedding file: read everything that has a checksum, and compare the parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import StorageError
from ..records import (
    FACE_DATASETS,
    FORMAT_VERSION,
    FORMAT_VERSION_SEVERAL,
    FORMAT_VERSIONS,
    PAGE_DATASET,
    Status,
    attribute_datasets,
)
from .child import Alive, run_in_child
from .contract import EmbeddingContract
from .digest import DIGEST_ATTRIBUTE, content_digest
from .file import EmbeddingFile
from .format import (
    possible_attributes,
    read_raw_paths,
    read_scanned_paths,
    read_vector_counts,
    rows_not_of_length_one,
    stored_text,
)
from .layout import check_objects, require_relative
from .opening import DAMAGE, check_regular, open_steadily, read_attribute, read_attributes, refuse_system_error
from .salvage import read_stored

_BLOCK_BYTES = 32 << 20
_ALIVE_ROWS = 65_536
_MAX_EXAMPLES = 3  # rows that a finding names


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of verifying a file.

    Attributes:
        embeddings: rows of `/embeddings`.
        photographs: rows of `/outcomes`.
        zeros: rows of zeros, for which the network's output was zero. They are no damage, and match no person.
        findings: the damage, one sentence each; empty for an intact file.
        indexes: damage of the indexes beside the file, which are not needed: they are built again.
    """

    embeddings: int
    photographs: int
    zeros: int
    findings: tuple[str, ...]
    indexes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        return {"whole": not self.findings and not self.indexes, **asdict(self)}


def verify_file(path: Path) -> Verified:
    """Read all of a finished embedding file in a child process, and compare its parts with each other.

    HDF5 can crash or never end on damaged bytes; then that is a finding.

    Args:
        path: the file; nothing is written to it.
    Raises:
        StorageError: the file is not an embedding file, or the system prevents reading it.
    """
    check_regular(path)
    try:
        facts = run_in_child("verify", path)
    except ValueError as err:
        return Verified(0, 0, 0, (str(err),))
    return Verified(facts["embeddings"], facts["photographs"], facts["zeros"], tuple(facts["findings"]))


def verify_here(path: Path, alive: Alive) -> dict[str, Any]:
    """Verify a file in this process, which is the child.

    Args:
        path: the file.
        alive: is called between the pieces of the work.
    Returns:
        The fields of `Verified`.
    Raises:
        StorageError: see `verify_file`.
    """
    try:
        with open_steadily(path) as file:
            findings: list[str] = []
            check = _Check(path, read_attributes(file, findings), alive)
            if check.version not in FORMAT_VERSIONS:
                raise ValueError(f"its format version is {check.version}")
            check.findings += findings
            check.run(check.objects, file)
            if not check.findings:
                for part in (
                    check.contract,
                    check.outcomes,
                    check.paths,
                    check.exact,
                    check.vectors,
                    check.faces,
                    check.attributes,
                    check.cluster,
                    check.content,
                ):
                    check.run(part, file)
            if not check.findings:  # whatever else a command would refuse
                with EmbeddingFile(path) as opened:
                    len(opened.status)
    except DAMAGE as err:
        refuse_system_error(err, path)
        raise StorageError(
            f"{path} is not an embedding file of facemill, or its header is damaged ({err}); expected: format version "
            f"{' or '.join(map(str, FORMAT_VERSIONS))}. Restore it from a copy, or create it again"
        ) from err
    return asdict(Verified(check.embeddings, check.photographs, check.zeros, tuple(check.findings)))


class _Check:
    """The findings of one file. Each part of the check runs even if an earlier one found damage."""

    def __init__(self, path: Path, metadata: dict[str, Any], alive: Alive) -> None:
        self._path, self._metadata, self._alive = path, metadata, alive
        self.embeddings = self.photographs = self.zeros = 0
        self.findings: list[str] = []

    @property
    def version(self) -> object:
        return self._metadata.get("format_version")

    def run(self, part: Callable[[Any], None], file: Any) -> None:
        """Run one part of the check. Unreadable data is a finding."""
        self._alive(part.__name__)
        try:
            part(file)
        except DAMAGE as err:
            refuse_system_error(err, self._path)
            self.findings.append(f"{part.__name__}: cannot be read: {err}")

    def _expect(self, name: str, value: object, expected: object) -> None:
        if value != expected:
            self.findings.append(f"{name} is {value}; expected: {expected}")

    def objects(self, file: Any) -> None:
        check_objects(file)

    def contract(self, file: Any) -> None:
        contract = EmbeddingContract.from_json(self._metadata["contract"])
        attributes = contract.attributes()
        for name in (*contract.to_dict(), *contract.lost_fields(self._metadata)):
            self._expect(f"contract: {name}", attributes.get(name), self._metadata.get(name))
        self._expect("contract: dtype", contract.dtype, str(file["embeddings"].dtype))

    def outcomes(self, file: Any) -> None:
        group = file["outcomes"]
        status: NDArray[np.uint8] = group["status"][:]
        counts = read_vector_counts(group, status)
        self.photographs = len(status)
        for name in sorted({"path", "detail", "digest", "embeddings", "faces"} & set(group)):
            self._expect(f"outcomes: the length of /outcomes/{name}", len(group[name]), self.photographs)
        statuses = [int(s) for s in Status if s is not Status.PENDING]
        self._rows("outcomes: no known outcome", ~np.isin(status, statuses))
        self._rows("outcomes: embedded and without a row, or the reverse", (counts > 0) != (status == Status.EMBEDDED))
        self._expect("outcomes: the sum of their rows", int(counts.sum()), len(file["embeddings"]))
        self._expect("metadata: scanned", int(self._metadata["scanned"]), self.photographs)
        for kind in Status:
            name = f"count_{kind.name.lower()}"
            self._expect(f"metadata: {name}", int(self._metadata.get(name, 0)), int((status == kind).sum()))
        version = FORMAT_VERSION_SEVERAL if (counts > 1).any() else FORMAT_VERSION
        self._expect("metadata: format_version", self.version, version)
        for name in sorted({"detail", "digest", "faces"} & set(group)):
            for _, block in self._blocks(group[name]):
                len(block)  # reading checks the checksums

    def paths(self, file: Any) -> None:
        group = file["outcomes"]
        counts = read_vector_counts(group, group["status"][:])
        names = file["image_paths"]
        self._expect("paths: the length of /image_paths", len(names), int(counts.sum()))
        at = 0
        for start, block in self._blocks(group["path"]):
            expected = np.repeat(block, counts[start : start + len(block)])
            stored = names[at : at + len(expected)]
            require_relative(stored.tolist(), at, "image_paths")
            if len(stored) == len(expected):
                self._rows("paths: not the photo that /outcomes names", stored != expected, at)
            at += len(expected)

    def exact(self, file: Any) -> None:
        """Check the exact paths: those that are not UTF-8 match their text, and all are in scan order."""
        group = file["outcomes"]
        raw = read_raw_paths(group)
        if raw:
            texts = group["path"][:]
            wrong = [row for row, path in raw.items() if stored_text(path) != texts[row]]
            if wrong:
                self.findings.append(f"exact paths: not what /outcomes/path says: {self._first(wrong)}")
        for row, _ in enumerate(read_scanned_paths(file)):
            if row % _ALIVE_ROWS == 0:
                self._alive()

    def vectors(self, file: Any) -> None:
        vectors = file["embeddings"]
        self.embeddings = len(vectors)
        self._expect("embeddings: the number of columns", vectors.shape[1], int(self._metadata["dimension"]))
        for start, block in self._blocks(vectors):
            self.zeros += int((~block.any(axis=1)).sum())
            self._examples("embeddings: not of length 1", start + rows_not_of_length_one(block))

    def faces(self, file: Any) -> None:
        if "face_index" not in file:
            return
        named = PAGE_DATASET in file or self._metadata.get("pages") == "all"
        pages = [PAGE_DATASET] if named else []
        for name in (*FACE_DATASETS.values(), *pages):
            self._expect(f"faces: the length of /{name}", len(file[name]), len(file["embeddings"]))
            for start, block in self._blocks(file[name]):
                if name == FACE_DATASETS["box"]:  # the score of a photo that was taken as a crop is no number
                    self._rows(f"faces: no numbers in /{name}", ~np.isfinite(block).all(axis=1), start)
                elif name == PAGE_DATASET:
                    self._rows(f"faces: no page in /{name}", block == 0, start)

    def attributes(self, file: Any) -> None:
        for name in attribute_datasets(
            EmbeddingContract.from_json(self._metadata["contract"]).attributes_read
        ).values():
            self._expect(f"attributes: the length of /{name}", len(file[name]), len(file["embeddings"]))
            for start, block in self._blocks(file[name]):
                self._rows(f"attributes: impossible in /{name}", ~possible_attributes(name, block), start)

    def cluster(self, file: Any) -> None:
        if "cluster_before_review" in file:
            length = len(file["cluster_before_review"])
            self._expect("cluster: the length of /cluster_before_review", length, len(file["embeddings"]))
            for start, block in self._blocks(file["cluster_before_review"]):
                self._rows("cluster: no number of a cluster", block < 0, start)
        if "cluster" not in file:
            return
        column = file["cluster"]
        self._expect("cluster: the length of /cluster", len(column), len(file["embeddings"]))
        clusters = read_attribute(column, "clusters")
        for start, block in self._blocks(column):
            self._rows("cluster: no number of a cluster", (block < 0) | (block > clusters), start)

    def content(self, file: Any) -> None:
        """Check the digest of all datasets, attributes and names. Files of older versions have none."""
        stored = self._metadata.get(DIGEST_ATTRIBUTE)
        if stored is not None and not self.findings:
            self._expect(
                "content: the digest of all datasets, attributes and names", content_digest(file, self._alive), stored
            )

    def _rows(self, problem: str, wrong: NDArray[np.bool_], start: int = 0) -> None:
        """Add a finding that names the first wrong rows."""
        self._examples(problem, start + np.flatnonzero(wrong))

    def _examples(self, problem: str, rows: NDArray[np.int64]) -> None:
        if len(rows):
            self.findings.append(f"{problem}: {self._first(rows)}")

    @staticmethod
    def _first(rows: Sequence[int] | NDArray[np.int64]) -> str:
        more = f" and {len(rows) - _MAX_EXAMPLES:,} more" if len(rows) > _MAX_EXAMPLES else ""
        return f"row {', '.join(map(str, rows[:_MAX_EXAMPLES]))}{more}"

    def _blocks(self, dataset: Any) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield a dataset in blocks of some megabytes, each with its first row."""
        width = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=np.int64))
        step = max(1, _BLOCK_BYTES // max(1, width))
        for start in range(0, len(dataset), step):
            self._alive()
            yield start, read_stored(dataset, start, start + step)
