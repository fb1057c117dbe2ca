"""Every exception that facemill raises on purpose.

A message says what failed, the value seen, the value wanted and the next command. Each class is also the
builtin that a caller would expect, so `except ValueError` and `except OSError` go on working.
"""

from __future__ import annotations


class FacemillError(Exception):
    """Root of the tree; the command line prints its text and exits 1."""


class ConfigError(FacemillError, ValueError):
    """An option, argument or file content is not what is needed."""


class TooManyPairsError(ConfigError):
    """A threshold is so low that more pairs reach it than can be of use."""


class MissingDependencyError(FacemillError, ImportError):
    """An optional package is not installed; the message holds the command that installs it."""


class ModelError(FacemillError, ValueError):
    """A model file (TOML or ONNX) is missing, damaged or of the wrong form."""


class ModelUnavailableError(ModelError):
    """The weights are neither on this machine nor to be fetched."""


class FetchError(FacemillError, OSError):
    """A download did not succeed; what has arrived is kept for the next try."""


class EngineError(FacemillError, RuntimeError):
    """An engine cannot be built, loaded or run."""


class ParityError(EngineError):
    """A built engine's answers differ too much from the FP32 ONNX graph's."""


class OutOfMemoryError(EngineError, MemoryError):
    """A batch did not fit into the backend's memory; a smaller one may."""


class SourceError(FacemillError, OSError):
    """A folder, photograph or list file that was named cannot be read."""


class StorageError(FacemillError, OSError):
    """A result file cannot be written or is damaged."""


class DiskFullError(StorageError):
    """The disk (or a quota) is full; what is complete stays."""


class DamagedError(StorageError):
    """A finished piece of a run cannot be read back; it has been set aside, and its photographs run again."""


class OutputExistsError(StorageError, FileExistsError):
    """An output path exists and --force was not given."""


class LockedError(StorageError, BlockingIOError):
    """Another run is writing the same output."""


class ContractError(FacemillError, ValueError):
    """Two embedding contracts differ: the rows could not be compared with each other."""


class Interrupted(FacemillError):
    """A signal asked the run to stop; everything finished so far is on disk.

    Attributes:
        signum: the signal's number (the exit code is 128 + signum).
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum
