#!/usr/bin/env python3
"""Train a head that reads age and gender from embeddings: python -m training.train_head people.h5 labels.csv head.npz

The file holds embeddings of aligned crops (facemill process crops/ -o embeddings.h5 --align auto). The head is for the
model of this file. A fifth of the labelled crops, by the hash of their names, measures and is never learned from.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from runtime.storage.file import EmbeddingFile

from .attribute_labels import AttributeLabels, age_weights, read_labels
from .attributes import AGES, VALUES, age_distribution, attribute_loss, expected_age
from .command import command, require_folder

logger = logging.getLogger(__name__)

_HIDDEN, _STEPS, _BATCH, _RATE, _DECAY, _NOISE = 128, 4000, 512, 2e-3, 0.02, 0.02
_CHILD, _ADULT = 13, 18  # years


def train_head(vectors: Tensor, labels: AttributeLabels, seed: int = 0) -> nn.Sequential:
    """Train two layers on the labelled rows that do not measure.

    Args:
        vectors: (N, D) float32, unit rows.
        labels: of these rows.
        seed: random seed.
    """
    torch.manual_seed(seed)
    learned = ~labels.held_out & ~np.isnan(labels.ages)
    weights = torch.from_numpy(age_weights(labels.ages, learned, 0.4))
    rows = torch.from_numpy(np.flatnonzero(learned))
    targets, women = age_distribution(torch.from_numpy(labels.ages).nan_to_num()), torch.from_numpy(labels.women)
    head = nn.Sequential(nn.Linear(vectors.shape[1], _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, VALUES))
    optimizer = torch.optim.AdamW(head.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    for step in range(_STEPS):
        chosen = rows[torch.randint(len(rows), (_BATCH,))]
        noisy = nn.functional.normalize(vectors[chosen] + _NOISE * torch.randn(_BATCH, vectors.shape[1]))
        loss = attribute_loss(head(noisy), targets[chosen], women[chosen], weights[chosen])["loss"]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % 500 == 0:
            logger.info("step %d of %d: loss %.4f", step, _STEPS, float(loss.detach()))
    return head.eval()


@torch.no_grad()
def measure(head: nn.Sequential, vectors: Tensor, labels: AttributeLabels) -> dict[str, float]:
    """Measure a head on the rows held out; see `train_attributes.AttributeTrainer.verify`."""
    rows = np.flatnonzero(labels.held_out)
    values, ages = head(vectors[rows]), torch.from_numpy(labels.ages[rows])
    errors = (expected_age(values) - ages).abs()
    right = ((values[:, AGES] > 0).float() == torch.from_numpy(labels.women[rows])).float()
    return {
        "age_error": float(errors.mean()),
        "child_error": float(errors[ages < _CHILD].mean()),
        "gender_right": float(right.mean()),
        "adults_right": float(right[ages >= _ADULT].mean()),
    }


def write_head(head: nn.Sequential, target: Path, model: str, model_sha256: str) -> None:
    """Write a head as facemill reads it, with weights in FP16."""
    layers = {}
    for number, layer in enumerate((head[0], head[2]), 1):
        assert isinstance(layer, nn.Linear)
        layers[f"weight{number}"] = layer.weight.detach().numpy().T.astype(np.float16)
        layers[f"bias{number}"] = layer.bias.detach().numpy().astype(np.float32)
    np.savez_compressed(target, facts=json.dumps({"model": model, "model_sha256": model_sha256}), **layers)


@command
def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="embedding file of the crops")
    parser.add_argument("labels", type=Path, help="CSV with the columns crop, age and gender")
    parser.add_argument("target", type=Path, help="head to write, .npz")
    options = parser.parse_args()
    with EmbeddingFile(options.file) as file:
        vectors, contract = torch.from_numpy(file.vectors), file.contract
        labels = read_labels(options.labels, [Path(path).name for path in file.paths])
    head = train_head(vectors, labels)
    write_head(head, require_folder(options.target), contract.model, contract.model_sha256)
    figures = "  ".join(f"{name} {value:.4f}" for name, value in measure(head, vectors, labels).items())
    print(f"{options.target}: {options.target.stat().st_size:,} bytes, for {contract.model}\n{figures}")


if __name__ == "__main__":
    main()
