"""Photos with any ending, what is passed over, patterns, lists as people write them, paths as the kernel reads them."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from runtime.errors import SourceError
from runtime.sources.kinds import Patterns
from runtime.sources.reader import read_file
from runtime.sources.scan import digest_inputs, scan
from tests.support import encoded_images as make
from tests.support.embedding_files import contents
from tests.support.errors import assert_names, assert_refused, raises
from tests.support.facemill_command import facemill, summary

PHOTO = make.encode(make.scene(112, 112))


def write(folder: Path, *names: str, data: bytes = PHOTO) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def names(*inputs: object, **options: object) -> list[bytes]:
    return list(scan([str(name) for name in inputs], **options).names)  # type: ignore[arg-type]


def test_a_photo_is_taken_whatever_its_ending_and_the_rest_is_counted_by_kind(tmp_path: Path) -> None:
    write(tmp_path, "a.jfif", "b.jpe", "c.jpg_large", "no ending", "d.PNG", ".hidden")
    write(tmp_path, "e.heic", "f.heic", data=b"\0\0\0\x18ftypheic" + bytes(50))
    write(tmp_path, "sub/g.gif", data=b"GIF89a" + bytes(50))
    write(tmp_path, "raw.nef", data=b"II*\0" + bytes(50))  # a raw file begins as a TIFF file
    write(tmp_path, "README", "BM report", data=b"BM is not a bitmap here, and neither is this")
    os.mkfifo(tmp_path / "pipe")
    source = scan([str(tmp_path)])
    assert source.names == [b".hidden", b"a.jfif", b"b.jpe", b"c.jpg_large", b"d.PNG", b"no ending"]
    assert dict(source.passed_over) == {"heic": 2, "gif": 1, "nef": 1, "without ending": 3}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF"])
def test_every_format_is_known_by_its_first_bytes(kind: str, tmp_path: Path) -> None:
    write(tmp_path, "photo", data=make.encode(make.scene(50, 40), kind))
    assert names(tmp_path) == [b"photo"]


def test_thumbnails_of_a_nas_are_left_out_and_counted_unless_included(tmp_path: Path) -> None:
    write(tmp_path, "1.jpg", "@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", ".thumbnails/1.png", "._1.jpg", "#recycle/2.jpg")
    write(tmp_path, "Thumbs.db", data=b"thumbs")
    source = scan([str(tmp_path)])
    assert source.names == [b"1.jpg"]
    assert dict(source.passed_over) == {"@eaDir": 1, ".thumbnails": 1, "._*": 1, "#recycle": 1, "Thumbs.db": 1}
    assert names(tmp_path / "@eaDir") == [b"1.jpg/SYNOPHOTO_THUMB_M.jpg"]  # named by itself
    assert b"._1.jpg" in names(tmp_path, patterns=Patterns(include=("*",)))


def test_patterns_take_and_leave_out_files_and_folders(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg", "a/1_thumb.jpg", "b/2.png", "b/old/3.jpg", "c/old/4.jpg")
    leave_out = Patterns(exclude=("*_thumb.*", "b/old"))
    assert names(tmp_path, patterns=leave_out) == [b"a/1.jpg", b"b/2.png", b"c/old/4.jpg"]
    assert dict(scan([str(tmp_path)], patterns=leave_out).passed_over) == {"*_thumb.*": 1, "b/old": 1}
    assert names(tmp_path, patterns=Patterns(include=("*.png", "c"))) == [b"b/2.png", b"c/old/4.jpg"]
    (tmp_path / "list.txt").write_text("a/1.jpg\na/1_thumb.jpg\n")
    assert names(f"@{tmp_path}/list.txt", patterns=leave_out) == [b"1.jpg"]
    assert digest_inputs(("a",)) != digest_inputs(("a",), leave_out)


def test_nothing_but_other_files_names_their_kinds(tmp_path: Path) -> None:
    write(tmp_path, "a.heic", "b.heic", data=b"\0\0\0\x18ftypheic")
    with raises(SourceError, "heic 2"):
        scan([str(tmp_path)])


@pytest.mark.slow
def test_the_commands_say_what_was_passed_over(tiny_engine: Path, tmp_path: Path) -> None:
    write(tmp_path / "p", "1.jpg", "2.jfif", "@eaDir/3.jpg")
    write(tmp_path / "p", "4.heic", data=b"\0\0\0\x18ftypheic")
    run = ("process", tmp_path / "p", "-o", tmp_path / "o.h5", "--engine", tiny_engine, "--align", "none", "--json")
    for _ in range(2):  # a run, and one with nothing to do
        done = facemill(*run)
        assert summary(done)["passed_over"] == {"heic": 1, "@eaDir": 1}
        assert_names(done.stderr, "2 of 2", "heic 1", "@eaDir 1")
    write(tmp_path / "p", "5.jpe")
    done = facemill("add", tmp_path / "o.h5", tmp_path / "p", "--exclude", "5.*")
    assert done.returncode == 0
    assert_names(done.stdout, "0 photos added", "heic 1", "5.* 1")
    done = facemill("plan", tmp_path / "p", "--engine", tiny_engine, "--align", "none", "--include", "*.jpe")
    assert done.returncode == 0
    assert_names(done.stdout, "1 aligned crops", "not included 3", "@eaDir 1")


@pytest.mark.parametrize(
    "line", ["{0} ", "\t{0}", '"{0}"', "'{0}'", "{0},Ada", '"{0}",Ada', "{0}\tAda", "{0};1", "file://{0}", "{0}\r"]
)
def test_a_list_is_read_as_people_write_it(line: str, tmp_path: Path) -> None:
    write(tmp_path, "a photo.jpg")
    for path in ("a photo.jpg", tmp_path / "a photo.jpg"):
        if "://" not in line or isinstance(path, Path):
            (tmp_path / "list.txt").write_text(line.format(path) + "\n")
            assert names(f"@{tmp_path}/list.txt") == [b"a photo.jpg"]


def test_a_name_that_looks_odd_and_exists_is_taken_as_it_is(tmp_path: Path) -> None:
    odd = ["a,b.jpg", " blank.jpg ", '"quoted".jpg', "~x.jpg"]
    write(tmp_path, *odd, "a")
    (tmp_path / "list.txt").write_text("\n".join(odd))
    assert names(f"@{tmp_path}/list.txt") == sorted(map(str.encode, odd))


def test_a_list_may_have_paths_that_end_with_nul_bytes(tmp_path: Path) -> None:
    write(tmp_path, "a\nb.jpg", "c.jpg")
    (tmp_path / "list.txt").write_bytes(b"a\nb.jpg\0c.jpg\0")
    assert names(f"@{tmp_path}/list.txt") == [b"a\nb.jpg", b"c.jpg"]
    for encoding in ("utf-16", "utf-16-le"):
        (tmp_path / "list.txt").write_bytes("c.jpg\n".encode(encoding))
        with raises(SourceError, "iconv"):
            names(f"@{tmp_path}/list.txt")


def test_a_home_folder_in_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "1.jpg")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "list.txt").write_text("~/1.jpg\n")
    assert names(f"@{tmp_path}/list.txt") == [b"1.jpg"]


@pytest.mark.parametrize(
    ("line", "look"),
    [
        ("https://example.org/{0}.jpg", "URLs"),
        ("C:\\photos\\{0}.jpg", "Windows"),
        ("gone/{0}.jpg,Ada", "table"),
        ('"gone/{0}.jpg"', "quoted"),
        ("gone/{0}.jpg", "mounted"),
    ],
)
def test_a_list_of_which_nothing_exists_is_refused_with_what_it_looks_like(
    line: str, look: str, tiny_engine: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text("\n".join(line.format(number) for number in range(40)))
    done = facemill("process", f"@{tmp_path}/list.txt", "-o", tmp_path / "o.h5", "--engine", tiny_engine)
    assert_refused(done, "E-SOURCE", tmp_path / "list.txt", look, 40)
    write(tmp_path, "1.jpg")  # one of 41 is nearly nothing
    (tmp_path / "list.txt").write_text("\n".join(["1.jpg", *(line.format(number) for number in range(40))]))
    with raises(SourceError, look):
        scan([f"@{tmp_path}/list.txt"])


def test_a_photo_that_is_missing_from_a_good_list_is_an_outcome(tmp_path: Path) -> None:
    write(tmp_path, *(f"{number}.jpg" for number in range(9)))
    (tmp_path / "list.txt").write_text("\n".join(f"{number}.jpg" for number in range(12)))
    assert len(names(f"@{tmp_path}/list.txt")) == 12


def test_a_list_that_names_the_folder_above_all_photos_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg")
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'a.jpg'}\n/\n")
    with raises(SourceError, "a list names / as a photo"):
        scan([f"@{tmp_path / 'list.txt'}"])


def test_an_archive_is_refused_with_words(tiny_engine: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        info = tarfile.TarInfo("1.jpg")
        info.size = len(PHOTO)
        archive.addfile(info, io.BytesIO(PHOTO))
    done = facemill("process", tmp_path / "photos.tar", "-o", tmp_path / "o.h5", "--engine", tiny_engine)
    assert_refused(done, "E-SOURCE", tmp_path / "photos.tar", "tar archive")


def test_a_path_with_dots_is_the_one_that_the_kernel_opens(tiny_engine: Path, tmp_path: Path) -> None:
    write(tmp_path, "real/x.jpg")
    write(tmp_path, "x.jpg", data=b"another file")
    (tmp_path / "real" / "below").mkdir()
    (tmp_path / "link").symlink_to("real/below")
    (tmp_path / "list.txt").write_text("link/../x.jpg\n./real//x.jpg\n")
    found = scan([f"@{tmp_path}/list.txt", str(tmp_path / "link" / ".." / "x.jpg")])
    opened = [read_file(os.path.join(found.root, name), 1 << 20) for name in found.names]
    assert opened == [PHOTO] * 3
    assert scan([f"{tmp_path}/link/.."]).root == os.fsencode(tmp_path / "real")


def test_a_folder_whose_name_begins_with_at_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "@x/1.jpg")
    monkeypatch.chdir(tmp_path)
    with raises(SourceError, "./@x"):
        scan(["@x"])
    assert names("./@x") == [b"1.jpg"]


def test_a_file_that_says_it_is_empty_is_read_to_its_end() -> None:
    assert os.stat("/proc/self/status").st_size == 0
    assert b"VmSize" in read_file("/proc/self/status", 1 << 20)


def test_photos_of_any_ending_are_queries_too(tiny_engine: Path, tmp_path: Path) -> None:
    write(tmp_path / "p", "1.jfif", "2.jpe")
    run = ("process", tmp_path / "p", "-o", tmp_path / "o.h5", "--engine", tiny_engine, "--align", "none")
    assert facemill(*run).returncode == 0
    assert contents(tmp_path / "o.h5")["embeddings"][0] == (2, 16)
    assert facemill("search", tmp_path / "o.h5", tmp_path / "p", "--json").stdout.count("\n") == 2
