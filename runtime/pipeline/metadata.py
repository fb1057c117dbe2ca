"""What the finished file says of itself; docs/format.md lists it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .. import __version__
from ..engines.engine import EngineInfo
from ..records import Status
from ..storage.runfolder import Plan, utc_now
from .request import UNTRAINED_WARNING, Request


def metadata_of(plan: Plan, request: Request, info: EngineInfo, counts: Mapping[str, int]) -> dict[str, Any]:
    """The attributes of `/metadata`.

    Args:
        plan: of the run.
        request: of the run that finished it.
        info: of the engine that finished it.
        counts: photographs by outcome.
    """
    return {
        **plan.contract.attributes(),
        "trained": info.trained,
        **({} if info.trained else {"warning": UNTRAINED_WARNING}),
        "backend": info.backend,
        "backend_version": info.backend_version,
        "engine": os.path.abspath(request.engine.path),
        "engine_sha256": info.engine_sha256,
        **({"detector_engine": os.path.abspath(request.detector.path)} if request.detector else {}),
        "tool_version": __version__,
        "plan_id": plan.plan_id,
        "started_utc": plan.started_utc,
        "finished_utc": utc_now(),
        "scanned": plan.rows,
        **{f"count_{name.replace('-', '_')}": count for name, count in counts.items()},
        "embedded": counts.get(Status.EMBEDDED.label, 0),
    }
