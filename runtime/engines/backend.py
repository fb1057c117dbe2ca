"""The Protocol of a backend, which builds and runs engines of one kind. Each backend has its own folder here.

To add a backend, write a class with the members of `Backend` and add it to `backends.BACKENDS`. Import its packages in
the functions that use them, so that `--help` and `facemill doctor` work without them.
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
Profile = tuple[int, int, int]  # minimum, optimum and maximum batch size

# Runs a built engine and returns its facts with their parity; raises ParityError below the bar.
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
        compute_capability: e.g. "SM75", for a GPU that this machine need not have; None: for this machine.
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
        name: name on the command line and in sidecars.
        title: name in messages.
        suffix: suffix of its engine files, without the dot.
        on_gpu: whether it needs an NVIDIA GPU and its driver to run.
        keeps_photos: whether its runner takes photos on the GPU, see `tensorrt.runner`.
        names_targets: whether it can build for a compute capability without that GPU.
        requires: import names of its packages. One package of each group is enough.
        extra: the extra that installs them; empty for base dependencies.
        usual_precision: the precision from which `auto` starts.
        refusals: precisions that it cannot build, each with the reason and the next command.
        scheme: how INT8 is written into its graphs; None if it does not build INT8.
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
        """The default batch sizes for a task."""
        ...

    def find_fault(self) -> Fault | None:
        """Find a fault of its installed packages; None if the backend can be used."""
        ...

    def version(self, compute_capability: str | None = None) -> str:
        """Package and version that build engines, e.g. "onnxruntime 1.32.0".

        Raises:
            MissingDependencyError: the package is not installed.
        """
        ...

    def device(self, compute_capability: str | None = None) -> str:
        """The target of an engine: a compute capability, the name of a GPU, or `name` if any device can run it."""
        ...

    def adapt(self, graph: onnx.ModelProto) -> onnx.ModelProto:
        """Rewrite a float graph, before quantisation, into the form that the backend runs fastest."""
        ...

    def build(self, job: BuildJob, graph: onnx.ModelProto, info: EngineInfo, prove: Prove) -> tuple[bytes, EngineInfo]:
        """Build an engine from a prepared graph, and prove it if this machine can run it.

        Args:
            job: the engine to build.
            graph: from `adapt`, quantised for int8.
            info: facts of the engine.
            prove: call it with the content and facts of the engine.
        Returns:
            The content of the engine file, and the facts from `prove` with the precision read back from the engine.
        Raises:
            EngineError: the graph cannot be built.
            ParityError: the outputs of the engine differ from those of the model.
        """
        ...

    def open(self, content: bytes, info: EngineInfo, *, threads: int = 0, path: Path | None = None) -> Runner:
        """Load an engine.

        Args:
            content: content of the engine file.
            info: its facts.
            threads: threads of one `infer` on the CPU; 0: one per core.
            path: path of the engine file. Kernels that are compiled at run time are cached in its folder; None: no
                cache.
        Raises:
            EngineError: the engine does not load on this machine.
            MissingDependencyError: a package is not installed.
        """
        ...

    def why_stale(self, engine: Engine) -> str:
        """Why this machine cannot run an existing engine; empty if it can, or if that is unknown."""
        ...
