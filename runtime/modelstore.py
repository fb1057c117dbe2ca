"""The ONNX files of models on this machine: find, check and fetch them."""

from __future__ import annotations

import hashlib
import logging
from contextlib import suppress
from pathlib import Path

from .assets import cache_dir
from .errors import FacemillError, FetchError, ModelError, ModelUnavailableError
from .fetch import fetch, sha256_of
from .files import write_durable
from .modelspec import ModelSpec, load_spec, user_folder
from .progress import Listener
from .regular import open_regular

logger = logging.getLogger(__name__)

# The SHIPPED files are in the checkout and the wheel. The BETTER ones must be fetched or copied by the user.
SHIPPED, BETTER = "facemill-512", "w600k_mbf"
SHIPPED_DETECTOR, BETTER_DETECTOR = "facemill-det", "yunet"
SHIPPED_LANDMARKS = "facemill-landmarks"
SHIPPED_ATTRIBUTES = "facemill-attributes"


def default_model(resumed: str = "") -> str:
    """The name of the default model for embeddings.

    It is the better one if its file is on this machine, else the included one. Nothing is fetched.

    Args:
        resumed: the model of the file that is resumed. If it is one of the two, it is kept.
    Raises:
        ModelError: FACEMILL_MODELS is not a folder.
    """
    return _default("model", SHIPPED, BETTER, "a more accurate one", resumed)


def default_detector(resumed: str = "") -> str:
    """The name of the default model for face detection; see `default_model`."""
    advantage = "one that detects more small faces, under the MIT licence"
    return _default("detector", SHIPPED_DETECTOR, BETTER_DETECTOR, advantage, resumed)


def _default(role: str, shipped: str, better: str, advantage: str, resumed: str) -> str:
    if resumed in (shipped, better):
        logger.info("%s: %s, as in the resumed file", role, resumed)
        return resumed
    if find_weights(load_spec(better)):
        logger.info("%s: %s, which is on this machine; the included one: --%s %s", role, better, role, shipped)
        return better
    use = load_spec(shipped).licence.partition(":")[0]
    _log_once(f"{role}: {shipped}, which is included, for {use}; {advantage}: facemill models fetch {better}")
    return shipped


def _log_once(text: str) -> None:
    """Log a text at its first time on this machine; a note in the cache says that it was logged."""
    note = cache_dir("notes") / hashlib.sha256(text.encode()).hexdigest()[:16]
    if note.exists():
        return
    logger.info("%s", text)
    with suppress(FacemillError, OSError):  # then it is logged again
        write_durable(note, text.encode(), "the note", shared=True, wait=True)


def find_weights(spec: ModelSpec) -> Path | None:
    """Find the ONNX file of a model next to its TOML file, in $FACEMILL_MODELS or in the cache; else None.

    `check_weights` checks its checksum; this function does not.
    """
    for folder in (spec.folder, *user_folder(), cache_dir("models")):
        if (folder / spec.file).is_file():
            return folder / spec.file
    return None


def check_weights(spec: ModelSpec, path: Path) -> None:
    """Check the checksum of an ONNX file.

    Raises:
        ModelError: the file does not match the model file.
    """
    if spec.sha256 is not None and (actual := sha256_of(path)) != spec.sha256:
        raise ModelError(
            f"{path} is {mistaken_for(path)}not the file of {spec.name}: its sha256 is {actual}; expected: "
            f"{spec.sha256}. Delete it and run: facemill models fetch {spec.name}"
        )


def mistaken_for(path: Path) -> str:
    """What often lies in the place of an ONNX file, for a message: a Git LFS pointer, an HTML page; else empty."""
    with open(open_regular(path), "rb") as file:
        start = file.read(256).lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer (run git lfs pull there), "
    return "an HTML page, " if start.startswith((b"<!doctype html", b"<html")) else ""


def resolve_weights(spec: ModelSpec, listener: Listener | None = None) -> Path:
    """Find the ONNX file of a model, or fetch it into the cache and log its licence.

    Args:
        spec: a registered model.
        listener: receives the progress of a download; None logs a line every five seconds.
    Raises:
        ModelUnavailableError: the file is not on this machine and cannot be fetched.
        ModelError: the file does not match the model file.
    """
    path = find_weights(spec)
    if path is None:
        path = cache_dir("models") / spec.file
        _fetch(spec, path, listener)
    check_weights(spec, path)
    return path


def _fetch(spec: ModelSpec, path: Path, listener: Listener | None) -> None:
    reason = "it has no download address"
    if spec.url is not None:
        logger.warning("fetching %s from %s; its licence: %s", spec.name, spec.url, spec.licence)
        try:
            fetch(spec.url, path, sha256=spec.sha256, size_bytes=spec.size_bytes, listener=listener)
            return
        except FetchError as err:
            reason = str(err)
    raise ModelUnavailableError(
        f"the weights of {spec.name} are not on this machine, and cannot be fetched: {reason}.\n"
        f"  file:     {spec.file}\n"
        f"  address:  {spec.url or 'none'}\n"
        f"  sha256:   {spec.sha256 or 'unknown'}\n"
        f"  licence:  {spec.licence}\n"
        f"Put the file into {path.parent}, or into your own folder, and run: export FACEMILL_MODELS=/your/folder"
    )
