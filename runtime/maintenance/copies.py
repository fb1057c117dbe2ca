"""Follow rows that are copied from one embedding file into another: a removal sweeps what a killed copy left.

`merge` and `repair -o` write the names of all photos into the run folder of their output, and then the output under a
temporary name. A kill leaves both, perhaps in a folder where nobody looks for them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import FacemillError, LockedError
from ..files import NewFile, temporary_path
from ..storage.derived import forget_line, note_line
from ..storage.runfolder import RunFolder, folder_of


@contextmanager
def copying(files: Sequence[Path], output: Path) -> Iterator[None]:
    """Record in the lists of files that their rows are copied into another file, unless the block fails.

    Enter it before anything of the output is written, and leave it when nothing but the output is left.
    `derived.record_elsewhere` records the output itself. After that the lists are not written again: a power cut would
    leave a half-written list beside a file that is finished.
    """
    line = json.dumps({"copy": str(output)})
    try:
        for file in files:
            note_line(file, line, str(output))
        yield
    except BaseException:
        for file in files:
            forget_line(file, line)
        raise


def sweep_copies(outputs: Iterable[Path]) -> dict[Path, str]:
    """Remove what killed commands left of embedding files into which they copied rows of another.

    A copy that is being written stays: its writer notices that the file was replaced. So does an unfinished run.

    Args:
        outputs: absolute paths of these files, from a list that may be wrong.
    Returns:
        All that was there, each with the reason why it could not be removed; empty if it is gone.
    """
    reasons: dict[Path, str] = {}
    for output in outputs:
        for path, writer in ((folder_of(output), RunFolder), (temporary_path(output), NewFile)):
            try:
                if os.path.lexists(path) and not (path / "plan.json").exists():
                    with writer(output):  # its end removes what was there
                        pass
                    reasons[path] = "it stayed" if os.path.lexists(path) else ""
            except LockedError:
                continue
            except (FacemillError, OSError) as err:
                reasons[path] = str(err)
            except ValueError:
                continue  # a name that cannot exist
    return reasons
