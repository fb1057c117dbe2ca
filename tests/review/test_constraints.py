"""Decisions that contradict each other: the latest wins, as an exhaustive search over single statements finds it."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from runtime.review.constraints import Constraints, Decision, Kind

Edge = tuple[int, int]


def closed(together: set[Edge], faces: range) -> list[set[int]]:
    """The groups of faces that a chain of statements joins, one by one."""
    groups = [{face} for face in faces]
    for a, b in together:
        first = next(group for group in groups if a in group)
        second = next(group for group in groups if b in group)
        if first is not second:
            groups.remove(second)
            first |= second
    return groups


def is_possible(together: set[Edge], apart: set[Edge], faces: range) -> bool:
    groups = closed(together, faces)
    return not any(a in group and b in group for group in groups for a, b in apart)


def by_single_statements(decisions: list[Decision], faces: range) -> tuple[list[set[int]], set[Edge]]:
    """Take every statement about two faces, the newest first; leave out each that makes the others impossible."""
    together, apart = set[Edge](), set[Edge]()
    for place, decision in reversed(list(enumerate(decisions))):
        pair = {*decision.faces, *decision.others}
        later = decisions[place + 1 :]
        if decision.kind in ("same", "different", "undecided") and any(
            other.kind in ("same", "different", "undecided") and {*other.faces, *other.others} == pair
            for other in later
        ):
            continue
        if decision.kind in ("same", "merge"):
            members = (*decision.faces, *decision.others)
            for edge in combinations(members, 2):
                if is_possible(together | {edge}, apart, faces):
                    together.add(edge)
        if decision.kind in ("different", "split"):
            for edge in ((a, b) for a in decision.faces for b in decision.others):
                if is_possible(together, apart | {edge}, faces):
                    apart.add(edge)
    return closed(together, faces), apart


def random_decisions(draw: random.Random, faces: range) -> list[Decision]:
    decisions = []
    for number in range(1, draw.randint(1, 9)):
        kinds: list[Kind] = ["same", "same", "different", "different", "undecided", "merge", "split"]
        kind = draw.choice(kinds)
        if kind in ("same", "different", "undecided"):
            a, b = draw.sample(faces, 2)
            decisions.append(Decision(number, kind, (a,), (b,)))
        elif kind == "merge":
            decisions.append(Decision(number, kind, tuple(draw.sample(faces, draw.randint(2, 5)))))
        else:
            members = draw.sample(faces, draw.randint(2, 5))
            cut = draw.randint(1, len(members) - 1)
            decisions.append(Decision(number, kind, tuple(members[:cut]), tuple(members[cut:])))
    return decisions


@pytest.mark.slow
def test_the_latest_decision_wins_as_an_exhaustive_search_finds_it() -> None:
    draw, faces = random.Random(7), range(7)
    contradictions = 0
    for _ in range(1500):
        decisions = random_decisions(draw, faces)
        rules = Constraints(decisions)
        groups, apart = by_single_statements(decisions, faces)
        group_of = {face: number for number, group in enumerate(groups) for face in group}
        kept_apart = {frozenset((group_of[a], group_of[b])) for a, b in apart}
        for a, b in combinations(faces, 2):
            if group_of[a] == group_of[b]:
                expected = "same"
            else:
                expected = "different" if frozenset((group_of[a], group_of[b])) in kept_apart else ""
            state = rules.state(a, b)
            assert (state if state != "undecided" else "") == expected, (decisions, a, b)
        contradictions += bool(rules.set_aside)
    assert contradictions > 300  # the cases are hard ones


def test_the_last_decision_of_a_pair_is_the_one_that_counts() -> None:
    same, different, undecided = (
        Decision(number, kind, (1,), (2,))
        for number, kind in enumerate(("same", "different", "undecided"), 1)  # type: ignore[arg-type]
    )
    assert Constraints([]).state(1, 2) == ""
    assert Constraints([same]).state(2, 1) == "same"
    assert Constraints([same, different]).state(1, 2) == "different"
    assert Constraints([same, different, undecided]).state(1, 2) == "undecided"
    assert Constraints([same, different]).set_aside == ()  # it was decided again, and contradicts nothing
    assert Constraints([undecided, Decision(9, "merge", (1, 2, 3))]).state(1, 2) == "same"


def test_a_contradiction_by_a_chain_is_named() -> None:
    chain = [Decision(number, "same", (number,), (number + 1,)) for number in range(1, 6)]
    rules = Constraints([*chain, Decision(6, "different", (1,), (6,))])
    assert rules.set_aside == (1,)  # the oldest statement of the chain gives way
    assert rules.state(1, 6) == "different"
    assert rules.state(2, 6) == "same"
    assert Constraints(
        [Decision(1, "different", (1,), (3,)), *chain[1:], Decision(9, "same", (1,), (2,))]
    ).set_aside == (1,)


def test_a_split_keeps_a_merge_as_far_as_it_can() -> None:
    rules = Constraints([Decision(1, "merge", (1, 2, 3, 4)), Decision(2, "split", (2, 4), (1, 3))])
    assert rules.set_aside == (1,)
    assert (rules.state(1, 3), rules.state(2, 4), rules.state(1, 2)) == ("same", "same", "different")


def test_names_follow_the_faces() -> None:
    decisions = [
        Decision(1, "name", (1, 2, 3), name="Anna"),
        Decision(2, "name", (4, 5), name="Bea"),
        Decision(3, "merge", (1, 4)),
    ]
    rules = Constraints(decisions)
    assert rules.name_of((1, 2, 3, 4, 5)) == "Anna"
    assert rules.name_of((1, 4)) == "Bea"  # as many, and later
    assert rules.name_of((6,)) == ""
    assert Constraints([*decisions, Decision(4, "merge", (1, 2, 3, 4, 5), name="Bea")]).name_of((1, 2)) == "Bea"
    assert Constraints([*decisions, Decision(4, "name", (1, 2, 3), name="")]).name_of((1, 2, 3)) == ""


def test_long_chains_need_no_recursion() -> None:
    chain = [Decision(number, "same", (number,), (number + 1,)) for number in range(1, 20_000)]
    rules = Constraints(chain)
    assert rules.state(1, 20_000) == "same"
