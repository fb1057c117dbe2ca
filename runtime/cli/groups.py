"""Define groups of options. A command gets each group as one frozen object."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import defaults
from ..counts import LARGEST, MOST_WORKERS
from ..engines.backend import PRECISIONS
from ..engines.backends import BACKENDS
from . import options
from .options import (
    PATH,
    AutoOrCount,
    Count,
    Decorator,
    Number,
    count_option,
    device_option,
    duration,
    excludes,
    force_option,
    grouped,
)

if TYPE_CHECKING:
    from ..faces.rules import FaceRules
    from ..images.decode import Limits
    from ..sources.kinds import Patterns
    from ..storage.segments import SegmentRules


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """A group of options."""

    def values(self) -> dict[str, Any]:
        """The options by name, as the library's functions take them."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


@dataclasses.dataclass(frozen=True, slots=True)
class EngineOptions(Options):
    """The engine that embeds: an engine file, or the engine of a model, built when needed.

    Attributes:
        engine: an engine file.
        model: a registered name or a model file; None for the default.
        backend: "auto", or the name of a backend.
    """

    engine: Path | None
    model: str | None
    backend: str


backend_option = click.option(
    "--backend",
    type=click.Choice(["auto", *sorted(backend.name for backend in BACKENDS)]),
    default="auto",
    show_default=True,
    help="Backend that runs the model. auto takes the fastest on this machine; a named backend never falls back.",
)
model_option = click.option(
    "--model",
    help="Registered model or model file (PATH.toml); its engine is built when needed.  "
    "[default: w600k_mbf if its file is on this machine, else facemill-512; a resumed file keeps its model]",
)
engine_options = grouped(
    "engine",
    EngineOptions,
    click.option("--engine", type=PATH, help="Engine file made by build-engine."),
    model_option,
    backend_option,
    excludes("--engine", "--model", "--backend", why="an engine is built from one model, for one backend"),
)


precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", *PRECISIONS]),
    default="auto",
    show_default=True,
    help="Precision of the engine. auto: fp32 on the CPU, fp16 on a GPU; with --calibration int8, if that is faster. "
    "int8 needs --calibration.",
)


@dataclasses.dataclass(frozen=True, slots=True)
class DetectorOptions(Options):
    """Options for detecting faces.

    Attributes:
        align: "auto", "detect" or "none".
        detector: a registered detector, a model file or an engine file; None for the default.
        landmarks: a registered landmark network, a model file, an engine file, or "none"; None for the default.
    """

    align: str
    detector: str | None
    landmarks: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class FaceOptions(DetectorOptions):
    """Options for detecting and selecting faces; see `faces.rules.FaceRules`."""

    faces: str
    min_score: float
    min_iod: float
    min_sharpness: float
    min_brightness: float
    min_contrast: float
    min_frontal: float
    max_fit: float | None
    pages: str

    def rules(self) -> FaceRules:
        """Convert to the library's rules.

        Raises:
            ConfigError: a value is out of range.
        """
        from ..faces.rules import FaceRules

        quality = self.min_score, self.min_iod, self.min_sharpness, self.min_frontal
        exposure = self.min_brightness, self.min_contrast
        return FaceRules(self.align, self.faces, *quality, *exposure, self.pages, self.max_fit)


align_option = click.option(
    "--align",
    type=click.Choice(["auto", "detect", "none"]),
    default=defaults.ALIGN,
    show_default=True,
    help="detect: detect and align the faces of every photo. none: take every photo whole, as an aligned crop. "
    "auto: take photos of exactly the crop's size whole, and detect faces in the others.",
)
DETECTOR_OPTIONS = ("--align", "--detector", "--landmarks")
_detector = (
    align_option,
    click.option(
        "--detector",
        help="Face detector: a registered name, a model file (PATH.toml) or an engine file.  "
        "[default: yunet if its file is on this machine, else facemill-det; a resumed file keeps its detector]",
    ),
    click.option(
        "--landmarks",
        help="Landmark network that looks at each face once more before it is cropped: a registered name, a model file "
        "(PATH.toml) or an engine file. none: crop by the landmarks of the detector.  "
        "[default: facemill-landmarks; a resumed file keeps its network, or none]",
    ),
)
detector_options = grouped("detection", DetectorOptions, *_detector)
face_options = grouped(
    "faces",
    FaceOptions,
    *_detector,
    click.option(
        "--faces",
        type=click.Choice(["largest", "all", "one"]),
        default=defaults.FACES,
        show_default=True,
        help="Faces to embed. largest: the largest one of a photo. all: every face, one row each. one: refuse "
        "photos with several faces.",
    ),
    click.option(
        "--min-score",
        type=float,
        default=defaults.MIN_SCORE,
        show_default=True,
        help="Minimum detection confidence, 0 to 1.",
    ),
    click.option(
        "--min-iod",
        type=float,
        default=defaults.MIN_IOD_PX,
        show_default=True,
        help="Minimum distance between the eyes, in pixels of the original photo.",
    ),
    click.option(
        "--min-sharpness",
        type=float,
        default=defaults.MIN_SHARPNESS,
        show_default=True,
        help="Minimum sharpness of a face; 0 accepts all (docs/faces.md has values).",
    ),
    click.option(
        "--min-brightness",
        type=float,
        default=defaults.MIN_BRIGHTNESS,
        show_default=True,
        help="Minimum mean grey level of a face, 0 to 255; 0 accepts all.",
    ),
    click.option(
        "--min-contrast",
        type=float,
        default=defaults.MIN_CONTRAST,
        show_default=True,
        help="Minimum range of the grey levels of a face, 0 to 255; 0 accepts all.",
    ),
    click.option(
        "--min-frontal",
        type=float,
        default=defaults.MIN_FRONTAL,
        show_default=True,
        help="Minimum frontal pose of a face: 1 looks into the camera, 0 is a profile.",
    ),
    click.option(
        "--max-fit",
        type=float,
        help="Maximum distance of the five landmarks from those of a face in front of the camera, in distances between "
        f"the eyes, 0 to 1; 1 accepts all.  [default: {defaults.MAX_FIT:g}; a resumed file keeps its limit]",
    ),
    click.option(
        "--pages",
        type=click.Choice(["main", "all"]),
        default=defaults.PAGES,
        show_default=True,
        help="Pages of a TIFF file to take. main: the first that is no preview. all: every page that is no preview; "
        "each face is a row that names its page.",
    ),
)


@dataclasses.dataclass(frozen=True, slots=True)
class AllPairsOptions(Options):
    """Options for comparing all rows of a file with each other.

    Attributes:
        budget_s: seconds; if comparing all rows would take longer, the search is approximate. None for exact search.
        device: "auto", "cpu", "gpu" or the number of a GPU.
        force: replace outputs, and drop an unfinished search with other options.
    """

    budget_s: float | None
    device: str
    force: bool


budget_option = click.option(
    "--budget",
    "budget_s",
    metavar="DURATION",
    callback=duration,
    help="Time limit, such as 90s, 30m or 2h. If comparing all pairs would take longer, the search is approximate, and "
    "the output says which share of the pairs it found.",
)
compare_device_option = device_option(
    "Device that compares the rows: the CPU, the first GPU or GPU number N; auto: a GPU if there is one."
)
all_pairs_options = grouped(
    "search",
    AllPairsOptions,
    budget_option,
    compare_device_option,
    force_option("Replace existing outputs; drop an unfinished search with other options."),
)


@dataclasses.dataclass(frozen=True, slots=True)
class SegmentOptions(Options):
    """The limits of a segment of a run, in photos and seconds."""

    segment_rows: int
    segment_seconds: float

    def rules(self) -> SegmentRules:
        """The same for the library."""
        from ..storage.segments import SegmentRules

        return SegmentRules(self.segment_rows, self.segment_seconds)


segment_options = grouped(
    "segments",
    SegmentOptions,
    click.option("--segment-rows", type=Count(), default=defaults.SEGMENT_ROWS, hidden=True),
    click.option("--segment-seconds", type=Number(min=0.1), default=defaults.SEGMENT_SECONDS, hidden=True),
)


@dataclasses.dataclass(frozen=True, slots=True)
class PatternOptions(Options):
    """Names of files and folders to take and to leave out."""

    include: tuple[str, ...]
    exclude: tuple[str, ...]

    def patterns(self) -> Patterns:
        """The same for the library."""
        from ..sources.kinds import Patterns

        return Patterns(self.include, self.exclude)


pattern_options = grouped(
    "patterns",
    PatternOptions,
    click.option(
        "--include",
        multiple=True,
        metavar="GLOB",
        help="Take only files whose name, folder or path matches, such as '*.jpg' or 'badge'; repeatable.",
    ),
    click.option(
        "--exclude",
        multiple=True,
        metavar="GLOB",
        help="Leave out files and folders that match; repeatable. Always left out of folders, unless included: "
        "thumbnails and notes of NAS boxes and systems (@eaDir, .thumbnails, ._* and such).",
    ),
)


@dataclasses.dataclass(frozen=True, slots=True)
class LimitOptions(Options):
    """Limits above which photos are refused before decoding."""

    max_bytes: int
    max_pixels: int

    def limits(self) -> Limits:
        """The same for the library."""
        from ..images.decode import Limits

        return Limits(self.max_bytes, self.max_pixels)


limit_options = grouped(
    "limits",
    LimitOptions,
    count_option("--max-bytes", defaults.MAX_BYTES, "Skip files larger than this, in bytes."),
    count_option("--max-pixels", defaults.MAX_PIXELS, "Skip photos with more pixels than this."),
)


@dataclasses.dataclass(frozen=True, slots=True)
class WorkOptions(Options):
    """Device, decoder and sizes of a run; see `api.process`."""

    device: str
    decoder: str
    batch_size: int | None
    workers: int | None


def _count_option(name: str, largest: int, help_text: str) -> Decorator:
    kind = AutoOrCount(1, largest)
    return click.option(name, type=kind, default="auto", show_default=True, metavar="auto|N", help=help_text)


work_options = grouped(
    "work",
    WorkOptions,
    click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="auto|cpu|gpu|N[,N...]",
        help="Device that embeds: the CPU, the first GPU or GPU number N. Several, separated by commas, get one "
        "process each. auto: one process on the device of the engine.",
    ),
    click.option(
        "--decoder",
        type=click.Choice(["auto", "opencv", "dali"]),
        default="auto",
        show_default=True,
        help="Decoder of the photos. auto: DALI on the GPU for a TensorRT engine if it is installed, else OpenCV.",
    ),
    _count_option("--batch-size", LARGEST, "Images in one call of the engine; auto measures the best number."),
    _count_option("--workers", MOST_WORKERS, "Threads that decode; auto measures the best number."),
)
mode_option = click.option(
    "--mode",
    metavar="BITS",
    callback=options.permissions,
    help="Permissions of the embedding file, in octal, such as 640: everything made from it gets the same readers.  "
    "[default: 600; a replaced file keeps its own]",
)
dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default=defaults.DTYPE,
    show_default=True,
    help="Type of the stored embeddings. float16 takes half the disk.",
)
