"""Join several embedding files into one."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, StorageError
from ..review.upkeep import join_decisions
from ..storage.dataset import assemble
from ..storage.derived import record_elsewhere, was_replaced
from ..storage.file import EmbeddingFile
from ..storage.ledger import Part
from ..storage.runfolder import RunFolder, check_new_file
from .copies import copying
from .join import check_joinable, common_root, joined_metadata, prefix_below
from .rewrite import metadata_after, rewriting

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Merged:
    """The result of a merge.

    Attributes:
        photographs, embeddings: numbers in the joined file.
        doubles: photos that were in several files; each was taken from the first of these files.
        root: folder that all paths of the joined file are below.
        dropped: datasets of other programs in the files, which the joined file lacks.
    """

    photographs: int
    embeddings: int
    doubles: int
    root: str
    dropped: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        return asdict(self)


def merge(files: Sequence[Path], output: Path, *, prefer_first: bool = False, force: bool = False) -> Merged:
    """Write a file with the photos of all files, in scan order. The files are only read.

    Args:
        files: two finished files or more.
        output: the joined file; appears whole or not at all.
        prefer_first: take a photo that is in several files from the first of them; else it is an error.
        force: replace an existing output.
    Raises:
        ContractError: their rows may not be in one file.
        ConfigError: a file is named twice or is the output, or several files have the same photo.
        OutputExistsError: the output exists.
        LockedError, DiskFullError, StorageError: the output cannot be written; an existing one is unchanged.
    """
    output = Path(os.path.realpath(output))
    inputs = [Path(os.path.realpath(file)) for file in files]
    if len(set(inputs)) < len(inputs) or len(inputs) < 2:
        raise ConfigError(f"got {', '.join(map(str, files))}; expected: two or more files, each once")
    check_new_file(output, force=force, inputs=inputs)
    with ExitStack() as stack:
        opened = [stack.enter_context(EmbeddingFile(file)) for file in inputs]
        stack.enter_context(copying(inputs, output))
        folder = stack.enter_context(RunFolder(output, like=inputs))
        folder.refuse_unfinished()
        check_joinable(opened)
        root = common_root([file.root for file in opened])
        parts = [Part.of(file, prefix=prefix_below(root, file.root)) for file in opened]
        new = stack.enter_context(rewriting(folder, parts, prefer_first=prefer_first))
        logger.info("writing %s", output)
        metadata = metadata_after(joined_metadata(opened, root), new.ledger, plan_id=secrets.token_hex(8))
        for file in inputs:
            record_elsewhere(file, str(output))  # first: a removal from now on names the output
        assemble(output, new.ledger, new.paths, metadata, opened[0].dtype, like=inputs)
        replaced = [file.path for file in opened if was_replaced(file)]
        if replaced:
            output.unlink()
            raise StorageError(
                f"{replaced[0]} was replaced while {output} was made from it, so {output.name} was deleted: it may "
                f"have held photos that were removed. Run the same command again"
            )
        join_decisions(inputs, output)
        dropped = tuple(dict.fromkeys(name for file in opened for name in file.foreign_datasets()))
        total = int(new.ledger.vector_counts.sum())
        return Merged(len(new.paths), total, new.doubles, os.fsdecode(root), dropped)
