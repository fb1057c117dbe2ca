"""From names and options to engines and jobs: what commands, notebooks and servers call.

`import facemill` gives the public names. Names of models, detectors and backends become engines here, and all defaults
are those of the command line (`defaults.py`).
"""
