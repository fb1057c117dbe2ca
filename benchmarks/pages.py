#!/usr/bin/env python3
"""Measure the pages of the server in a browser: bytes and first paint of the first page, and uploads.

    python benchmarks/pages.py               # 600 photos in the file, 100 uploads
    python benchmarks/pages.py --uploads 20 --dry-run

An upload is measured in the page, from the choice of a photo until the 50 thumbnails of its hits are painted: the photo
is sent, its main face is embedded and searched for, and the thumbnails are made and loaded. Every upload is another
person, so most thumbnails are made anew. The browser and the server share the cores.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from pathlib import Path

import material
from playwright.sync_api import Browser, sync_playwright
from report import write_results
from server import server

FIRST_LOADS = 10
MAX_BYTES, MAX_PAINT_MS, MAX_UPLOAD_MS = 150_000, 1000.0, 500.0  # what is asked for

WATCH = """() => {
  document.getElementById("photos").addEventListener("change", () => { window.chosenAt = performance.now(); }, true);
}"""
PAINTED = """(name) => new Promise((done) => {
  const look = () => {
    const images = [...document.querySelectorAll("#hits img")];
    const right = document.getElementById("status").textContent.includes(`for ${name},`);
    if (right && images.length === 50 && images.every((image) => image.complete && image.naturalWidth)) {
      requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - window.chosenAt)));
    } else {
      requestAnimationFrame(look);
    }
  };
  look();
})"""
FIRST_PAINT = """() => new Promise((done) => {
  const look = () => {
    const [paint] = performance.getEntriesByName("first-contentful-paint");
    const loads = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
    const bytes = loads.reduce((sum, load) => sum + load.transferSize, 0);
    if (paint && document.readyState === "complete") done([bytes, paint.startTime]);
    else setTimeout(look, 20);
  };
  look();
})"""


def first_page(browser: Browser, url: str) -> tuple[int, float]:
    """Bytes of the first page with all that it loads, and milliseconds until its first paint, with an empty cache."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(url)
    count, paint_ms = page.evaluate(FIRST_PAINT)
    context.close()
    return count, paint_ms


def uploads_ms(browser: Browser, url: str, photos: list[Path]) -> list[float]:
    """Milliseconds from the choice of each photo until its 50 thumbnails are painted."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(f"{url}/recognise")
    page.evaluate(WATCH)
    times = []
    for photo in photos:
        page.set_input_files("#photos", photo)
        times.append(float(page.evaluate(PAINTED, photo.name)))
    context.close()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=600, help="photos in the file; default: 600")
    parser.add_argument("--uploads", type=int, default=100, help="at most a fifth of the photos")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "facemill-bench")
    parser.add_argument("--dry-run", action="store_true", help="print the figures, and write no table")
    options = parser.parse_args()
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        raise SystemExit("no browser: install chromium, such as by apt-get install chromium")
    options.data.mkdir(parents=True, exist_ok=True)
    folder = material.draw_portraits(options.data, options.count, (300, 400))
    file = folder.with_suffix(".h5")

    import runtime as facemill

    facemill.process(folder, file)
    photos = sorted(folder.rglob("*.jpg"))[::5][: options.uploads]  # one of each person
    with server(str(file)) as port, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        url = f"http://127.0.0.1:{port}"
        loads = [first_page(browser, url) for _ in range(FIRST_LOADS)]
        uploads_ms(browser, url, photos[:2])  # the engines have run
        load_before = os.getloadavg()[0]
        times = uploads_ms(browser, url, photos[2:])
        load_after = os.getloadavg()[0]
        browser.close()
    percentiles = statistics.quantiles(times, n=20)
    rows: list[dict[str, object]] = [
        {"figure": "first page, bytes", "value": max(count for count, _ in loads), "asked for": MAX_BYTES},
        {"figure": "first paint, ms, median", "value": round(statistics.median(ms for _, ms in loads), 1),
         "asked for": MAX_PAINT_MS},
        {"figure": "upload to 50 thumbnails, ms, p50", "value": round(statistics.median(times), 1), "asked for": ""},
        {"figure": "upload to 50 thumbnails, ms, p95", "value": round(percentiles[-1], 1), "asked for": MAX_UPLOAD_MS},
    ]  # fmt: skip
    notes = [f"Load of the machine, one minute, before and after the uploads: {load_before:.1f} and {load_after:.1f}."]
    print("\n".join(f"{row['figure']!s:36} {row['value']}" for row in rows), *notes, sep="\n")
    if not options.dry_run:
        title = f"The pages in Chromium: {options.count} photos, {len(times)} uploads"
        write_results("pages", title, rows, notes, details={"uploads_ms": times, "first_page": loads}, quiet=True)


if __name__ == "__main__":
    main()
