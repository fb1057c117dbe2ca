"""Model files: every key is looked at, and every mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import ModelError
from runtime.modelspec import list_specs, load_spec

GOOD = {
    "name": '"m"',
    "title": '"a model"',
    "file": '"m.onnx"',
    "input_name": '""',
    "output_name": '""',
    "size": "112",
    "channel_order": '"rgb"',
    "mean": "[127.5, 127.5, 127.5]",
    "std": "[128, 128, 128]",
    "dimension": "512",
    "licence": '"MIT"',
    "accuracy": '"none"',
    "accuracy_source": '"none"',
}


def write(folder: Path, **changes: str | None) -> Path:
    path = folder / "m.toml"
    values = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    path.write_text("\n".join(f"{key} = {value}" for key, value in values.items()))
    return path


def test_a_good_model_file(tmp_path: Path) -> None:
    spec = load_spec(str(write(tmp_path)))
    assert (spec.name, spec.mean, spec.std) == ("m", (127.5,) * 3, (128.0,) * 3)
    assert spec.trained
    assert (spec.url, spec.sha256, spec.size_bytes, spec.generator) == (None, None, None, None)
    assert spec.folder == tmp_path


def test_a_detectors_model_file_of_before_is_read(tmp_path: Path) -> None:
    spec = load_spec(str(write(tmp_path, detector='"scrfd"')))
    assert (spec.task, spec.decode) == ("detect", "scrfd")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": None}, "size is missing; expected: a whole number"),
        ({"size": "0"}, "size is 0; expected: a whole number from 1"),
        ({"size": "true"}, "size is True"),
        ({"size": '"112"'}, "size is '112'"),
        ({"channel_order": '"RGB"'}, "channel_order is 'RGB'"),
        ({"mean": "[1, 2]"}, "mean is"),
        ({"mean": '["a", 1, 2]'}, "mean is"),
        ({"std": "[1, 0, 1]"}, "above 0"),
        ({"file": '"../m.onnx"'}, "without a folder"),
        ({"file": '""'}, "without a folder"),
        ({"sha256": '"abc"'}, "64 hexadecimal digits"),
        ({"trained": '"no"'}, "true or false"),
        ({"generator": "3"}, "a table"),
        ({"generator": '{form = "128"}'}, 'form = "128" or "512"'),
        ({"generator": "{form = 128, seed = 0}"}, 'form = "128" or "512"'),
        ({"generator": '{form = "128", seed = "0"}'}, "seed = a whole number"),
        ({"generator": "{layers = 3}"}, "unknown key 'layers'; expected: form, seed"),
        ({"task": '"landmarks"'}, 'task is \'landmarks\'; expected: "embed" or "detect"'),
        ({"task": '"detect"'}, "decode is ''; expected: the name of a decoder"),
        ({"decode": '"yunet"'}, "decode is 'yunet'; expected: nothing"),
        ({"title": "3"}, "title is 3; expected: text"),
        ({"colour": '"rgb"'}, "unknown key 'colour'"),
        ({"name": "="}, "is not TOML"),
    ],
)
def test_every_mistake_names_file_key_and_value(changes: dict[str, str | None], words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        load_spec(str(write(tmp_path, **changes)))
    assert "m.toml" in str(caught.value)


def test_an_onnx_file_alone_gets_the_toml_that_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_spec("/models/mine.onnx")
    text = str(caught.value)
    assert "--model /models/mine.toml" in text
    toml = text.split("\n\n", 1)[1]
    (tmp_path / "mine.toml").write_text(toml)  # what the message says to write is a model file
    assert load_spec(str(tmp_path / "mine.toml")).file == "mine.onnx"


def test_of_a_detector_the_toml_is_a_detectors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"--detector /models/mine\.toml") as caught:
        load_spec("/models/mine.onnx", detects=True)
    (tmp_path / "mine.toml").write_text(str(caught.value).split("\n\n", 1)[1])
    mine = load_spec(str(tmp_path / "mine.toml"))
    known = load_spec("scrfd-500m")
    assert (mine.task, mine.decode, mine.dimension, mine.size) == ("detect", known.decode, known.dimension, known.size)
    assert mine.channel_order == known.channel_order


def test_unknown_names_get_the_nearest_and_the_list() -> None:
    with pytest.raises(ModelError, match="did you mean w600k_mbf") as caught:
        load_spec("w600k-mbf")
    assert "mobilefacenet-128" in str(caught.value)
    with pytest.raises(ModelError, match="cannot be read"):
        load_spec("gone.toml")


def test_the_registered_models_are_all_readable_and_know_their_file() -> None:
    specs = {spec.name: spec for spec in list_specs()}
    assert specs.keys() >= {
        "facemill-512", "facemill-det", "mobilefacenet-128", "mobilenetv2", "random-128", "random-512", "scrfd-2.5g",
        "scrfd-500m", "sface", "w600k_mbf", "yunet",
    }  # fmt: skip
    for spec in specs.values():
        assert spec.trained == (not spec.generator)
        assert spec.generator or spec.sha256


def test_the_users_folder_adds_models_and_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEMILL_MODELS", str(tmp_path))
    write(tmp_path).rename(tmp_path / "mine.toml")
    write(tmp_path, title='"changed"').rename(tmp_path / "sface.toml")
    assert load_spec("mine").folder == tmp_path
    assert load_spec("sface").title == "changed"
    monkeypatch.setenv("FACEMILL_MODELS", str(tmp_path / "gone"))
    with pytest.raises(ModelError, match="which is no folder"):
        load_spec("sface")
