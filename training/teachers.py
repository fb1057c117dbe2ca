"""One or two teachers, whose answers for an image become one target in the student's space."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.nn import functional

from .command import parse_settings
from .losses import embedding_space, main_directions, remaining_space
from .teacher import Teacher

LOOKED_AT = 2048  # crops whose answers show the main directions of a teacher's space
_BATCH = 128


@dataclass(frozen=True)
class SecondTeacher:
    """The settings of the second teacher.

    Attributes:
        path: `.xml` (OpenVINO) or `.onnx`; None: there is no second teacher.
        weight: share of the second teacher in the cosine of two targets, 0 to 1.
        size, channel_order, mean, std, mirror, bfloat16: see `training.teacher.Teacher`.
    """

    path: str | None = None
    weight: float = 0.5
    size: int = 112
    channel_order: str = "rgb"
    mean: float = 127.5
    std: float = 127.5
    mirror: bool = False
    bfloat16: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.weight < 1:
            raise ValueError(f"second_teacher.weight is {self.weight}; expected: above 0 and below 1")


class Teachers:
    """The teachers of a distillation run.

    With one teacher, a target is its answer, moved into the student's space by an isometry. With two, each has
    dimensions of its own there, so that the cosine of two targets is the weighted mean of the teachers' cosines. The
    first teacher's dimensions do not depend on whether there is a second. Of the second teacher's space, the main
    directions of its answers are kept, as many as the student's space has left.

    Args:
        config: settings of the run: `teacher`, `second_teacher`, `backbone.dimension`, `seed`.
        crops: (M, 3, S, S) uint8 RGB, a few thousand crops; they show the main directions of the second teacher.
    Raises:
        ValueError: a teacher cannot be used.
    """

    def __init__(self, config: DictConfig, crops: Tensor) -> None:
        self._seed, self._dimension = config.seed, config.backbone.dimension
        self._first = Teacher(**{**config.teacher, "path": Path(config.teacher.path)})
        self._spaces: tuple[Tensor, Tensor | None] | None = None
        self._crops = crops[:LOOKED_AT]
        second = parse_settings(SecondTeacher, config.get("second_teacher") or {}, "second_teacher")
        self._second, self._weight = None, 0.0
        if second.path:
            settings: dict[str, Any] = {field.name: getattr(second, field.name) for field in fields(second)}
            self._weight = settings.pop("weight")
            self._second = Teacher(**{**settings, "path": Path(second.path)})

    def __call__(self, images: Tensor) -> Tensor:
        """The targets of images.

        Args:
            images: (N, 3, S, S) float32 RGB, 0..255.
        Returns:
            (N, D) float32, unit rows.
        """
        answers = self._first(images)
        if self._spaces is None:
            self._spaces = self._make_spaces(answers.shape[1])
        space, second_space = self._spaces
        if self._second is None or second_space is None:
            return answers @ space
        others = functional.normalize(self._second(images) @ second_space)
        return (1 - self._weight) ** 0.5 * (answers @ space) + self._weight**0.5 * others

    def _make_spaces(self, first_dimension: int) -> tuple[Tensor, Tensor | None]:
        """The maps of the teachers' answers into the student's space."""
        space = embedding_space(first_dimension, self._dimension, self._seed)
        if self._second is None:
            return space, None
        rest = remaining_space(space, self._seed)
        answers = torch.cat([self._second(part.float()) for part in self._crops.split(_BATCH)])
        return space, main_directions(answers, len(rest)) @ rest[: answers.shape[1]]
