"""Every exception that facemill raises on purpose.

Each class has a stable code, and the text of an exception begins with it: `E-CONTRACT: ...`. A message says what
failed, what facemill got, what it expected, and the next command. docs/errors.md lists the codes with cause and
remedy. Each class is also the builtin that a caller would expect: `except ValueError` and `except OSError` work.

Example:
    >>> error = ConfigError("--dtype is 'int8'; expected: float32 or float16")
    >>> str(error)
    "E-CONFIG: --dtype is 'int8'; expected: float32 or float16"
    >>> error.code, isinstance(error, ValueError)
    ('E-CONFIG', True)
"""

from __future__ import annotations

from typing import ClassVar


class FacemillError(Exception):
    """Root of the tree. The command line prints its text and exits with its exit code.

    Attributes:
        code: the stable name of the kind of error.
        exit_code: the exit code of a command that fails with it.
        message: the text without the code, for use inside another message.
    """

    code: ClassVar[str] = "E-FAILED"
    exit_code: ClassVar[int] = 1

    @property
    def message(self) -> str:
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class ConfigError(FacemillError, ValueError):
    """An option, argument or configuration file has a wrong value."""

    code = "E-CONFIG"


class OptionError(ConfigError):
    """Options do not go together, or one is missing."""

    code = "E-OPTION"
    exit_code = 2


class TooManyPairsError(ConfigError):
    """A threshold is so low that the number of pairs above it is of no use."""

    code = "E-TOO-MANY-PAIRS"


class MissingDependencyError(FacemillError, ImportError):
    """A package is not installed, or its installation is broken. The message holds the command that installs it."""

    code = "E-PACKAGE"


class ModelError(FacemillError, ValueError):
    """A model file (TOML or ONNX) is missing, damaged or of the wrong form."""

    code = "E-MODEL"


class ModelUnavailableError(ModelError):
    """The weights are not on this machine and cannot be fetched."""

    code = "E-MODEL-UNAVAILABLE"


class FetchError(FacemillError, OSError):
    """A download failed. The received bytes are kept for the next try."""

    code = "E-FETCH"


class EngineError(FacemillError, RuntimeError):
    """An engine cannot be built, loaded or run."""

    code = "E-ENGINE"


class ParityError(EngineError):
    """The answers of a built engine differ too much from those of the FP32 ONNX graph."""

    code = "E-PARITY"


class OutOfMemoryError(EngineError, MemoryError):
    """A batch did not fit into the memory of the backend. A smaller batch may fit."""

    code = "E-MEMORY"


class SourceError(FacemillError, OSError):
    """A named folder, photo or list file cannot be read."""

    code = "E-SOURCE"


class StorageError(FacemillError, OSError):
    """A result file cannot be written, or it is damaged."""

    code = "E-STORAGE"


class DiskFullError(StorageError):
    """The disk (or a quota) is full. Complete results stay."""

    code = "E-DISK-FULL"


class DamagedError(StorageError):
    """A finished segment of a run cannot be read back. It is set aside, and its photos run again."""

    code = "E-DAMAGED"


class OutputExistsError(StorageError, FileExistsError):
    """The output path exists, and --force was not given; or it is plainly something else than what is written."""

    code = "E-EXISTS"


class UnfinishedError(StorageError):
    """A removal changed the file, and could not delete everything that was made from it. The same command goes on."""

    code = "E-UNFINISHED"
    exit_code = 3


class LockedError(StorageError, BlockingIOError):
    """Another process is writing the same output, or has opened the file for writing."""

    code = "E-LOCKED"


class RequestError(FacemillError, ValueError):
    """A request to the server has the wrong form: its body, a parameter, the name of a file, or a route."""

    code = "E-REQUEST"


class PhotoError(FacemillError, ValueError):
    """A photo in a request to the server cannot be read, or is over a limit."""

    code = "E-PHOTO"


class AccessError(FacemillError, PermissionError):
    """A request to the server lacks a valid token, comes from a foreign page, or names a path outside the roots."""

    code = "E-ACCESS"


class BusyError(FacemillError, RuntimeError):
    """The server has as much work as it takes, or a limit of time or rate is over. The same request may work later."""

    code = "E-BUSY"


class MachineError(FacemillError, OSError):
    """The machine refuses something that a command needs: the working folder, a temporary folder, stdout, files."""

    code = "E-MACHINE"


class ContractError(FacemillError, ValueError):
    """Two embedding contracts differ: their rows cannot be compared."""

    code = "E-CONTRACT"


class Interrupted(FacemillError):
    """A signal, or a caller's control, stopped the job. All finished results are on disk.

    Attributes:
        signum: the number of the signal, 0 where none stopped it. The exit code of a command is 128 + signum.
    """

    code = "E-INTERRUPTED"

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum
