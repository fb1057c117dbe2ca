"""The pictures that the server keeps: up to a limit, and only of the state of a file that is there now."""

from __future__ import annotations

from runtime.web.pictures import PictureCache


def test_the_pictures_used_longest_ago_give_way() -> None:
    cache = PictureCache(max_bytes=30)
    for row in range(3):
        assert cache.get("people", "a", row, "small") is None
        cache.put("people", "a", row, "small", bytes(10))
    assert cache.get("people", "a", 0, "small") == bytes(10)
    cache.put("people", "a", 3, "small", bytes(10))
    assert [cache.get("people", "a", row, "small") is not None for row in range(4)] == [True, False, True, True]
    assert cache.get("people", "a", 0, "face") is None
    cache.put("people", "a", 0, "small", bytes(31))
    assert all(cache.get("people", "a", row, "small") is None for row in range(4))


def test_pictures_end_with_the_state_of_their_file() -> None:
    cache = PictureCache()
    for file in ("people", "guests"):
        assert cache.get(file, "a", 0, "small") is None
        cache.put(file, "a", 0, "small", file.encode())
    assert cache.get("people", "b", 0, "small") is None
    cache.put("people", "a", 1, "small", b"made before the change")
    assert cache.get("people", "b", 1, "small") is None
    assert cache.get("guests", "a", 0, "small") == b"guests"
