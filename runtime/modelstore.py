"""The ONNX files of models on this machine: found, checked, fetched."""

from __future__ import annotations

import logging
from pathlib import Path

from .assets import cache_dir
from .errors import FetchError, ModelError, ModelUnavailableError
from .fetch import fetch
from .fetch import sha256_of as sha256_of  # others take it from here
from .modelspec import ModelSpec, load_spec, own_folder
from .progress import Listener

logger = logging.getLogger(__name__)

# The files of these are in the checkout and in the wheel; those of the better ones have to be fetched, or brought.
SHIPPED, BETTER = "facemill-512", "w600k_mbf"
SHIPPED_DETECTOR, BETTER_DETECTOR = "facemill-det", "yunet"


def default_model(begun: str = "") -> str:
    """The name of the model to embed with where none was asked for.

    The better one where its file is on this machine, else the shipped one, which answers at once: nothing is fetched.

    Args:
        begun: the model that a file was begun with: if it is one of the two, it stays.
    Raises:
        ModelError: FACEMILL_MODELS names no folder.
    """
    return _default("model", SHIPPED, BETTER, "a more accurate one", begun)


def default_detector(begun: str = "") -> str:
    """The name of the model to look for faces with where none was asked for; as `default_model`."""
    why = "one that sees more small faces, under the MIT licence"
    return _default("detector", SHIPPED_DETECTOR, BETTER_DETECTOR, why, begun)


def _default(what: str, shipped: str, better: str, why: str, begun: str) -> str:
    if begun in (shipped, better):
        logger.info("%s: %s, with which the file was begun", what, begun)
        return begun
    if find_weights(load_spec(better)):
        logger.info("%s: %s, which is on this machine; the shipped one: --%s %s", what, better, what, shipped)
        return better
    use = load_spec(shipped).licence.partition(":")[0]
    logger.info("%s: %s, which is shipped, for %s; %s: facemill models fetch %s", what, shipped, use, why, better)
    return shipped


def find_weights(spec: ModelSpec) -> Path | None:
    """The model's ONNX file on this machine, or None: beside its TOML, in $FACEMILL_MODELS, in the cache.

    Its checksum is not looked at here: `check_weights` does.
    """
    for folder in (spec.folder, *own_folder(), cache_dir("models")):
        if (folder / spec.file).is_file():
            return folder / spec.file
    return None


def check_weights(spec: ModelSpec, path: Path) -> None:
    """Refuse a file that is not the one that the model file states.

    Raises:
        ModelError: naming both checksums.
    """
    if spec.sha256 is not None and (seen := sha256_of(path)) != spec.sha256:
        raise ModelError(
            f"{path} is not the file of {spec.name}: its sha256 is {seen}; expected: {spec.sha256}. "
            f"Delete it and run: facemill models fetch {spec.name}"
        )


def resolve_weights(spec: ModelSpec, listener: Listener | None = None) -> Path:
    """The model's ONNX file: found here, else fetched into the cache with its licence named.

    Args:
        spec: a registered model.
        listener: shows the progress of a download; None logs a line every five seconds.
    Raises:
        ModelUnavailableError: it is neither here nor to be fetched; the message says where to put it.
        ModelError: the file is another one.
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
        f"  address:  {spec.url or 'none is known'}\n"
        f"  sha256:   {spec.sha256 or 'not stated'}\n"
        f"  licence:  {spec.licence}\n"
        f"Put the file into {path.parent}, or into a folder of yours and name that: export FACEMILL_MODELS=/that/folder"
    )
