"""IMPART: a reproduction kit for retrieval-augmented CLIP.

The paper's method is three short files: `vanilla.py` (Eq. 1), `retrieval.py` (k nearest references)
and `ram.py` (the Retrieval Augmented Module). Import from the module that holds a name, for example
``from impart_utils.vanilla import augment``, so that the import says where to read on.
"""

import atexit
import gc

# On leaving, Python looks through all that torch is made of for cycles, which takes up to a second; what is
# frozen it passes over
atexit.register(gc.freeze)

__version__ = "0.1.0"
