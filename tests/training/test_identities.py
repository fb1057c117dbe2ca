"""Training on crops with identities, if torch is installed: falling losses, exact resume, correct triplets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.errors import Values, assert_names, raises
from tests.support.training_extra import settings_of, torch_of_extra, write_tar

torch = torch_of_extra()

PEOPLE, SHOTS = 16, 4
TWO_STAGES = "[{start:0,loss:triplet,miner:all},{start:64,loss:triplet,miner:hard}]"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tars: 64 generated crops of 16 persons, and one person with a single crop."""
    folder = tmp_path_factory.mktemp("data")
    write_tar(folder / "people.tar", {f"p{i // SHOTS:02d}/{i % SHOTS}.jpg": (i // SHOTS, i % SHOTS) for i in range(64)})
    write_tar(folder / "single.tar", {"lonely/0.jpg": (PEOPLE, 0)})
    return folder


def config(data: Path, run: Path, **changes: Any) -> Any:
    overrides = {
        "data": data,
        "tars": "[people.tar]",
        "run": run,
        "samples": 3200,
        "batch": 32,
        "held_out": 0,
        "objectives": TWO_STAGES,
        "warm_up": 64,
        "hold": 3200,
        "stages": "[[0,48]]",
        "backbone.width": 0.25,
        "backbone.dimension": 64,
        **changes,
    }
    return settings_of("identities", overrides)


def trainer_of(data: Path, run: Path, **changes: Any) -> Any:
    from training.train_identities import IdentityTrainer

    return IdentityTrainer(config(data, run, **changes))


# All 64 crops in each batch without augmentation, so that losses are comparable.
PLAIN = {
    "+augmentation": "{flip:0,rotation:0,scale:0,shift:0,colour:0,grey:0,blur:0,downscale:0,noise:0,occlusion:0}",
    "augmentation.jpeg": 0,
    "bfloat16": "false",
    "batch": 64,
    "stages": "[[0,32]]",
    "warm_up": 1,
    "learning_rate": 3e-3,
}


@pytest.mark.parametrize("miner", ["all", "semihard"])
def test_the_loss_falls_in_both_stages_of_triplets(data: Path, tmp_path: Path, miner: str) -> None:
    first = f"{{start:0,loss:triplet,miner:{miner},margin:0.5}}"
    second = f"{{start:{16 * 64},loss:triplet,miner:hard,margin:0.8}}"  # a larger drop than in the first stage
    trainer = trainer_of(data, tmp_path, **{**PLAIN, "objectives": f"[{first},{second}]"})
    losses = [trainer.step()["loss"] for _ in range(40)]
    for stage in (losses[:16], losses[16:]):
        assert np.mean(stage[-5:]) < 0.75 * np.mean(stage[:5])


@pytest.mark.parametrize("loss", ["arcface", "cosface"])
def test_the_loss_falls_with_class_losses(data: Path, tmp_path: Path, loss: str) -> None:
    trainer = trainer_of(data, tmp_path, **{**PLAIN, "objectives": f"[{{start:0,loss:{loss}}}]"})
    losses = [trainer.step()["loss"] for _ in range(16)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_the_stage_changes_at_its_sample_count_and_the_optimizer_continues(data: Path, tmp_path: Path) -> None:
    trainer = trainer_of(data, tmp_path)
    assert [trainer.step()["stage"] for _ in range(4)] == [1, 1, 2, 2]
    assert (trainer.state.step, trainer.state.samples) == (4, 128)


@pytest.mark.parametrize("second", ["triplet,miner:hard", "arcface"])
def test_a_resumed_run_equals_an_uninterrupted_one(data: Path, tmp_path: Path, second: str) -> None:
    from training.loop import save

    objectives = f"[{{start:0,loss:triplet}},{{start:96,loss:{second}}}]"
    uninterrupted = trainer_of(data, tmp_path / "a", objectives=objectives)
    losses = [uninterrupted.step()["loss"] for _ in range(7)]
    first = trainer_of(data, tmp_path / "b", objectives=objectives)
    first_losses = [first.step()["loss"] for _ in range(4)]  # one step into the second stage
    save(first)
    resumed = trainer_of(data, tmp_path / "b", objectives=objectives)
    assert resumed.state.step == 4
    assert first_losses + [resumed.step()["loss"] for _ in range(3)] == losses
    for resumed_value, expected_value in zip(
        flatten_state(resumed.state), flatten_state(uninterrupted.state), strict=True
    ):
        assert torch.equal(resumed_value, expected_value)


def flatten_state(state: Any) -> list[Any]:
    networks = (state.student, state.ema, state.head)
    return [value for network in networks for value in network.state_dict().values()]


def test_a_run_starts_with_the_averaged_weights_of_a_distilled_network(data: Path, tmp_path: Path) -> None:
    from training.loop import save

    distilled = trainer_of(data, tmp_path / "a", seed=5)
    for _ in range(2):
        distilled.step()
    save(distilled)
    started = trainer_of(data, tmp_path / "b", start=tmp_path / "a" / "last.pt")
    assert (started.state.step, started.state.samples) == (0, 0)
    for network in (started.state.student, started.state.ema):
        for weights, expected in zip(
            network.state_dict().values(), distilled.state.ema.state_dict().values(), strict=True
        ):
            assert torch.equal(weights, expected)


@pytest.mark.parametrize("loss", ["arcface", "cosface"])
def test_class_weights_are_created_on_the_device_of_the_run(loss: str) -> None:
    """Use a device that every machine has and that is not the CPU."""
    from training.objectives import Objective, Stage

    with torch.device("meta"):
        objective = Objective(Stage(0, loss), classes=5, dimension=16)
    assert [p.device.type for p in objective.parameters()] == ["meta"]


def test_a_run_of_another_kind_is_not_resumed(data: Path, tmp_path: Path) -> None:
    from training.loop import save

    started = trainer_of(data, tmp_path)
    save(started)
    content = torch.load(tmp_path / "last.pt", weights_only=True)
    content["config"]["teacher"] = {"path": "teacher.xml"}
    torch.save(content, tmp_path / "last.pt")
    with raises(ValueError, "last.pt", "teacher=", "run="):
        trainer_of(data, tmp_path)


def embeddings_of_noise(seed: int = 0) -> tuple[Any, Any]:
    rng = torch.Generator().manual_seed(seed)
    persons = torch.arange(8).repeat_interleave(4)
    around = torch.randn(8, 16, generator=rng).repeat_interleave(4, 0)
    return around + torch.randn(32, 16, generator=rng), persons


def distances(embeddings: Any) -> NDArray[np.float64]:
    unit = embeddings.double().numpy()
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return np.sqrt(np.square(unit[:, None] - unit[None]).sum(axis=2))


def test_the_hard_miner_selects_the_furthest_same_person_and_the_nearest_other() -> None:
    from training.objectives import Objective, Stage

    embeddings, persons = embeddings_of_noise()
    a, p, n = (
        rows.numpy() for rows in Objective(Stage(0, "triplet", "hard"), 8, 16).mine_triplets(embeddings, persons)
    )
    apart = distances(embeddings)
    same = persons.numpy()[:, None] == persons.numpy()[None]
    assert sorted(a) == list(range(32))
    assert (p == np.where(same, apart, -1)[a].argmax(axis=1)).all()
    assert (n == np.where(same, 9, apart)[a].argmin(axis=1)).all()


def test_the_semihard_miner_selects_triplets_within_the_margin() -> None:
    from training.objectives import Objective, Stage

    embeddings, persons = embeddings_of_noise()
    objective = Objective(Stage(0, "triplet", "semihard", margin=0.3), 8, 16)
    triplets = {tuple(triplet) for triplet in torch.stack(objective.mine_triplets(embeddings, persons), 1).tolist()}
    apart, person = distances(embeddings), persons.numpy()
    expected = {
        (a, p, n)
        for a in range(32)
        for p in range(32)
        for n in range(32)
        if a != p and person[a] == person[p] and person[a] != person[n] and 0 < apart[a, n] - apart[a, p] <= 0.3
    }
    assert triplets == expected
    assert 100 < len(triplets) < 32 * 3 * 28


def test_triplet_loss_is_the_mean_of_the_violated_margins() -> None:
    from training.objectives import Objective, Stage

    embeddings, persons = embeddings_of_noise()
    apart, person = distances(embeddings), persons.numpy()
    gaps = apart[:, :, None] - apart[:, None, :] + 0.2  # anchor, same person, other person
    valid = (person[:, None] == person) & ~np.eye(32, dtype=bool)
    gaps = gaps[valid[:, :, None] & (person[:, None] != person)[:, None, :]]
    value = float(Objective(Stage(0, "triplet"), 8, 16)(embeddings, persons))
    assert value == pytest.approx(gaps[gaps > 0].mean(), rel=1e-5)


def test_a_triplet_batch_has_the_requested_persons_and_crops() -> None:
    from training.sampling import person_rows

    sizes = [2, 3, 4, 9, 5, 2, 7, 4]
    rows_of = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    owner = np.repeat(np.arange(8), sizes)
    drawn_persons = []
    for step in range(2):
        rows = person_rows(step, 4, 4, rows_of, seed=1).reshape(4, 4)
        assert (owner[rows] == owner[rows[:, :1]]).all()
        for row in rows:
            assert len(set(row)) == min(4, sizes[owner[row[0]]])  # repeated only where a person has too few
        drawn_persons += list(owner[rows[:, 0]])
        assert (rows.ravel() == person_rows(step, 4, 4, rows_of, seed=1)).all()
    assert sorted(drawn_persons) == list(range(8))


def test_a_person_with_one_crop_counts_for_classes_and_not_for_triplets(data: Path, tmp_path: Path) -> None:
    changes = {"tars": "[people.tar,single.tar]", "batch": 13}
    classes = trainer_of(data, tmp_path / "a", objectives="[{start:0,loss:arcface}]", **changes)
    assert classes.objectives[0].loss.W.shape == (64, PEOPLE + 1)
    drawn = []
    for _ in range(5):
        drawn += list(classes._rows(of_triplets=False))
        classes.state.step += 1
    assert sorted(drawn) == list(range(65))
    triplets = trainer_of(data, tmp_path / "b", **{**changes, "batch": 64})
    assert [len(rows) for rows in triplets.several] == [SHOTS] * PEOPLE
    assert set(triplets._rows(of_triplets=True)) == set(range(64))


def test_folders_are_persons_and_excluded_names_are_skipped(data: Path, tmp_path: Path) -> None:
    from training.crops import load_crops, load_persons

    tars = [data / "single.tar", data / "people.tar", data / "single.tar"]
    left_out = tmp_path / "names.txt"
    left_out.write_text("p00/3.jpg\n")
    persons = load_persons(tars, left_out)
    assert persons.dtype == np.int64
    assert persons.tolist() == [0, *np.repeat(np.arange(1, PEOPLE + 1), SHOTS)[1:], 0]
    assert len(load_crops(tars, left_out, tmp_path)) == len(persons)
    write_tar(tmp_path / "flat.tar", {"a.jpg": (0, 0)})
    with raises(ValueError, "a.jpg", "flat.tar", "<person>/<file>.jpg"):
        load_persons([tmp_path / "flat.tar"], None)


def test_held_out_persons_are_only_used_for_retrieval(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from runtime.metrics.retrieval import retrieve
    from training.verification import embed

    with caplog.at_level("INFO"):
        trainer = trainer_of(data, tmp_path, held_out=0.25, batch=16)
    assert_names(caplog.text, 12, 4, 16)
    assert len(trainer.learned) == 48
    assert not set(trainer.persons[trainer.learned]) & set(trainer.persons[trainer.held_out])
    again = trainer_of(data, tmp_path, held_out=0.25, batch=16)
    assert (again.held_out == trainer.held_out).all()
    trainer.step()
    crops, persons = trainer.crops[trainer.held_out], trainer.persons[trainer.held_out]
    expected = retrieve(embed(trainer.state.ema, crops), persons)
    assert expected is not None
    assert list(trainer.verify().items()) == list(
        zip(("recall_at_1", "r_precision", "map_at_r"), expected.means, strict=True)
    )


def test_a_run_verifies_and_shows_its_embeddings(data: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from training.loop import train

    trainer = trainer_of(data, tmp_path, held_out=0.25, batch=16, samples=32, verify_every=32, log_every=1)
    train(trainer, trainer.show)
    board = tmp_path / "tensorboard"
    events = EventAccumulator(str(board)).Reload()
    assert {"loss", "stage", "recall_at_1"} <= set(events.Tags()["scalars"])
    shown = board / "00032" / "embeddings"
    rows = np.loadtxt(shown / "tensors.tsv")
    assert rows.shape == (16, 64)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-4)
    assert (shown / "metadata.tsv").read_text().split() == [str(person) for person in trainer.persons[trainer.held_out]]
    sprite = cv2.imread(str(shown / "sprite.png"))
    assert sprite.shape == (4 * 40, 4 * 40, 3)


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"augmentation.mixture": 0.5}, ("mixture",)),
        ({"crops_each": 5}, ("crops_each", 5, 2, 32)),
        ({"crops_each": 32}, ("crops_each", 32)),
        ({"held_out": 1.0}, ("held_out", 1.0, 0)),
        ({"held_out": 0.98}, ("held_out", 0.98, 0)),
        ({"objectives": "[{start:0,los:arcface}]"}, ("objectives[0]", "start", "loss")),
        ({"stages": "[[10,48]]"}, ("stages", "[[10, 48]]", 0)),
        ({"backbone.activation": "gelu"}, ("activation", "gelu", "relu", "relu6", "prelu")),
        ({"batch": 128}, (16, 32)),
        ({"objectives": "[{start:9,loss:arcface}]"}, ("objectives", 0)),
        ({"objectives": "[{start:0,loss:softmax}]"}, ("loss", "softmax", "arcface", "cosface", "triplet")),
        ({"objectives": "[{start:0,loss:arcface,miner:hard}]"}, ("miner", "hard", "arcface")),
    ],
)
def test_settings_that_cannot_fill_batches_are_named(
    data: Path, tmp_path: Path, changes: dict[str, Any], values: Values
) -> None:
    with raises(ValueError, *values):
        trainer_of(data, tmp_path, **changes)


@pytest.mark.parametrize("quality", [30, 60, 90])
def test_compressed_tensors_resemble_jpeg_files(quality: int) -> None:
    from runtime.demo.portraits import encode
    from training.jpeg import compress

    image = cv2.imdecode(np.frombuffer(encode(0, 3, 1, (112, 112)), np.uint8), cv2.IMREAD_COLOR_RGB)
    image = np.clip(image + np.random.default_rng(0).normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    file = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    expected = cv2.imdecode(file, cv2.IMREAD_COLOR_RGB).astype(np.float32)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    compressed = compress(x, torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy()
    lost = np.abs(expected - image).mean()
    assert lost > 1
    assert np.abs(compressed - expected).mean() < 0.25 * lost


def test_the_jpeg_option_does_not_change_runs_without_it() -> None:
    from training.augment import Augmentation, augment

    images = torch.randint(0, 256, (6, 3, 112, 112), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)

    def draw(**changes: float) -> tuple[Any, Any]:
        rng = torch.Generator().manual_seed(1)
        images_out = augment(images, Augmentation(mixture=0, **changes), 56, rng)
        return images_out, rng.get_state()

    assert Augmentation().jpeg == 0
    (plain, after), (compressed, after_jpeg) = draw(), draw(jpeg=1.0)
    rng = torch.Generator().manual_seed(1)
    draw_without_jpeg(images, rng)
    assert torch.equal(after, rng.get_state())
    assert not torch.equal(after, after_jpeg)
    assert compressed.shape == plain.shape == (6, 3, 56, 56)
    assert (plain != compressed).flatten(1).any(dim=1).all()
    assert torch.equal(compressed, draw(jpeg=1.0)[0])
    half_compressed = draw(jpeg=0.5)[0]
    same = (half_compressed == plain).flatten(1).all(dim=1)
    assert 0 < int(same.sum()) < 6


def draw_without_jpeg(images: Any, rng: Any) -> None:
    """Draw the random numbers that `augment` draws without JPEG."""
    from training.augment import Augmentation, _colour, _occlude, _soften, _warp

    how = Augmentation(mixture=0)
    x = _warp(images.float(), how, 56, rng)
    _occlude(_soften(_colour(x, how, rng), how, rng), how.occlusion, rng)
    torch.rand(len(x), 1, 1, 1, generator=rng)  # the noise's levels
    torch.randn(x.shape, generator=rng)
