"""A contract in words: what was decided before the first photo, for people who open a file years later."""

from __future__ import annotations

from collections.abc import Iterator

from ..storage.contract import EmbeddingContract

_FACES = {
    "largest": "the main face of each photo",
    "all": "every face of each photo, in a row of its own",
    "one": "only photos with exactly one face",
}
_ALIGN = {
    "auto": "faces are detected and aligned; photos of exactly the size of a crop are taken whole",
    "detect": "faces are detected and aligned in every photo",
    "none": "every photo is taken whole, as an aligned crop",
}


def contract_words(contract: EmbeddingContract) -> list[tuple[str, str]]:
    """The contract as names and sentences."""
    network = f"{contract.model}, sha256 {contract.model_sha256[:12]}, {contract.precision}"
    words = [
        ("Photos", f"below {contract.root}" + (f", the first {contract.limit:,}" if contract.limit else "")),
        ("Network", f"{network}: {contract.dimension} numbers a face, stored as {contract.dtype}"),
        ("Faces", "; ".join(filter(None, (_FACES.get(contract.faces), _ALIGN[contract.align or "none"])))),
    ]
    if contract.detector:
        second = f", and {contract.landmarks} looks at each face once more" if contract.landmarks else ""
        words.append(("Detector", f"{contract.detector}, {contract.detector_precision}{second}"))
        words.append(("Left out", "; ".join(_limits(contract)) or "nothing"))
    if contract.attributes_read:
        source = contract.attribute_source or "crops"
        names = " and ".join(contract.attributes_read)
        words.append(("Attributes", f"{names}, estimated by {contract.attribute_model} from {source}"))
    copies = "is left out" if contract.skip_duplicates else "has a row of its own"
    words.append(("Copies", f"a second copy of a photo {copies}"))
    return words


def _limits(contract: EmbeddingContract) -> Iterator[str]:
    """What kept faces out of the file."""
    for value, unit, name in (
        (contract.min_score, "", "confidence"),
        (contract.min_iod, " pixels", "distance between the eyes"),
        (contract.min_sharpness, "", "sharpness"),
        (contract.min_frontal, "", "frontality"),
        (contract.min_brightness, "", "brightness"),
        (contract.min_contrast, "", "contrast"),
    ):
        if value:
            yield f"a {name} below {value:g}{unit}"
    if contract.max_fit is not None and contract.max_fit < 1:
        yield f"landmarks farther than {contract.max_fit:g} from the template"
