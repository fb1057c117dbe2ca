"""What decisions demand together: the faces of one person, the faces that must stay apart, and names.

Decisions may contradict each other: a is b, b is c, and a is not c. Then the latest decision wins. They are taken from
the newest to the oldest, and an older statement that cannot be true any more is set aside, and named.

Example:
    >>> rules = Constraints([Decision(1, "same", (0,), (1,)), Decision(2, "same", (1,), (2,))])
    >>> rules.state(0, 2)
    'same'
    >>> rules = Constraints([*rules.decisions, Decision(3, "different", (0,), (2,))])
    >>> rules.state(0, 2), rules.state(1, 2), rules.state(0, 1), rules.set_aside
    ('different', 'same', 'different', (1,))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Verdict = Literal["same", "different", "undecided"]
Kind = Literal["same", "different", "undecided", "merge", "split", "name"]
State = Literal["same", "different", "undecided", ""]

PAIR_KINDS: tuple[Kind, ...] = get_args(Verdict)
CLUSTER_KINDS: tuple[Kind, ...] = ("merge", "split", "name")


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided. Faces are numbers.

    Attributes:
        number: a later decision has a higher number.
        kind: "same", "different" and "undecided" are about a pair. "merge": the faces show one person. "split": no
            face shows the person of the others. "name": what the person of the faces is called.
        faces: the faces; one of a pair.
        others: the other face of a pair; the other faces of a split.
        name: the name; "" takes a name away. None if the decision says nothing about names.
    """

    number: int
    kind: Kind
    faces: tuple[int, ...]
    others: tuple[int, ...] = ()
    name: str | None = None


class Groups:
    """Groups of faces of one person, some of which must not be joined. Every face begins as a group of its own.

    A ban has a number and two sides. A group with a face of one side is never joined with one that has a face of the
    other side.
    """

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._bans: dict[int, set[int]] = {}  # of a group: n for the first side of ban n, -n for the second

    def find(self, face: int) -> int:
        """The face that stands for the group of a face."""
        root = face
        while (parent := self._parent.get(root, root)) != root:
            root = parent
        while (parent := self._parent.get(face, face)) != root:
            self._parent[face] = root
            face = parent
        return root

    def apart(self, a: int, b: int) -> bool:
        """Whether a ban separates the groups of two faces. Two faces of one group are not apart."""
        first, second = self.find(a), self.find(b)
        if first == second:
            return False
        bans, others = self._bans.get(first, set()), self._bans.get(second, set())
        if len(bans) > len(others):
            bans, others = others, bans
        return any(-ban in others for ban in bans)

    def any_apart(self, faces: Iterable[int]) -> bool:
        """Whether a ban separates any two of the groups of faces."""
        roots_of: dict[int, set[int]] = {}
        for root in {self.find(face) for face in faces}:
            for ban in self._bans.get(root, ()):
                roots_of.setdefault(ban, set()).add(root)
        return any(len(roots | roots_of.get(-ban, roots)) > 1 for ban, roots in roots_of.items() if -ban in roots_of)

    def is_free(self, face: int) -> bool:
        """Whether nothing is demanded of a face: it is alone in its group, and no ban is about it."""
        root = self.find(face)
        return root == face and self._sizes.get(face, 1) == 1 and face not in self._bans

    def join(self, a: int, b: int) -> bool:
        """Join the groups of two faces, unless a ban separates them. Returns whether they are in one group."""
        first, second = self.find(a), self.find(b)
        if first == second:
            return True
        if self.apart(first, second):
            return False
        if self._sizes.get(first, 1) < self._sizes.get(second, 1):
            first, second = second, first
        self._parent[second] = first
        self._sizes[first] = self._sizes.get(first, 1) + self._sizes.pop(second, 1)
        bans, others = self._bans.pop(first, set()), self._bans.pop(second, set())
        if bans or others:
            self._bans[first] = bans | others
        return True

    def join_all(self, faces: Iterable[int]) -> list[list[int]]:
        """Join faces as far as bans allow: each with the first of the earlier faces that it may be joined with.

        Returns:
            The faces that were joined with each other, as lists.
        """
        joined: list[list[int]] = []
        for face in faces:
            for group in joined:
                if self.join(group[0], face):
                    group.append(face)
                    break
            else:
                joined.append([face])
        return joined

    def ban(self, number: int, faces: Iterable[int], others: Iterable[int]) -> bool:
        """Keep faces apart from others. Faces that are in one group already stay in it.

        Args:
            number: above 0; another one for every ban.
            faces, others: the two sides.
        Returns:
            Whether all faces are apart from all others.
        """
        first, second = ({self.find(face) for face in side} for side in (faces, others))
        for roots, sign in ((first, number), (second, -number)):
            for root in roots:
                self._bans.setdefault(root, set()).add(sign)
        return not first & second


class Constraints:
    """The result of all decisions. It does not change.

    Attributes:
        decisions: the decisions, oldest first.
        groups: the faces that show one person, and the bans. Join nothing in it.
        set_aside: numbers of decisions that later ones contradict, in whole or in part; ascending.
        names: the name of each named face, and the number of the decision that gave it.
    """

    def __init__(self, decisions: Sequence[Decision]) -> None:
        """Take decisions, oldest first."""
        self.decisions = tuple(decisions)
        self.groups, self.set_aside, self.names = self._resolve()
        self._undecided = {_pair(each) for each in self.decisions if each.kind in PAIR_KINDS} - self._last_decided()

    def _last_decided(self) -> set[tuple[int, int]]:
        latest = {_pair(each): each.kind for each in self.decisions if each.kind in PAIR_KINDS}
        return {pair for pair, kind in latest.items() if kind != "undecided"}

    def _resolve(self) -> tuple[Groups, tuple[int, ...], dict[int, tuple[str, int]]]:
        groups, set_aside, names = Groups(), list[int](), dict[int, tuple[str, int]]()
        pairs = set[tuple[int, int]]()
        for decision in reversed(self.decisions):
            faces, others, number = decision.faces, decision.others, decision.number
            holds = True
            if decision.kind in PAIR_KINDS:
                if _pair(decision) in pairs:
                    continue  # decided again later
                pairs.add(_pair(decision))
            if decision.kind == "same":
                holds = groups.join(faces[0], others[0])
            elif decision.kind == "different":
                holds = groups.find(faces[0]) != groups.find(others[0]) and groups.ban(number, faces, others)
            elif decision.kind == "merge":
                holds = len(groups.join_all(faces)) == 1
            elif decision.kind == "split":
                holds = groups.ban(number, faces, others)
            if not holds:
                set_aside.append(number)
            if decision.name is not None:
                for face in faces:
                    names.setdefault(face, (decision.name, number))
        return groups, tuple(sorted(set_aside)), names

    def copy_groups(self) -> Groups:
        """New groups with the same content, in which more may be joined."""
        return self._resolve()[0]

    def state(self, a: int, b: int) -> State:
        """What is decided about two faces, directly or by other decisions; "" for nothing."""
        if self.groups.find(a) == self.groups.find(b):
            return "same"
        if self.groups.apart(a, b):
            return "different"
        return "undecided" if (min(a, b), max(a, b)) in self._undecided else ""

    def name_of(self, faces: Iterable[int]) -> str:
        """The name that most of these faces have, among equals the latest; "" for none."""
        votes: dict[str, tuple[int, int]] = {}
        for face in faces:
            name, number = self.names.get(face, ("", 0))
            if name:
                count, latest = votes.get(name, (0, 0))
                votes[name] = count + 1, max(latest, number)
        return max(votes, key=lambda name: votes[name], default="")


def _pair(decision: Decision) -> tuple[int, int]:
    a, b = decision.faces[0], decision.others[0]
    return min(a, b), max(a, b)
