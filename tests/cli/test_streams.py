"""Closed, full and vanished streams, a lost folder, another locale: none of them decides about the work."""

from __future__ import annotations

import os
import pty
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime.cli.streams import _Channel
from runtime.errors import MachineError
from tests.support import encoded_images as make
from tests.support.embedding_files import contents
from tests.support.errors import assert_names
from tests.support.facemill_command import ROOT, command_line, facemill, facemill_process, start_facemill

FULL = "/dev/full"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photos, one with a name beyond Latin-1 and one with a name that is no UTF-8."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(("a.jpg", "日本語.jpg", os.fsdecode(b"caf\xe9.jpg"))):
        (folder / name).write_bytes(make.encode(make.scene(112, 112, seed=number)))
    return folder


def run(folder: Path, engine: Path, *more: object, output: str = "o.h5") -> tuple[object, ...]:
    """A small run; faces are not looked for."""
    return ("process", folder, "-o", folder.parent / output, "--engine", engine, "--align", "none", *more)


def with_shell(redirections: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in its own process with redirections, as a shell writes them."""
    line = ["bash", "-c", f'exec "$@" {redirections}', "bash", *command_line(*arguments)]
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, timeout=120, **options)


def rows(file: Path) -> int:
    count: int = contents(file)["embeddings"][0][0]
    return count


@pytest.mark.slow
@pytest.mark.parametrize("redirections", ["2>/dev/full", "2>&-", "<&- >&- 2>&-", "2> >(exit)"])
def test_a_run_goes_on_without_a_display_and_the_log_says_why(
    redirections: str, folder: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    done = with_shell(redirections, *run(folder, tiny_engine, "--log", tmp_path / "log"))
    assert (done.returncode, done.stdout) == (0, "")
    assert rows(tmp_path / "o.h5") == 3
    assert_names((tmp_path / "log").read_text(), "stderr cannot be written")


@pytest.mark.slow
def test_a_run_goes_on_when_its_terminal_hangs_up(photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    arguments = ("process", photos, "-o", tmp_path / "o.h5", "--engine", tiny_engine, "--log", tmp_path / "log")
    ignored: Any = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    with start_facemill(*arguments, stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=ignored) as process:
        os.close(theirs)
        assert os.read(ours, 4096)
        os.close(ours)
        assert process.wait(timeout=120) == 0
    assert rows(tmp_path / "o.h5") == 594
    assert_names((tmp_path / "log").read_text(), "stderr cannot be written")


def test_a_library_that_prints_never_writes_into_a_file_of_ours(
    folder: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    code = "import os, sys; from runtime.cli.streams import open_streams; open_streams(); print(os.open('/', 0))"
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "{code}" 2>&- <&-'], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert int(done.stdout) > 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [("--help",), ("models", "list"), ("search", "{file}", "{photo}"), ("verify", "{file}")]
)
def test_a_result_that_cannot_be_written_is_one_line(
    arguments: tuple[str, ...], folder: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    assert facemill(*run(folder, tiny_engine)).returncode == 0
    assert facemill("search", tmp_path / "o.h5", folder / "a.jpg").returncode == 0  # makes the index
    words = [text.format(file=tmp_path / "o.h5", photo=folder / "a.jpg") for text in arguments]
    done = with_shell(f">{FULL}", *words)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if not line.startswith("WARNING: random weights")]
    assert len(lines) == 1
    assert lines[0].startswith("E-MACHINE: stdout")


@pytest.mark.slow
def test_a_summary_that_cannot_be_written_takes_nothing_from_the_file(
    folder: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    done = with_shell(f">{FULL}", *run(folder, tiny_engine, "--json"))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert rows(tmp_path / "o.h5") == 3


@pytest.mark.slow
@pytest.mark.parametrize("redirection", [f">{FULL}", "> >(exec <&-)"])
@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        (("remove", "{file}", "--path", "a.jpg", "--yes"), "o.h5.removed-"),
        (("merge", "{file}", "{other}", "-o", "{folder}/joined.h5"), "joined.h5 "),
        (("pairs", "{file}", "--threshold", "0.1", "-o", "{folder}/pairs.csv"), "pairs.csv "),
        (("export", "{file}", "--npy", "{folder}/npy"), "/npy,"),
    ],
)
def test_a_command_whose_summary_cannot_be_written_says_that_its_work_is_done(
    arguments: tuple[str, ...], written: str, redirection: str, folder: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    assert facemill(*run(folder, tiny_engine)).returncode == 0
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "d.jpg").write_bytes(make.encode(make.scene(112, 112, seed=7)))
    assert facemill(*run(tmp_path / "more", tiny_engine, output="other.h5")).returncode == 0
    before = set(os.listdir(tmp_path))
    names = {"file": tmp_path / "o.h5", "other": tmp_path / "other.h5", "folder": tmp_path}
    done = with_shell(redirection, *(text.format(**names) for text in arguments))
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    assert last.startswith("E-MACHINE: ")
    assert written in last
    assert "nothing of it is left to do" in last
    assert set(os.listdir(tmp_path)) - before


@pytest.mark.slow
def test_a_result_whose_reader_goes_away_ends_without_a_word(folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    assert facemill(*run(folder, tiny_engine)).returncode == 0
    assert facemill("search", tmp_path / "o.h5", folder / "a.jpg").returncode == 0  # makes the index
    done = with_shell("> >(exec <&-)", "search", tmp_path / "o.h5", folder / "a.jpg")
    assert done.returncode == 1
    assert all(line.startswith("WARNING: random weights") for line in done.stderr.splitlines())


@pytest.mark.slow
def test_both_streams_full_are_silent(folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    assert with_shell(f">{FULL} 2>&1", *run(folder, tiny_engine, "--json")).returncode == 1
    assert with_shell(f">{FULL} 2>&1", "process", "--nonsense").returncode == 2
    assert rows(tmp_path / "o.h5") == 3


@pytest.mark.slow
def test_a_log_on_a_full_disk_is_one_line(folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    done = with_shell("", *run(folder, tiny_engine, "--log", FULL))
    assert done.returncode == 0
    assert sum(FULL in line for line in done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert rows(tmp_path / "o.h5") == 3


@pytest.mark.slow
def test_a_log_that_reaches_the_limit_of_files_ends_and_the_run_goes_on(
    folder: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\n" * 19_999_990)
    limit: Any = lambda: (  # noqa: E731
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, 20_000_000)),
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
    )
    done = with_shell("", *run(folder, tiny_engine, "--log", log), preexec_fn=limit)
    assert done.returncode == 0, done.stderr
    assert sum(str(log) in line for line in done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_pipe_as_the_log_is_refused_at_once(folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = facemill_process(*run(folder, tiny_engine, "--log", tmp_path / "pipe"), timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("E-CONFIG")


@pytest.mark.slow
def test_a_deleted_working_folder_is_one_line_or_none(folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    start = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); os.rmdir(os.getcwd())\nfrom runtime.cli.app import main\n"
    )
    for arguments, code in ((run(folder, tiny_engine), 0), (("process", "photos", "-o", "o.h5"), 1)):
        (tmp_path / "gone").mkdir(exist_ok=True)
        program = f"{start}main({[str(argument) for argument in arguments]!r})"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path / "gone", timeout=120
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("E-MACHINE: the working folder was deleted")


@pytest.mark.slow
def test_no_temporary_folder_is_one_line(folder: Path, tiny_model: Path, tmp_path: Path) -> None:
    # An interpreter whose candidates for temporary folders are all gone, as below a root that is read-only.
    start = (
        f"import sys, tempfile; sys.path.insert(0, {str(ROOT)!r})\n"
        "tempfile._candidate_tempdir_list = lambda: ['/nowhere']\nfrom runtime.cli.app import main\n"
    )
    program = f"{start}main(['build-engine', '--model', {str(tiny_model)!r}, '--output', {str(tmp_path / 'e')!r}])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("E-MACHINE: No usable temporary directory")
    assert_names(done.stderr, "TMPDIR")


@pytest.mark.slow
@pytest.mark.parametrize("files", [5, 6, 7])
def test_too_few_open_files_are_one_line_even_before_the_streams_are_open(files: int) -> None:
    limit: Any = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))  # noqa: E731
    done = facemill_process("models", "list", preexec_fn=limit)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("E-MACHINE")
    assert_names(done.stderr, "ulimit -n")


@pytest.fixture(scope="module")
def latin1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with a German locale in Latin-1."""
    place = tmp_path_factory.mktemp("locale")
    if shutil.which("localedef") is None:
        pytest.skip("no localedef: it makes the locale")
    made = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(place / "de_DE.ISO-8859-1")]
    if subprocess.run(made, capture_output=True, timeout=60).returncode not in (0, 1):
        pytest.skip("localedef has no sources of de_DE")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONUTF8", "PYTHONIOENCODING")}
    return {**environment, "LOCPATH": str(place), "LC_ALL": "de_DE.ISO-8859-1"}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["", "--csv", "--json"])
def test_output_is_escaped_where_the_locale_lacks_a_letter(
    form: str, latin1: dict[str, str], folder: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    assert facemill(*run(folder, tiny_engine)).returncode == 0
    page = tmp_path / "page.html"
    query = ("search", tmp_path / "o.h5", folder / "日本語.jpg", "--html", page, *([form] if form else []))
    done = facemill_process(*query, env=latin1, encoding="latin-1")
    assert done.returncode == 0, done.stderr
    assert "\\u65e5\\u672c\\u8a9e.jpg" in done.stdout
    assert "日本語.jpg" in page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_file_is_the_same_under_every_locale(
    latin1: dict[str, str], folder: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    folder = folder.rename(tmp_path / "Füße 日本")
    assert facemill(*run(folder, tiny_engine)).returncode == 0
    assert facemill_process(*run(folder, tiny_engine, output="l.h5"), env=latin1, encoding="latin-1").returncode == 0
    again = facemill_process(*run(folder, tiny_engine, output="l.h5"))  # the same root, or it would be refused
    assert again.returncode == 0, again.stderr
    assert contents(tmp_path / "o.h5")["image_paths"] == contents(tmp_path / "l.h5")["image_paths"]


def test_a_channel_drops_everything_after_its_first_error() -> None:
    with open(FULL, "wb") as full:
        channel = _Channel(full.fileno(), "stdout", "")
        with pytest.raises(MachineError):
            channel.write(b"result")
        assert channel.write(b"more") == 4
        display = _Channel(full.fileno(), "stderr", "")
        assert display.write(b"line") == 4
        assert display.lost


def test_a_hangup_that_is_ignored_stays_ignored_and_another_one_is_no_impatience() -> None:
    from runtime.errors import Interrupted
    from runtime.interrupt import SignalControl

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with SignalControl():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with SignalControl() as control, control.in_flight():
            for _ in range(3):  # a second SIGTERM would end this process
                os.kill(os.getpid(), signal.SIGHUP)
            assert control.stopping
            assert control.signum == signal.SIGHUP
        with pytest.raises(Interrupted), SignalControl():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
