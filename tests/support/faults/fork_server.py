"""Run commands of facemill in forked children, one at a time, each with a fault of its own.

    LD_PRELOAD=faults.so python -m tests.support.faults.fork_server < requests > answers

A fork takes milliseconds where a start takes half a second; everything else is as in a process of its own. Each line
on stdin is a request in JSON; each line on stdout is its answer.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

PRELOADED = (
    "cv2", "faiss", "h5py", "jinja2", "matplotlib.figure", "msgspec", "numpy", "onnx", "onnxruntime",
    "plotly.offline", "pyarrow.parquet", "qdrant_client", "scipy.sparse", "sklearn.decomposition", "sklearn.manifold",
    "runtime.api", "runtime.cli.app", "runtime.pages.sheets", "runtime.pages.map", "runtime.maintenance.remove",
    "runtime.maintenance.repair", "runtime.maintenance.merge", "runtime.maintenance.add", "runtime.pipeline.run",
    "runtime.pairs.pairs", "runtime.clusters.outputs", "runtime.export.npy", "runtime.export.parquet",
    "runtime.export.qdrant", "runtime.api.evaluation", "runtime.engines.build", "runtime.api.attributes",
)  # fmt: skip


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Fork a child that runs one command, and wait for it.

    Args:
        request: `arguments`, `folder` (where it runs, and below which operations count), `output` (prefix of the files
            for its streams), `timeout_s`, `fault` (bits, mode, number, code) and `record` (path, or empty).
    Returns:
        `code` (exit code, or minus the signal), `hang` and `cpu_s`, which counts its own children.
    """
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            os.chdir(request["folder"])
            for number, suffix in ((1, ".out"), (2, ".err")):
                fd = os.open(request["output"] + suffix, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                os.dup2(fd, number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.stdin, sys.stdout = open(0), open(1, "w", errors="surrogateescape")  # noqa: SIM115
            sys.stderr = open(2, "w", errors="backslashreplace", buffering=1)  # noqa: SIM115
            from runtime.cli.app import main

            fault = request["fault"]
            names = (os.fsencode(request["folder"]), os.fsencode(request["record"]))
            ctypes.CDLL(None).faults_arm(
                names[0], fault["bits"], fault["mode"], ctypes.c_long(fault["number"]), fault["code"], names[1]
            )
            sys.argv = ["facemill", *request["arguments"]]
            code: Any = 0
            try:
                main(args=request["arguments"], prog_name="facemill")
            except SystemExit as err:
                code = err.code
            sys.stdout.flush()
            os._exit(code if isinstance(code, int) else int(code is not None))
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(70)
    deadline = time.monotonic() + request["timeout_s"]
    while True:
        finished, status, usage = os.wait4(child, os.WNOHANG)
        if finished:
            cpu_s = usage.ru_utime + usage.ru_stime
            return {"code": os.waitstatus_to_exitcode(status), "hang": False, "cpu_s": cpu_s}
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"code": -signal.SIGKILL, "hang": True, "cpu_s": request["timeout_s"]}
        time.sleep(0.002)


def main() -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        answers.write(json.dumps(run(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    main()
