"""What a backend is: it builds engines of one kind and runs them. Each backend is a folder beside this module.

To add a backend, write a class with the members of `Backend` and put it into `backends.BACKENDS`. Modules of that kind
import their packages where they use them, so that `--help` and `facemill doctor` work without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..graphs.qdq import Scheme
from ..modelspec import ModelSpec
from .engine import Engine, EngineInfo

if TYPE_CHECKING:
    import onnx

    from .calibrate import CalibrationSet
    from .runner import Runner

PRECISIONS = ("fp32", "fp16", "int8")
Profile = tuple[int, int, int]  # smallest, best and largest batch size

# Run a built engine and return its facts with the parity in them; ParityError where the engine is not equal.
Prove = Callable[[bytes, EngineInfo], EngineInfo]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a backend cannot be used on this machine.

    Attributes:
        reason: the reason, without a full stop.
        fix: the command that fixes it.
    """

    reason: str
    fix: str


@dataclass(frozen=True, slots=True)
class BuildJob:
    """An engine to build.

    Attributes:
        spec, weights: the model.
        backend: the backend.
        precision: one of PRECISIONS.
        profile: batch sizes.
        compute_capability: e.g. "SM75", for a GPU that need not be here; None: for this machine.
        calibration: crops for int8; None for the other precisions.
    """

    spec: ModelSpec
    weights: Path
    backend: Backend
    precision: str
    profile: Profile
    compute_capability: str | None = None
    calibration: CalibrationSet | None = None


class Backend(Protocol):
    """A way to build and run engines.

    Attributes:
        name: on the command line and in sidecars.
        title: for people.
        suffix: of its engine files, without the dot.
        on_gpu: it needs an NVIDIA GPU and its driver to run.
        keeps_photos: its runner takes photos that are on the GPU, see `tensorrt.runner`.
        names_targets: it builds for a compute capability that is named, without that GPU.
        requires: import names of its packages; of each group one is enough.
        extra: the extra that installs them; empty for base dependencies.
        usual_precision: the precision that `auto` starts from.
        refusals: precisions that it does not build, with the reason and the next command.
        scheme: how it wants INT8 written into a graph; None where it does not build INT8.
    """

    name: str
    title: str
    suffix: str
    on_gpu: bool
    keeps_photos: bool
    names_targets: bool
    requires: tuple[tuple[str, ...], ...]
    extra: str
    usual_precision: str
    refusals: Mapping[str, str]
    scheme: Scheme | None

    def profile(self, task: str) -> Profile:
        """The batch sizes to build for where none are given, by the task of the model."""
        ...

    def find_fault(self) -> Fault | None:
        """What is wrong with its packages, which import; None where the backend can be used."""
        ...

    def version(self, compute_capability: str | None = None) -> str:
        """Package and version that build, e.g. "onnxruntime 1.32.0".

        Raises:
            MissingDependencyError: the package is not installed.
        """
        ...

    def device(self, compute_capability: str | None = None) -> str:
        """What an engine is built for: a compute capability, a GPU's name, or `name` where any device will do."""
        ...

    def adapt(self, graph: onnx.ModelProto) -> onnx.ModelProto:
        """Rewrite a float graph into the form that the backend runs fastest, before INT8."""
        ...

    def build(self, job: BuildJob, graph: onnx.ModelProto, info: EngineInfo, prove: Prove) -> tuple[bytes, EngineInfo]:
        """Build an engine from a prepared graph, and prove it where this machine can run it.

        Args:
            job: what to build.
            graph: from `adapt`, quantised for int8.
            info: facts of the engine to be.
            prove: call it with the engine's content and facts.
        Returns:
            The content of the engine file, and its facts: with the precision that was read back from the engine, and
            those that `prove` returned.
        Raises:
            EngineError: the graph cannot be built.
            ParityError: the engine does not answer like the model.
        """
        ...

    def open(self, content: bytes, info: EngineInfo, *, threads: int = 0, path: Path | None = None) -> Runner:
        """Load an engine.

        Args:
            content: the engine file.
            info: its facts.
            threads: of one `infer` on the CPU; 0: one per core.
            path: the engine file; what the backend compiles while it runs is kept in the same folder. None: nowhere.
        Raises:
            EngineError: the engine does not load on this machine.
            MissingDependencyError: a package is not installed.
        """
        ...

    def why_stale(self, engine: Engine) -> str:
        """Why this machine cannot run an engine that was built earlier; empty when it can, or when nothing tells."""
        ...
