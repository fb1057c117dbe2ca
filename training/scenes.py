"""Pictures with known faces: crops over made-up backgrounds, at any size, turn and place. One generator decides all."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

MIRRORED = [1, 0, 2, 4, 3]  # a landmark's place in the mirror


@dataclass(frozen=True)
class SceneRules:
    """What the pictures are like.

    Attributes:
        faces: at most, in one picture.
        empty: share of pictures without a face.
        more: probability of each face after the first.
        portrait: share of pictures whose first face is large and near the middle, with its own surroundings.
        smallest: side of a face, pixels.
        rotation: degrees, standard deviation.
        turned: share of faces at any angle.
        decoys: share of pictures with something pasted into them as faces are, which is none.
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
    """A batch of them.

    Attributes:
        images: (N, 3, S, S) float32, 0..255.
        boxes: (N, F, 4) float32, pixels.
        landmarks: (N, F, 5, 2) float32, pixels.
        there: (N, F) bool: faces that are to be found.
        cut: (N, F) bool: faces of which the picture's edge leaves too little to be asked for. What is neither is none.
    """

    images: Tensor
    boxes: Tensor
    landmarks: Tensor
    there: Tensor
    cut: Tensor

    def some(self, which: Tensor) -> Scenes:
        """Those of these places."""
        return Scenes(self.images[which], self.boxes[which], self.landmarks[which], self.there[which], self.cut[which])


def compose(
    crops: Tensor, boxes: Tensor, landmarks: Tensor, backdrop: Tensor, size: int, rules: SceneRules, rng: Generator
) -> Scenes:
    """Lay crops over backgrounds.

    Args:
        crops: (N, F, 3, C, C) uint8, a candidate for every place.
        boxes, landmarks: (N, F, 4) and (N, F, 5, 2), pixels of the crops.
        backdrop: (N, 3, C, C) uint8, other crops, whose enlarged pieces are part of the backgrounds.
        size: S.
        rules: what the pictures are like.
        rng: decides.
    """
    n, places = crops.shape[:2]
    images = background(backdrop, size, rng)
    nobody = torch.zeros(n, dtype=torch.bool)
    some = (torch.rand(n, generator=rng) < rules.decoys).nonzero()[:, 0]
    turn = _placed(boxes[:, 0], nobody, size, rules, rng)
    images[some] = _paste(images[some], _shuffled(backdrop, rng)[some], turn[some], nobody[some], rng)
    there = torch.rand(n, places, generator=rng) < torch.tensor([1 - rules.empty] + [rules.more] * (places - 1))
    there &= there[:, :1]
    portrait = torch.rand(n, generator=rng) < rules.portrait
    moved_boxes, moved_landmarks = torch.empty_like(boxes), torch.empty_like(landmarks)
    for place in range(places):
        like_portrait = portrait & (place == 0)
        turn = _placed(boxes[:, place], like_portrait, size, rules, rng)  # (n, 2, 3): crop pixel to picture pixel
        moved_boxes[:, place], moved_landmarks[:, place] = _moved(boxes[:, place], landmarks[:, place], turn)
        if place:
            others = _overlap(moved_boxes[:, place, None], moved_boxes[:, :place])  # (n, place)
            there[:, place] &= (others * there[:, :place]).amax(1) < 0.02
        some = there[:, place].nonzero()[:, 0]
        images[some] = _paste(images[some], crops[some, place].float(), turn[some], like_portrait[some], rng)
    seen = _seen(moved_boxes, size)
    return Scenes(images, moved_boxes, moved_landmarks, there & seen, there & ~seen)


def background(backdrop: Tensor, size: int, rng: Generator) -> Tensor:
    """(N, 3, S, S) float32: noise of several grains over one colour, a piece of a crop enlarged, or shuffled tiles."""
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
    tiles = functional.interpolate(_shuffled(backdrop, rng), size=(size, size), mode="bilinear", align_corners=False)
    which = torch.rand(n, 1, 1, 1, generator=rng)
    x = torch.where(which < 0.25, piece, torch.where(which < 0.4, tiles, x))
    return x.clamp(0, 255)


def _shuffled(crops: Tensor, rng: Generator) -> Tensor:
    """(N, 3, C, C) float32: the sixteen tiles of each in another order."""
    side = crops.shape[-1] // 4
    tiles = functional.unfold(crops.float(), side, stride=side)  # (n, 3 * side * side, 16)
    return functional.fold(tiles[:, :, torch.randperm(16, generator=rng)], crops.shape[-2:], side, stride=side)


def _placed(boxes: Tensor, portrait: Tensor, size: int, rules: SceneRules, rng: Generator) -> Tensor:
    """(n, 2, 3): where each crop comes to lie."""
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


def _moved(boxes: Tensor, landmarks: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
    """Box and landmarks in the picture. A box keeps its sides: detectors draw them upright whatever the face's turn."""
    points = landmarks @ turn[:, :, :2].transpose(1, 2) + turn[:, None, :, 2]
    mirrored = torch.det(turn[:, :, :2]) < 0
    points = torch.where(mirrored[:, None, None], points[:, MIRRORED], points)
    middle = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None] @ turn[:, :, :2].transpose(1, 2) + turn[:, None, :, 2]
    scale = torch.det(turn[:, :, :2]).abs().sqrt()
    half = (boxes[:, 2:] - boxes[:, :2]) / 2 * scale[:, None]
    return torch.cat([middle[:, 0] - half, middle[:, 0] + half], 1), points


def _overlap(box: Tensor, others: Tensor) -> Tensor:
    """Intersection by the smaller area: boxes (..., 4)."""
    low, high = torch.maximum(box[..., :2], others[..., :2]), torch.minimum(box[..., 2:], others[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(one[..., 2:] - one[..., :2]).prod(-1) for one in (box, others)]
    return shared / torch.minimum(*areas).clamp(min=1e-6)


def _seen(boxes: Tensor, size: int) -> Tensor:
    """(N, F) whether most of a face lies within the picture."""
    whole = torch.tensor([0.0, 0.0, size, size]).expand_as(boxes)
    low, high = torch.maximum(boxes[..., :2], whole[..., :2]), torch.minimum(boxes[..., 2:], whole[..., 2:])
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    return (high - low).clamp(min=0).prod(-1) > 0.6 * area


def _paste(images: Tensor, crops: Tensor, turn: Tensor, portrait: Tensor, rng: Generator) -> Tensor:
    """Each crop over its picture through a soft mask; hair and shoulders below it, or surroundings of its own."""
    n, size, side = len(images), images.shape[-1], crops.shape[-1]
    back = torch.linalg.inv(torch.cat([turn, torch.tensor([0.0, 0.0, 1.0]).expand(n, 1, 3)], 1))[:, :2]
    line = torch.arange(size, dtype=torch.float32)
    y, x = torch.meshgrid(line, line, indexing="ij")
    at = torch.stack([x, y, torch.ones_like(x)], -1)  # (S, S, 3)
    at = torch.einsum("hwk,njk->nhwj", at, back)  # (n, S, S, 2): pixels of the crop
    scale = torch.det(turn[:, :, :2]).abs().sqrt().view(-1, 1, 1)

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
    images[own] = _sample(functional.avg_pool2d(_smaller(crops[own], 4), 3, 1, 1, count_include_pad=False), grid[own])
    pixels = torch.empty_like(images)
    for times, some in _by_size(scale[:, 0, 0]):
        pixels[some] = _sample(_smaller(crops[some], times), grid[some])
    radii = torch.tensor([0.5 * side, 0.52 * side]) * draw(0.92, 1.1)
    soft = torch.rand(n, 1, 1, generator=rng).square() * 0.5  # so that an edge is no sign of a face
    centre = torch.tensor([side / 2 - 0.5, 0.5 * side])
    return torch.lerp(images, pixels, _ellipse(at, centre, radii, square, scale, soft))


def _by_size(scale: Tensor) -> list[tuple[int, Tensor]]:
    """How many times smaller crops are made before they are sampled, against aliasing, and which."""
    times = torch.where(scale < 0.3, 4, torch.where(scale < 0.6, 2, 1))
    return [(t, (times == t).nonzero()[:, 0]) for t in (1, 2, 4)]


def _smaller(crops: Tensor, times: int) -> Tensor:
    return crops if times == 1 else functional.avg_pool2d(crops, times)


def _sample(crops: Tensor, grid: Tensor) -> Tensor:
    return functional.grid_sample(crops, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _ellipse(
    at: Tensor, centre: Tensor, radii: Tensor, square: Tensor, scale: Tensor, soft: float | Tensor = 0.0
) -> Tensor:
    """(n, 1, S, S): 1 inside an ellipse, or one with four corners, and 0 outside; soft over so much of a radius."""
    far = ((at - centre) / radii).square_()  # (n, S, S, 2)
    far = torch.where(square, far.square().sum(-1).sqrt(), far.sum(-1)).sqrt_()  # 1 on the edge
    edge = radii.amin(-1) * scale  # pixels of the picture
    return ((1 - far) * edge / (3 + soft * edge) + 0.5).clamp_(0, 1)[:, None]
