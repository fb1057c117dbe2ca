"""Damage files at random places, run commands on them, and say what was wrong with the answer.

No damage may end in a traceback, a hang or a signal. And no answer may be silently wrong: `facemill verify` says whole
only when the content is the same, a search gives the right answer or an error, and a resumed run ends with the file of
an undisturbed run or with an error. Every case follows from its seed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from runtime.errors import FacemillError
from runtime.images.decode import ImageError, decode_image, decode_photo
from runtime.index.sidecar import mark_of
from runtime.modelspec import load_spec

from .embedding_files import differences
from .encoded_images import scene
from .faults.case import Templates, run
from .faults.laboratory import Laboratory, Outcome
from .faults.operations import CHANGES, kill
from .model_files import write_model_file, write_tiny_model
from .people_files import make_people

_BUG = ("Traceback", "this is a bug")
_BLOCK = 512  # bytes of a sector
_SOME_NUMBERS = (b"\0" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\1\0\0\0")

# A kind of case: damages something in the way of a random generator; returns what was wrong, or nothing.
Case = Callable[[random.Random], str]


def damage(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Damage bytes as a bad sector, a power cut or an attacker does; also says how."""
    if not data:
        return rng.randbytes(9), "noise in an empty file"
    changed = bytearray(data)
    at = rng.randrange(len(data))
    kind = rng.choice(["bits", "bits", "zeros", "sector", "cut", "noise", "number", "shift"])
    if kind == "bits":
        for _ in range(rng.choice([1, 1, 2, 8])):
            place = rng.randrange(len(data))
            changed[place] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del changed[at:]
    elif kind == "number":
        changed[at : at + 4] = rng.choice(_SOME_NUMBERS)
        del changed[len(data) :]
    elif kind == "shift":
        del changed[at : at + rng.randint(1, 8)]
    else:
        at = at // _BLOCK * _BLOCK if kind == "sector" else at
        stop = min(len(data), at + (_BLOCK if kind == "sector" else rng.randint(1, 2 * _BLOCK)))
        changed[at:stop] = rng.randbytes(stop - at) if kind == "noise" else bytes(stop - at)
    return bytes(changed), f"{kind} at {at} of {len(data)}"


def damage_file(path: Path, rng: random.Random) -> str:
    """Damage a file in place; returns how."""
    data, text = damage(path.read_bytes(), rng)
    path.write_bytes(data)
    return f"{path.name}: {text}"


# Photos and models, in this process

_TIFF = (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")


def encoded_photos() -> list[bytes]:
    """Small photos of all formats and of many of their variants."""
    image, photos = Image.fromarray(scene(72, 64)), []
    for kind, mode, options in (
        *(("JPEG", mode, {"quality": 70}) for mode in ("RGB", "L", "CMYK")),
        ("JPEG", "RGB", {"progressive": True, "subsampling": 2}),
        *(("PNG", mode, {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
        *(("BMP", mode, {}) for mode in ("RGB", "L", "P", "1")),
        *(("WEBP", mode, options) for mode in ("RGB", "RGBA") for options in ({}, {"lossless": True})),
        *(("TIFF", "RGB", {"compression": name}) for name in _TIFF),
        *(("TIFF", mode, {}) for mode in ("L", "RGBA", "1", "CMYK")),
        ("JPEG2000", "RGB", {}), ("AVIF", "RGB", {}), ("GIF", "P", {}),
    ):  # fmt: skip
        out = io.BytesIO()
        try:
            converted = image.convert("L").convert("I").convert("I;16") if mode == "I;16" else image.convert(mode)
            converted.save(out, kind, **options)
        except (KeyError, OSError, ValueError):  # this Pillow does not write it
            continue
        photos.append(out.getvalue())
    exif = Image.Exif()
    exif[0x112] = 6
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif)
    return [*photos, out.getvalue()]


def image_case() -> Case:
    """A damaged photo: pixels, or the reason why there are none."""
    photos = encoded_photos()

    def case(rng: random.Random) -> str:
        data, text = damage(rng.choice(photos), rng)
        for decode in (lambda: decode_image(data, size=32), lambda: decode_photo(data, long_side=40).pixels):
            try:
                pixels = decode()
            except ImageError as err:
                if "internal error" in err.message:
                    return f"{data[:4]!r} {text}: {err.message}"
                continue
            except Exception as err:
                return f"{data[:4]!r} {text}: {err!r}"
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
                return f"{data[:4]!r} {text}: pixels of {pixels.shape} {pixels.dtype}"
        return ""

    return case


_TOML_VALUES = (
    *("", "1", "-1", "1e999", "nan", "true", '""', '"x"', "[]", "[1, 2]", "[[[]]]", "{}", '"\\u0000"', '"../x"'),
    *("9" * 400, "[" * 3000),
)
_NAME_BYTES = b"=+-@\t\r\n\"';,<&%\x1b\x7f\x85\xc2\xff\xed\xa0 .aA\xe2\x80\xae"


def toml_case(folder: Path) -> Case:
    """A damaged description of a model: a model, or an error of ours."""
    path = write_model_file(folder / "model.toml")
    whole = path.read_bytes()

    def case(rng: random.Random) -> str:
        if rng.random() < 0.5:
            data, text = damage(whole, rng)
        else:
            lines = whole.decode().splitlines()
            number = rng.randrange(len(lines))
            lines[number] = f"{lines[number].split(' = ')[0]} = {rng.choice(_TOML_VALUES)}"
            data, text = "\n".join(lines).encode(), lines[number][:60]
        path.write_bytes(data)
        try:
            load_spec(str(path))
        except FacemillError:
            return ""
        except Exception as err:
            return f"{text}: {err!r}"
        return ""

    return case


# Files, by commands


class FileCases:
    """Cases that run commands in forked processes. Each works in a folder of its own.

    Attributes:
        kinds: the cases by name.
    """

    def __init__(self, laboratory: Laboratory, templates: Templates, folder: Path) -> None:
        self._laboratory, self._templates, self._folder = laboratory, templates, folder
        self._engine = ("--engine", str(templates.engine))
        self._query = str(templates.photos / "P00" / "1.jpg")
        self._hits: dict[str, object] = {}
        folder.mkdir(exist_ok=True)
        self.kinds: dict[str, Case] = {
            "embedding file": self._embedding_file,
            "index": self._index,
            "run folder": self._run_folder,
            "model file": self._model,
            "name of a photo": self._names,
        }

    def _run(self, *arguments: object) -> Outcome:
        return self._laboratory.run([*map(str, arguments)], self._folder)

    def _fresh(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()

    @staticmethod
    def _ended_badly(outcome: Outcome) -> str:
        if outcome.hang:
            return "hangs"
        if outcome.code < 0:
            return f"is ended by the signal {-outcome.code}"
        if any(text in outcome.stderr for text in _BUG):
            return f"shows a traceback: {outcome.stderr[-1000:]}"
        return ""

    def _search(self, file: Path, kind: str) -> tuple[Outcome, object]:
        """Search a file; also the rows and scores that it answers."""
        outcome = self._run("search", file, self._query, "-k", 5, "--index", kind, "--json", *self._engine)
        hits: object = None
        if outcome.code == 0:
            hits = [
                [(hit["row"], hit["path"], round(hit["score"], 6)) for hit in answer["hits"]]
                for answer in map(json.loads, outcome.stdout.splitlines())
            ]
        return outcome, hits

    def _right_hits(self, source: Path, kind: str) -> object:
        name = f"{source.stem}-{kind}"
        if name not in self._hits:
            plain = Path(shutil.copy(source, self._templates.folder / f"plain-{name}.h5"))
            outcome, self._hits[name] = self._search(plain, kind)
            assert outcome.code == 0, outcome.stderr
        return self._hits[name]

    def _embedding_file(self, rng: random.Random) -> str:
        self._fresh()
        whole, file = self._templates.full, self._folder / "o.h5"
        expected = self._right_hits(whole, "flat")
        shutil.copy(whole, file)
        how = damage_file(file, rng)
        outcome = self._run("verify", file)
        wrong = self._ended_badly(outcome)
        if not wrong and outcome.code == 0 and (names := differences(file, whole)):
            wrong = f"says whole, but {names} differ"
        if wrong:
            return f"{how}: verify {wrong}"
        command = rng.choice(["search", "repair", "npy", "remove", "merge", "pairs"])
        if command == "search":
            outcome, hits = self._search(file, "flat")
            wrong = self._ended_badly(outcome)
            if not wrong and outcome.code == 0 and hits != expected:
                wrong = "gives a wrong answer"
        else:
            outcome = self._run(*{
                "repair": ("repair", file, "-o", self._folder / "r.h5"),
                "npy": ("export", file, "--npy", self._folder / "npy"),
                "remove": ("remove", file, "--path", "P01/", "--yes"),
                "merge": ("merge", file, self._templates.rest, "-o", self._folder / "m.h5", "--prefer", "first"),
                "pairs": ("pairs", file, "--threshold", "0.1", "-o", self._folder / "p.csv"),
            }[command])  # fmt: skip
            wrong = self._ended_badly(outcome)
            made = self._folder / {"repair": "r.h5", "merge": "m.h5", "remove": "o.h5"}.get(command, "none")
            if not wrong and outcome.code == 0 and made.exists():
                verified = self._run("verify", made)
                wrong = f"writes a damaged file: {verified.stdout[-300:]}" if verified.code else ""
        return f"{how}: {command} {wrong}" if wrong else ""

    def _many(self) -> Path:
        def embed(path: Path) -> None:
            folder = self._templates.folder / "many"
            make_people(folder, range(100, 230), 2)
            run(*self._templates.process(folder, path, "--segment-rows", "1000"))

        return self._templates.made("many.h5", embed)

    def _index(self, rng: random.Random) -> str:
        kind = rng.choice(["flat", "ivf", "sq8"])
        source = self._many()
        expected = self._right_hits(source, kind)
        self._fresh()
        plain = f"plain-{source.stem}-{kind}"
        file = Path(shutil.copy2(self._templates.folder / f"{plain}.h5", self._folder / "o.h5"))
        for path in self._templates.folder.glob(f"{plain}.h5.*"):
            shutil.copy2(path, self._folder / path.name.replace(plain, "o"))
        indexes = sorted(path for path in self._folder.iterdir() if path != file)
        how = damage_file(rng.choice(indexes), rng)
        signed = rng.random() < 0.3
        if signed:
            self._sign(self._folder)
        outcome, hits = self._search(file, kind)
        wrong = self._ended_badly(outcome)
        if not wrong and outcome.code == 0 and not signed and hits != expected:
            wrong = f"gives a wrong answer: {hits}"
        elif not wrong and outcome.code == 0 and signed and not _is_true(hits, self._right_hits(source, "flat")):
            # Whoever may write the index and its sidecar can hide a row; only `verify` sees that. No score is invented.
            wrong = f"gives hits that are not in the file: {hits}"
        return f"{kind}, {how}: search {wrong}" if wrong else ""

    @staticmethod
    def _sign(folder: Path) -> None:
        """Let the sidecars say that the damaged indexes are right."""
        for card_path in folder.glob("*.json"):
            index = card_path.with_suffix("")
            try:
                card = json.loads(card_path.read_text())
                card["sha256"] = hashlib.sha256(index.read_bytes()).hexdigest()
                card["mark"] = mark_of(index)
            except (OSError, ValueError, TypeError):
                continue
            card_path.write_text(json.dumps(card))

    def _stopped_run(self) -> Path:
        """The folder of a run that was killed between two segments."""

        def stop(path: Path) -> None:
            path.mkdir()
            command = self._templates.process(self._templates.photos, path / "o.h5")
            _, recorded = self._laboratory.record(command, path)
            changes = [item for item in recorded if not item.happened and item.kind in CHANGES]
            second = [number for number, item in enumerate(changes, 1) if "segment-000002" in item.path][-1]
            shutil.rmtree(path)
            path.mkdir()
            self._laboratory.run(command, path, kill(second + 1))

        return self._templates.made("stopped", stop)

    def _run_folder(self, rng: random.Random) -> str:
        stopped = self._stopped_run()
        self._fresh()
        shutil.copytree(stopped / "o.h5.parts", self._folder / "o.h5.parts")
        names = sorted(path.name for path in (self._folder / "o.h5.parts").iterdir())
        how = damage_file(self._folder / "o.h5.parts" / rng.choice(names), rng)
        outcome = self._run(*self._templates.process(self._templates.photos, self._folder / "o.h5"))
        wrong = self._ended_badly(outcome)
        if not wrong and outcome.code == 0 and (names := differences(self._folder / "o.h5", self._templates.full)):
            wrong = f"ends with exit 0, and the file differs in {names}"
        return f"{how}: process {wrong}" if wrong else ""

    def _model(self, rng: random.Random) -> str:
        self._fresh()
        model = write_tiny_model(self._folder)
        how = damage_file(next(self._folder.glob("*.onnx")), rng)
        outcome = self._run("build-engine", "--model", model, "--backend", "cpu", "--precision", "fp32")
        wrong = self._ended_badly(outcome)
        return f"{how}: build-engine {wrong}" if wrong else ""

    def _names(self, rng: random.Random) -> str:
        self._fresh()
        photos = self._folder / "photos"
        for number in range(3):
            name = bytes(rng.choice(_NAME_BYTES) for _ in range(rng.randint(1, 60)))
            folder = photos / rng.choice(["a", "=b", "c\n", " "])
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(self._templates.photos / f"P0{number}" / "0.jpg", bytes(folder) + b"/x" + name + b".jpg")
        file = self._folder / "o.h5"
        commands = (
            self._templates.process(photos, file),
            ("verify", file),
            ("search", file, self._query, "--csv", *self._engine),
            ("search", file, self._query, "--html", self._folder / "s.html", *self._engine),
            ("pairs", file, "--threshold", "0.0", "-o", self._folder / "p.csv", "--html", self._folder / "p.html"),
            ("cluster", file, "--threshold", "0.1", "--folders", self._folder / "f", "-o", self._folder / "c.csv"),
        )
        for command in commands:
            outcome = self._run(*command)
            wrong = self._ended_badly(outcome) or (f"ends with {outcome.code}" if outcome.code else "")
            if wrong:
                names = [name for _, name in _names_below(bytes(photos))]
                return f"{names}: {command[0]} {wrong}: {outcome.stderr[-300:]}"
        return ""


def _is_true(hits: object, best: object) -> bool:
    """Whether a search gave scores of the file: none is above the one of its rank, and the rows that agree do so."""
    scores = {row: score for answer in best for row, _, score in answer}  # type: ignore[attr-defined]
    return all(
        scores.get(row, score) == score and score <= right[2]
        for answer, expected in zip(hits, best, strict=True)  # type: ignore[call-overload]
        for (row, _, score), right in zip(answer, expected, strict=False)
    )


def _names_below(folder: bytes) -> Iterator[tuple[bytes, bytes]]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield parent, name
