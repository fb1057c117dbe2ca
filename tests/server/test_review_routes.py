"""Pairs and clusters are reviewed over HTTP: decisions at once, undo, and nothing is changed that was not seen."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest

import runtime as facemill
from runtime.review.review import Review
from tests.server.conftest import OTHER, TOKEN, Client
from tests.support.extras import require_package

require_package("scipy", "cluster")
pytestmark = pytest.mark.slow
Check = Callable[[httpx.AsyncClient], Coroutine[Any, Any, None]]
PAIRS, CLUSTERS = "/api/v1/pairs", "/api/v1/clusters"


@pytest.fixture
def path(embedded_people: Path, tmp_path: Path) -> Path:
    """A file of the test's own: 12 faces."""
    return Path(shutil.copy(embedded_people, tmp_path / "people.h5"))


@pytest.fixture
def run(client: Client, path: Path) -> Callable[..., None]:
    """Run a check against a server of the file."""

    def run_check(check: Check, **changes: Any) -> None:
        async def inside() -> None:
            async with client(files=(path,), **changes) as http:
                await check(http)

        asyncio.run(inside())

    return run_check


async def get(http: httpx.AsyncClient, route: str, status: int = 200, **parameters: Any) -> dict[str, Any]:
    while True:
        response = await http.get(route, params=parameters)
        if response.status_code != 202:
            assert response.status_code == status, response.text
            answer: dict[str, Any] = response.json()
            return answer
        await asyncio.sleep(0.2)


async def post(
    http: httpx.AsyncClient, route: str, body: Any, status: int = 200, headers: dict[str, str] | None = None
) -> dict[str, Any]:
    while True:
        response = await http.post(route, json=body, headers=headers)
        if response.status_code != 202:
            assert response.status_code == status, response.text
            answer: dict[str, Any] = response.json()
            return answer
        await asyncio.sleep(0.2)


def decision(pair: dict[str, Any], verdict: str) -> dict[str, Any]:
    return {"row_a": pair["row_a"], "row_b": pair["row_b"], "decision": verdict}


def test_pages_of_pairs_are_all_pairs_of_the_library(run: Callable[..., None], path: Path) -> None:
    expected = [pair.to_dict() for pair in facemill.find_pairs(path, threshold=0.2, review=True, device="cpu")]
    assert len(expected) > 30

    async def check(http: httpx.AsyncClient) -> None:
        listed: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            answer = await get(http, PAIRS, threshold=0.2, limit=7, **cursor)
            assert (answer["total"], answer["counts"]["open"], answer["threshold"]) == (
                len(expected),
                len(expected),
                0.2,
            )
            listed += answer["pairs"]
            if answer["next"] is None:
                break
            cursor = {"cursor": answer["next"]}
        assert listed == expected
        higher = await get(http, PAIRS, threshold=0.5, limit=1000)
        assert higher["pairs"] == [pair for pair in expected if pair["score"] >= 0.5]

    run(check)


def test_decisions_are_seen_at_once_and_undone_one_by_one(run: Callable[..., None], path: Path) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        first = await get(http, PAIRS, threshold=0.2)
        version, (a, *_) = first["version"], first["pairs"]
        rows_of_a = {a["row_a"], a["row_b"]}
        b, c = [pair for pair in first["pairs"] if not rows_of_a & {pair["row_a"], pair["row_b"]}][:2]
        assert {b["row_a"], b["row_b"]} != {c["row_a"], c["row_b"]}
        key = {"Idempotency-Key": "one"}
        body = {"version": version, "decisions": [decision(a, "different"), decision(b, "same")]}
        answer = await post(http, PAIRS + "/decisions", body, headers=key)
        assert (len(answer["decisions"]), answer["set_aside"]) == (2, [])
        assert await post(http, PAIRS + "/decisions", body, headers=key) == answer
        await post(http, PAIRS + "/decisions", {**body, "version": "x"}, 422, headers=key)
        await post(http, PAIRS + "/decisions", {"version": version, "decisions": [decision(c, "undecided")]})
        now = {
            (pair["row_a"], pair["row_b"]): pair
            for pair in (await get(http, PAIRS, threshold=0.2, show="all"))["pairs"]
        }
        shown = [now[pair["row_a"], pair["row_b"]]["decision"] for pair in (a, b, c)]
        assert shown == ["different", "same", "undecided"]
        assert (await get(http, PAIRS, threshold=0.2, show="different"))["pairs"][0]["row_a"] == a["row_a"]
        assert a not in (await get(http, PAIRS, threshold=0.2))["pairs"]
        with Review(path) as review:
            assert review.state(a["row_a"], a["row_b"]) == "different"

        undone = await post(http, PAIRS + "/undo", {})
        assert (undone["kind"], undone["rows"], undone["others"]) == ("undecided", [c["row_a"]], [c["row_b"]])
        await post(http, PAIRS + "/undo", {})
        await post(http, PAIRS + "/undo", {})
        assert (await post(http, PAIRS + "/undo", {}))["decision"] is None
        assert (await get(http, PAIRS, threshold=0.2))["counts"] == first["counts"]
        assert (await post(http, PAIRS + "/redo", {}))["kind"] == "different"

        # Now the contrary: the answer names the decision that it sets aside.
        row = a["row_a"]
        third = next(i for i in range(12) if i not in (row, a["row_b"]))
        chain = [{"row_a": row, "row_b": third, "decision": "same"}]
        chain.append({"row_a": third, "row_b": a["row_b"], "decision": "same"})
        answer = await post(http, PAIRS + "/decisions", {"version": version, "decisions": chain})
        assert len(answer["set_aside"]) == 1

    run(check)


def test_clients_undo_their_own_decisions(run: Callable[..., None], token_file: Path) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        gate, desk = ({"Authorization": f"Bearer {token}"} for token in (TOKEN, OTHER))
        assert (await http.get(PAIRS)).status_code == 401
        assert (await http.post(PAIRS + "/undo", json={})).status_code == 401
        http.headers.update(gate)
        first = await get(http, PAIRS, threshold=0.2)
        body = {"version": first["version"], "decisions": [decision(first["pairs"][0], "same")]}
        await post(http, PAIRS + "/decisions", body)
        assert (await post(http, PAIRS + "/undo", {}, headers=desk))["decision"] is None
        assert (await post(http, PAIRS + "/undo", {}))["decision"] is not None

    run(check, token_file=token_file)


def test_what_has_changed_is_not_decided_about(run: Callable[..., None], path: Path) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        before = await get(http, PAIRS, threshold=0.2, limit=2)
        await post(http, "/api/v1/files/people/remove", {"names": ["person0/0.png"]})
        body = {"version": before["version"], "decisions": [decision(before["pairs"][0], "same")]}
        assert (await post(http, PAIRS + "/decisions", body, 409))["code"] == "E-CONTRACT"
        assert (await get(http, PAIRS, 409, threshold=0.2, cursor=before["next"]))["code"] == "E-BUSY"
        after = await get(http, PAIRS, threshold=0.2, limit=2)
        assert after["version"] != before["version"]

    run(check)


@pytest.mark.parametrize(
    ("route", "body", "status"),
    [
        ("/decisions", {"version": "VERSION", "decisions": []}, 422),
        ("/decisions", {"version": "VERSION", "decisions": [{"row_a": 0, "row_b": 99, "decision": "same"}]}, 422),
        ("/decisions", {"version": "VERSION", "decisions": [{"row_a": 1, "row_b": 1, "decision": "same"}]}, 422),
        ("/decisions", {"version": "VERSION", "decisions": [{"row_a": 0, "row_b": 1, "decision": "maybe"}]}, 422),
        ("/decisions", {"version": "VERSION", "decisions": [{"row_a": "0", "row_b": 1, "decision": "same"}]}, 422),
        ("/decisions", {"decisions": [{"row_a": 0, "row_b": 1, "decision": "same"}]}, 422),
        ("/decisions", {"version": "VERSION", "decisions": [], "more": 1}, 400),
        ("/decisions?file=nobody", {"version": "VERSION", "decisions": []}, 404),
        ("/decisions?fil=people", {"version": "VERSION", "decisions": []}, 422),
        ("/undo", [], 400),
        ("/undo", {"what": 1}, 400),
    ],
)
def test_wrong_decisions_are_problems_and_change_nothing(
    run: Callable[..., None], path: Path, route: str, body: Any, status: int
) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        version = (await get(http, PAIRS, threshold=0.9))["version"]
        sent = {**body, "version": version} if isinstance(body, dict) and "version" in body else body
        response = await http.post(PAIRS + route, json=sent)
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"

    run(check)
    assert not path.with_name("people.h5.review").exists()


def test_wrong_questions_are_problems(run: Callable[..., None]) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        assert (await get(http, PAIRS, 422))["code"] == "E-CONFIG"  # no calibration, and no threshold
        await get(http, PAIRS, 422, threshold=0.2, cursor="nonsense")
        await get(http, PAIRS, 409, threshold=0.2, cursor="0123456789abcdef.7")
        await get(http, PAIRS, 422, threshold=0.2, limit=0)
        answer = await get(http, CLUSTERS)
        assert (answer["grouped"], answer["clusters"]) == (False, [])
        assert (await get(http, CLUSTERS + "/faces", 409, cluster="0-0"))["code"] == "E-CONFIG"

    run(check)


def sizes_at(path: Path, threshold: float) -> list[int]:
    """The sizes of the clusters at a threshold, the largest first."""
    report = facemill.cluster(path, threshold=threshold, write_column=False, device="cpu")
    return [int(size) for size in report.clusters.sizes]


def test_clusters_are_grouped_named_merged_split_and_undone(run: Callable[..., None], path: Path) -> None:
    thresholds = [pair.score for pair in facemill.find_pairs(path, threshold=0, device="cpu")]
    sizes_by_threshold = ((value, sizes_at(path, value)) for value in thresholds)
    threshold = next(value for value, sizes in sizes_by_threshold if len(sizes) > 2 and sizes[0] > 2)

    async def check(http: httpx.AsyncClient) -> None:
        assert (await post(http, CLUSTERS + "/group", {"threshold": threshold}))["state"] == "done"
        first = await get(http, CLUSTERS, limit=1000)
        version, (a, b, *_) = first["version"], first["clusters"]
        assert first["photos"] == 12
        assert sum(each["size"] for each in first["clusters"]) == 12

        async def change(what: str, status: int = 200, **body: Any) -> dict[str, Any]:
            return await post(http, f"{CLUSTERS}/{what}", {"version": version, **body}, status)

        await change("name", cluster=a["id"], name="Ännchen <b>")
        merged = await change("merge", clusters=[a["id"], b["id"]])
        assert merged["set_aside"] == []
        (joined, *_) = (await get(http, CLUSTERS))["clusters"]
        assert (joined["size"], joined["name"]) == (a["size"] + b["size"], "Ännchen <b>")
        await change("split", 409, cluster=a["id"], rows=[a["faces"][0]["row"]])  # it is not there any more
        faces = await get(http, CLUSTERS + "/faces", cluster=joined["id"], limit=1)
        assert len(faces["faces"]) == 1
        rest = await get(http, CLUSTERS + "/faces", cluster=joined["id"], cursor=faces["next"])
        assert len(rest["faces"]) == joined["size"] - 1
        assert rest["next"] is None

        row = faces["faces"][0]["row"]
        split = await change("split", cluster=joined["id"], rows=[row])
        assert split["set_aside"] == [merged["decision"]]  # it keeps of the merge what it can
        sizes = sorted(each["size"] for each in (await get(http, CLUSTERS, limit=1000))["clusters"])
        assert 1 in sizes
        assert joined["size"] - 1 in sizes
        await change("split", 422, cluster=(await get(http, CLUSTERS))["clusters"][0]["id"], rows=[row])

        # What is grouped again obeys, and undo leads back to what the scores say.
        await post(http, CLUSTERS + "/group", {"threshold": threshold})
        again = await get(http, CLUSTERS, limit=1000)
        assert sorted(each["size"] for each in again["clusters"]) == sizes
        kinds = [(await post(http, CLUSTERS + "/undo", {})).get("kind") for _ in range(4)]
        assert kinds == ["split", "merge", "name", None]
        assert (await get(http, CLUSTERS, limit=1000))["clusters"] == first["clusters"]
        assert (await post(http, CLUSTERS + "/redo", {}))["kind"] == "name"
        assert (await get(http, CLUSTERS))["clusters"][0]["name"] == "Ännchen <b>"

        for what, body, status in (
            ("name", {"cluster": a["id"], "name": "A" * 201}, 422),
            ("name", {"cluster": a["id"], "name": "An\u202ena"}, 422),
            ("name", {"cluster": "7-nonsense", "name": "Anna"}, 409),
            ("merge", {"clusters": [a["id"]]}, 422),
            ("merge", {"clusters": [a["id"], a["id"]], "name": 7}, 422),
            ("split", {"cluster": a["id"], "rows": []}, 422),
        ):
            await change(what, status, **body)

    run(check)


def test_a_decision_about_a_pair_changes_the_clusters(run: Callable[..., None]) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        await post(http, CLUSTERS + "/group", {"threshold": 0.3})
        listed = (await get(http, CLUSTERS, limit=1000))["clusters"]
        large = listed[0]
        assert large["size"] > 1
        one, two = (face["row"] for face in large["faces"][:2])
        body = {"version": (await get(http, PAIRS, threshold=0.9))["version"]}
        body |= {"decisions": [{"row_a": one, "row_b": two, "decision": "different"}]}
        await post(http, PAIRS + "/decisions", body)
        after = (await get(http, CLUSTERS, limit=1000))["clusters"]
        assert len(after) == len(listed) + 1
        await post(http, PAIRS + "/undo", {})
        assert (await get(http, CLUSTERS, limit=1000))["clusters"] == listed

    run(check)


def test_both_tell_who_asked_and_neither_who_is_shown(run: Callable[..., None], path: Path, tmp_path: Path) -> None:
    async def check(http: httpx.AsyncClient) -> None:
        await post(http, CLUSTERS + "/group", {"threshold": 0.3})
        (cluster, *_) = (await get(http, CLUSTERS))["clusters"]
        version = (await get(http, CLUSTERS))["version"]
        await post(http, CLUSTERS + "/name", {"version": version, "cluster": cluster["id"], "name": "Secret"})

    run(check, audit=tmp_path / "audit.jsonl")
    audit = (tmp_path / "audit.jsonl").read_text()
    assert "/api/v1/clusters/name" in audit
    assert '"file": "people"' in audit
    for secret in ("Secret", "person", ".png"):
        assert secret not in audit
