"""The functions that commands, notebooks and servers call.

`import facemill` gives the public names. This room turns names of models, detectors and backends into engines. All
defaults are those of the command line (`defaults.py`).
"""
