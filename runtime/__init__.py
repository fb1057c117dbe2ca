"""facemill: millions of face photographs to a searchable set of embeddings, overnight, on one machine.

The rooms, in the order a photograph passes through them: sources, images, engines, storage, index.
`pipeline` is the only one that knows that order; `cli` is thin over all of them.
"""

__version__ = "0.1.0"
