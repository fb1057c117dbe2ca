"""Model files: every key is checked, and every mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.errors import ModelError
from runtime.modelspec import list_specs, load_spec
from tests.support.errors import Values, raises

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


def test_a_valid_model_file_is_read(tmp_path: Path) -> None:
    spec = load_spec(str(write(tmp_path)))
    assert (spec.name, spec.mean, spec.std) == ("m", (127.5,) * 3, (128.0,) * 3)
    assert spec.trained
    assert (spec.url, spec.sha256, spec.size_bytes, spec.generator) == (None, None, None, None)
    assert spec.folder == tmp_path


def test_an_older_detector_model_file_is_read(tmp_path: Path) -> None:
    spec = load_spec(str(write(tmp_path, detector='"scrfd"')))
    assert (spec.task, spec.decode) == ("detect", "scrfd")


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"size": None}, ("size",)),
        ({"size": "0"}, ("size", 0, 1)),
        ({"size": "true"}, ("size", "True")),
        ({"size": '"112"'}, ("size", "'112'")),
        ({"channel_order": '"RGB"'}, ("channel_order", "RGB")),
        ({"mean": "[1, 2]"}, ("mean", "[1, 2]")),
        ({"mean": '["a", 1, 2]'}, ("mean", "['a', 1, 2]")),
        ({"std": "[1, 0, 1]"}, ("std", "[1, 0, 1]", 0)),
        ({"file": '"../m.onnx"'}, ("file", "../m.onnx")),
        ({"file": '""'}, ("file", "''")),
        ({"sha256": '"abc"'}, ("sha256", "abc", 64)),
        ({"trained": '"no"'}, ("trained", "no", "true", "false")),
        ({"generator": "3"}, ("generator", 3)),
        ({"generator": '{form = "128"}'}, ('form = "128" or "512"',)),
        ({"generator": "{form = 128, seed = 0}"}, ('form = "128" or "512"',)),
        ({"generator": '{form = "128", seed = "0"}'}, ("seed",)),
        ({"generator": "{layers = 3}"}, ("layers", "form", "seed")),
        ({"task": '"video"'}, ("task", "video", "embed", "detect", "landmarks", "attributes")),
        ({"task": '"landmarks"'}, ("dimension", 512, 15)),
        ({"task": '"landmarks"', "dimension": "15", "decode": '"yunet"'}, ("decode", "yunet", "landmarks")),
        ({"task": '"detect"'}, ("decode", "''")),
        ({"decode": '"yunet"'}, ("decode", "yunet")),
        ({"title": "3"}, ("title", 3)),
        ({"colour": '"rgb"'}, ("colour",)),
        ({"name": "="}, ("TOML",)),
    ],
)
def test_every_mistake_names_file_key_and_value(changes: dict[str, str | None], values: Values, tmp_path: Path) -> None:
    with raises(ModelError, "m.toml", *values):
        load_spec(str(write(tmp_path, **changes)))


def test_an_onnx_file_alone_is_refused_with_the_toml_to_write(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_spec("/models/mine.onnx")
    text = str(caught.value)
    assert "--model /models/mine.toml" in text
    toml = text.split("\n\n", 1)[1]
    (tmp_path / "mine.toml").write_text(toml)  # the text in the message is a valid model file
    assert load_spec(str(tmp_path / "mine.toml")).file == "mine.onnx"


def test_the_toml_of_a_detector_is_a_detector_model_file(tmp_path: Path) -> None:
    with raises(ModelError, "--detector /models/mine.toml") as caught:
        load_spec("/models/mine.onnx", task="detect")
    (tmp_path / "mine.toml").write_text(str(caught.value).split("\n\n", 1)[1])
    written = load_spec(str(tmp_path / "mine.toml"))
    registered = load_spec("scrfd-500m")
    assert (written.task, written.decode, written.dimension, written.size) == (
        "detect",
        registered.decode,
        registered.dimension,
        registered.size,
    )
    assert written.channel_order == registered.channel_order


def test_the_toml_of_a_landmark_network_is_a_landmark_model_file(tmp_path: Path) -> None:
    with raises(ModelError, "--landmarks /models/mine.toml") as caught:
        load_spec("/models/mine.onnx", task="landmarks")
    (tmp_path / "mine.toml").write_text(str(caught.value).split("\n\n", 1)[1])
    written, registered = load_spec(str(tmp_path / "mine.toml")), load_spec("facemill-landmarks")
    assert (written.task, written.dimension, written.size) == ("landmarks", registered.dimension, registered.size)


def test_unknown_names_get_the_nearest_name_and_the_list() -> None:
    with raises(ModelError, "w600k_mbf") as caught:
        load_spec("w600k-mbf")
    assert "mobilefacenet-128" in str(caught.value)
    with raises(ModelError, "gone.toml"):
        load_spec("gone.toml")


def test_all_registered_models_are_readable_and_name_their_file() -> None:
    specs = {spec.name: spec for spec in list_specs()}
    assert specs.keys() >= {
        "facemill-512", "facemill-det", "facemill-landmarks", "mobilefacenet-128", "mobilenetv2", "random-128",
        "random-512", "scrfd-2.5g", "scrfd-500m", "sface", "w600k_mbf", "yunet",
    }  # fmt: skip
    for spec in specs.values():
        assert spec.trained == (not spec.generator)
        assert spec.generator or spec.sha256


def test_models_in_the_users_folder_are_added_and_take_precedence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEMILL_MODELS", str(tmp_path))
    write(tmp_path).rename(tmp_path / "mine.toml")
    write(tmp_path, title='"changed"').rename(tmp_path / "sface.toml")
    assert load_spec("mine").folder == tmp_path
    assert load_spec("sface").title == "changed"
    monkeypatch.setenv("FACEMILL_MODELS", str(tmp_path / "gone"))
    with raises(ModelError, tmp_path / "gone"):
        load_spec("sface")


def test_a_model_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with (tmp_path / "x.toml").open("wb") as file:
        file.truncate(20 << 30)
    with raises(ModelError, tmp_path / "x.toml", f"{20 << 30:,}"):
        load_spec(str(tmp_path / "x.toml"))
    monkeypatch.setenv("FACEMILL_MODELS", str(tmp_path))
    assert "x" not in [spec.name for spec in list_specs()]
    assert str(tmp_path / "x.toml") in caplog.text
    write(tmp_path).write_text((tmp_path / "m.toml").read_text() + "\n#".ljust(1 << 19, "x"))
    assert load_spec(str(tmp_path / "m.toml")).name == "m"
