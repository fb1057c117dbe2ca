"""Compose images with known faces: crops over generated backgrounds, at any size, angle and position."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

MIRRORED = [1, 0, 2, 4, 3]  # index of each landmark in the mirror image


@dataclass(frozen=True)
class SceneRules:
    """Rules for composing images.

    Attributes:
        faces: maximum number of faces per image.
        empty: share of images without a face.
        more: probability of each face after the first.
        portrait: share of images whose first face is large and near the middle, with its own surroundings.
        smallest: smallest side of a face, pixels.
        rotation: degrees, standard deviation.
        turned: share of faces at any angle.
        decoys: share of images with something pasted in like a face that is not a face.
    """

    faces: int = 3
    empty: float = 0.1
    more: float = 0.2
    portrait: float = 0.6
    smallest: float = 12.0
    rotation: float = 10.0
    turned: float = 0.1
    decoys: float = 0.3


@dataclass(frozen=True)
class Scenes:
    """A batch of composed images.

    Attributes:
        images: (N, 3, S, S) float32, 0..255.
        boxes: (N, F, 4) float32, pixels.
        landmarks: (N, F, 5, 2) float32, pixels.
        present: (N, F) bool: faces that must be found.
        cut: (N, F) bool: faces that the image's edge cuts too far. Entries that are neither are empty.
    """

    images: Tensor
    boxes: Tensor
    landmarks: Tensor
    present: Tensor
    cut: Tensor

    def select(self, index: Tensor) -> Scenes:
        """Select images by index or mask."""
        return Scenes(
            self.images[index], self.boxes[index], self.landmarks[index], self.present[index], self.cut[index]
        )


def compose(
    crops: Tensor, boxes: Tensor, landmarks: Tensor, backdrop: Tensor, size: int, rules: SceneRules, rng: Generator
) -> Scenes:
    """Paste crops over backgrounds.

    Args:
        crops: (N, F, 3, C, C) uint8, a candidate for every position.
        boxes: (N, F, 4), pixels of the crops.
        landmarks: (N, F, 5, 2), pixels of the crops.
        backdrop: (N, 3, C, C) uint8, other crops, whose enlarged pieces are part of the backgrounds.
        size: side of the images, pixels.
        rules: rules for composing.
        rng: random generator, which decides everything.
    """
    n, places = crops.shape[:2]
    images = draw_background(backdrop, size, rng)
    none = torch.zeros(n, dtype=torch.bool)
    chosen = (torch.rand(n, generator=rng) < rules.decoys).nonzero()[:, 0]
    transform = _draw_transforms(boxes[:, 0], none, size, rules, rng)
    images[chosen] = _paste(images[chosen], _shuffle_tiles(backdrop, rng)[chosen], transform[chosen], none[chosen], rng)
    present = torch.rand(n, places, generator=rng) < torch.tensor([1 - rules.empty] + [rules.more] * (places - 1))
    present &= present[:, :1]
    portrait = torch.rand(n, generator=rng) < rules.portrait
    image_boxes, image_landmarks = torch.empty_like(boxes), torch.empty_like(landmarks)
    for position in range(places):
        like_portrait = portrait & (position == 0)
        transform = _draw_transforms(
            boxes[:, position], like_portrait, size, rules, rng
        )  # (n, 2, 3): crop pixel to picture pixel
        image_boxes[:, position], image_landmarks[:, position] = _transform_labels(
            boxes[:, position], landmarks[:, position], transform
        )
        if position:
            overlaps = _overlap(image_boxes[:, position, None], image_boxes[:, :position])  # (n, place)
            present[:, position] &= (overlaps * present[:, :position]).amax(1) < 0.02
        chosen = present[:, position].nonzero()[:, 0]
        images[chosen] = _paste(
            images[chosen], crops[chosen, position].float(), transform[chosen], like_portrait[chosen], rng
        )
    inside = _mostly_inside(image_boxes, size)
    return Scenes(images, image_boxes, image_landmarks, present & inside, present & ~inside)


def draw_background(backdrop: Tensor, size: int, rng: Generator) -> Tensor:
    """(N, 3, S, S) float32: noise of several grains over one colour, an enlarged piece of a crop, or shuffled tiles."""
    n = len(backdrop)
    x = torch.rand(n, 3, 1, 1, generator=rng) * 255
    x = x.expand(n, 3, size, size).clone()
    for grain in (2, 5, 11, 23, 47):
        level = torch.rand(n, 1, 1, 1, generator=rng).square() * 90
        grey = torch.randn(n, 1, grain, grain, generator=rng) + 0.4 * torch.randn(n, 3, grain, grain, generator=rng)
        x += level * functional.interpolate(grey, size=(size, size), mode="bilinear", align_corners=False)
    side = backdrop.shape[-1] // 4
    corner = (torch.rand(2, generator=rng) * 3 * side).int().tolist()
    piece = backdrop[:, :, corner[0] : corner[0] + side, corner[1] : corner[1] + side].float()
    piece = functional.interpolate(piece, size=(size, size), mode="bilinear", align_corners=False)
    tiles = functional.interpolate(
        _shuffle_tiles(backdrop, rng), size=(size, size), mode="bilinear", align_corners=False
    )
    choice = torch.rand(n, 1, 1, 1, generator=rng)
    x = torch.where(choice < 0.25, piece, torch.where(choice < 0.4, tiles, x))
    return x.clamp(0, 255)


def _shuffle_tiles(crops: Tensor, rng: Generator) -> Tensor:
    """(N, 3, C, C) float32: the sixteen tiles of each crop, shuffled."""
    side = crops.shape[-1] // 4
    tiles = functional.unfold(crops.float(), side, stride=side)  # (n, 3 * side * side, 16)
    return functional.fold(tiles[:, :, torch.randperm(16, generator=rng)], crops.shape[-2:], side, stride=side)


def _draw_transforms(boxes: Tensor, portrait: Tensor, size: int, rules: SceneRules, rng: Generator) -> Tensor:
    """(n, 2, 3): draw the transform from each crop to its image."""
    n = len(boxes)
    longest = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    share = torch.where(portrait, torch.rand(n, generator=rng) * 0.7 + 0.25, torch.zeros(n))
    low, high = math.log(rules.smallest), math.log(0.6 * size)
    side = torch.exp(low + torch.rand(n, generator=rng) * (high - low))
    scale = torch.where(portrait, share * size, side) / longest
    angle = torch.randn(n, generator=rng) * math.radians(rules.rotation)
    any_angle = torch.rand(n, generator=rng) * 2 * math.pi
    angle = torch.where(torch.rand(n, generator=rng) < rules.turned, any_angle, angle)
    mirror = torch.where(torch.rand(n, generator=rng) < 0.5, -1.0, 1.0)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    anywhere = torch.rand(n, 2, generator=rng)
    central = 0.5 + torch.randn(n, 2, generator=rng) * 0.08
    goal = torch.where(portrait[:, None], central, anywhere) * size
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    linear = torch.stack([torch.stack([cos * mirror, -sin], 1), torch.stack([sin * mirror, cos], 1)], 1)  # (n, 2, 2)
    shift = goal - (linear @ middle[:, :, None])[:, :, 0]
    return torch.cat([linear, shift[:, :, None]], 2)


def _transform_labels(boxes: Tensor, landmarks: Tensor, transform: Tensor) -> tuple[Tensor, Tensor]:
    """Transform box and landmarks to the image. Boxes stay upright, as detectors draw them at any angle of the face."""
    points = landmarks @ transform[:, :, :2].transpose(1, 2) + transform[:, None, :, 2]
    mirrored = torch.det(transform[:, :, :2]) < 0
    points = torch.where(mirrored[:, None, None], points[:, MIRRORED], points)
    middle = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None] @ transform[:, :, :2].transpose(1, 2) + transform[
        :, None, :, 2
    ]
    scale = torch.det(transform[:, :, :2]).abs().sqrt()
    half = (boxes[:, 2:] - boxes[:, :2]) / 2 * scale[:, None]
    return torch.cat([middle[:, 0] - half, middle[:, 0] + half], 1), points


def _overlap(box: Tensor, boxes: Tensor) -> Tensor:
    """Intersection divided by the smaller area: boxes (..., 4)."""
    low, high = torch.maximum(box[..., :2], boxes[..., :2]), torch.minimum(box[..., 2:], boxes[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (box, boxes)]
    return shared / torch.minimum(*areas).clamp(min=1e-6)


def _mostly_inside(boxes: Tensor, size: int) -> Tensor:
    """(N, F) bool: whether most of a face is inside the image."""
    frame = torch.tensor([0.0, 0.0, size, size]).expand_as(boxes)
    low, high = torch.maximum(boxes[..., :2], frame[..., :2]), torch.minimum(boxes[..., 2:], frame[..., 2:])
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    return (high - low).clamp(min=0).prod(-1) > 0.6 * area


def _paste(images: Tensor, crops: Tensor, transform: Tensor, portrait: Tensor, rng: Generator) -> Tensor:
    """Paste each crop over its image through a soft mask, on top of hair and shoulders, or of its own surroundings."""
    n, size, side = len(images), images.shape[-1], crops.shape[-1]
    back = torch.linalg.inv(torch.cat([transform, torch.tensor([0.0, 0.0, 1.0]).expand(n, 1, 3)], 1))[:, :2]
    line = torch.arange(size, dtype=torch.float32)
    y, x = torch.meshgrid(line, line, indexing="ij")
    at = torch.stack([x, y, torch.ones_like(x)], -1)  # (S, S, 3)
    at = torch.einsum("hwk,njk->nhwj", at, back)  # (n, S, S, 2): pixels of the crop
    scale = torch.det(transform[:, :, :2]).abs().sqrt().view(-1, 1, 1)

    def draw(low: float, high: float) -> Tensor:
        return torch.rand(n, 1, 1, 2, generator=rng) * (high - low) + low

    square = torch.rand(n, 1, 1, generator=rng) < 0.5
    body = (torch.rand(n, 1, 1, generator=rng) < 0.6).float()
    shoulders = (side / 2, 2.1 * side), (1.1 * side, 0.95 * side)
    hair = (side / 2, 0.42 * side), (0.6 * side, 0.66 * side)
    for centre, radii in (shoulders, hair):
        mask = _ellipse(at, torch.tensor(centre), torch.tensor(radii) * draw(0.85, 1.15), square, scale) * body[:, None]
        colour = torch.rand(n, 3, 1, 1, generator=rng).square() * 255
        images = torch.lerp(images, colour, mask)
    grid = (at + 0.5) / side * 2 - 1
    own = (portrait & (torch.rand(n, generator=rng) < 0.6)).nonzero()[:, 0]
    images[own] = _sample(functional.avg_pool2d(_shrink(crops[own], 4), 3, 1, 1, count_include_pad=False), grid[own])
    pixels = torch.empty_like(images)
    for times, chosen in _group_by_shrink(scale[:, 0, 0]):
        pixels[chosen] = _sample(_shrink(crops[chosen], times), grid[chosen])
    radii = torch.tensor([0.5 * side, 0.52 * side]) * draw(0.92, 1.1)
    soft = torch.rand(n, 1, 1, generator=rng).square() * 0.5  # soft edges, so that an edge is no sign of a face
    centre = torch.tensor([side / 2 - 0.5, 0.5 * side])
    return torch.lerp(images, pixels, _ellipse(at, centre, radii, square, scale, soft))


def _group_by_shrink(scale: Tensor) -> list[tuple[int, Tensor]]:
    """Group crops by how many times they are shrunk before sampling, against aliasing."""
    times = torch.where(scale < 0.3, 4, torch.where(scale < 0.6, 2, 1))
    return [(t, (times == t).nonzero()[:, 0]) for t in (1, 2, 4)]


def _shrink(crops: Tensor, times: int) -> Tensor:
    return crops if times == 1 else functional.avg_pool2d(crops, times)


def _sample(crops: Tensor, grid: Tensor) -> Tensor:
    return functional.grid_sample(crops, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _ellipse(
    at: Tensor, centre: Tensor, radii: Tensor, square: Tensor, scale: Tensor, soft: float | Tensor = 0.0
) -> Tensor:
    """(n, 1, S, S): 1 inside an ellipse or a rounded square, 0 outside; `soft` is the edge's share of a radius."""
    far = ((at - centre) / radii).square_()  # (n, S, S, 2)
    far = torch.where(square, far.square().sum(-1).sqrt(), far.sum(-1)).sqrt_()  # 1 on the edge
    edge = radii.amin(-1) * scale  # pixels of the image
    return ((1 - far) * edge / (3 + soft * edge) + 0.5).clamp_(0, 1)[:, None]
