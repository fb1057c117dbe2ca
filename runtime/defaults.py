"""The defaults that the library and the command line share. Nothing is imported here, so that `--help` is quick."""

from __future__ import annotations

OUTPUT = "facial_embeddings.h5"
K = 10  # hits of a query
LATENCY_MS = 100.0  # of a query, before an approximate index is looked for
ALIGN = "auto"
FACES = "largest"
PAGES = "main"
MIN_SCORE = 0.6  # detection confidence, 0 to 1
MIN_IOD_PX = 10.0  # distance between the eyes, pixels of the original photo
MIN_SHARPNESS = 0.0
MIN_BRIGHTNESS = 0.0  # mean grey level, 0 to 255
MIN_CONTRAST = 0.0  # range of grey levels, 0 to 255
MAX_UNREADABLE = 1000  # photos in a row that may be unreadable before a run stops
MAX_FIT = 0.35  # mean distance of the landmarks from the template, in distances between the eyes, 0 to 1
MIN_FRONTAL = 0.0  # 0 for any pose, 1 for frontal faces only
MAX_BYTES = 64 << 20  # of a file
MAX_PIXELS = 100_000_000  # of a photo
DECODE_BYTES = 1 << 30  # memory of all photos that are decoded at the same time
DTYPE = "float32"
SEGMENT_ROWS = 250_000
SEGMENT_SECONDS = 60.0
MAX_PAIRS = 10_000_000
MAX_LINKS = 30_000_000  # pairs of photos in the graph of clusters; so many take some 3 GB
PAGE_PAIRS = 500
EXPECTED_FALSE = 1.0  # pairs of two people that a search of all pairs may bring
MIN_PHOTOS = 2  # of a cluster that gets a folder or a sheet
MAP_POINTS = 5000
CALIBRATION_COUNT = 512
ENGINES = "engines"  # folder of build-engine
UNSURE = "keep"  # rows whose age or gender is unsure
HOST = "127.0.0.1"  # of the server
PORT = 8420
PLACES = 128  # requests that may wait for an engine
MAX_FACES = 100  # of a photo in a request
REQUEST_SECONDS = 30.0
