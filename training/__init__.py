"""How facemill's own weights are made: see README.md. Nothing of the product imports it."""

import sys
from importlib.util import find_spec

_EXTRA = ("torch", "hydra", "openvino", "pytorch_metric_learning", "tensorboard")

if _missing := [name for name in _EXTRA if find_spec(name) is None]:
    sys.exit(f"error: not installed: {', '.join(_missing)}; expected: the extra train: pip install -e '.[cpu,train]'")
