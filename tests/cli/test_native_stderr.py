"""What decoders print about photos does not reach the terminal; what anything else prints does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import encoded_images as make
from tests.support.facemill_command import ROOT, facemill_process

PRINTS = """
import os, sys
from runtime.cli.streams import open_streams
open_streams()
os.write(2, b"Corrupt JPEG data: premature end of data segment\\n")
os.write(2, b"libpng warning: iCCP: known incorrect sRGB profile\\n")
os.write(2, b"[ERROR:0@0.021] global grfmt_tiff.cpp:117 TIFF_Error Using code not yet in table\\n")
os.write(2, b"\\n")
os.write(2, b"terminate called after throwing\\n")
sys.stderr.write("from Python\\n")
os.write(2, b"the last line without an end")
"""


def test_only_the_lines_of_decoders_are_kept_back() -> None:
    done = subprocess.run([sys.executable, "-c", PRINTS], capture_output=True, text=True, cwd=ROOT, timeout=60)
    lines = done.stderr.split("\n")
    assert sorted(lines) == ["from Python", "terminate called after throwing", "the last line without an end"]


@pytest.mark.slow
def test_a_run_prints_no_line_without_a_photo_and_the_log_has_all(tiny_engine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    data = make.encode(make.scene(112, 112))
    (folder / "cut.jpg").write_bytes(data[: len(data) // 2] + bytes(len(data) // 2))
    (folder / "junk.jpg").write_bytes(data[:-2] + b"abcdefgh" * 20 + data[-2:])
    (folder / "text.png").write_bytes(make.encode(make.scene(112, 112), "PNG").replace(b"IDAT", b"tEXt", 1))
    log = tmp_path / "log.txt"
    done = facemill_process("process", folder, "-o", tmp_path / "o.h5", "--engine", tiny_engine, "--log", log)
    assert done.returncode == 0, done.stderr
    assert "corrupt: 2" in done.stderr
    for word in ("Corrupt JPEG", "libpng", "ERROR:0"):
        assert word not in done.stderr
    assert "Corrupt JPEG data" in log.read_text()
