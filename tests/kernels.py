"""NumPy with the kernels that train.py asks for, since runs in this process are compared with its runs.

Imported before all that imports NumPy. What is started from here chooses for itself, as for a user.
"""

import os

asked = "OPENBLAS_CORETYPE" in os.environ
import tinytransformer.openblas  # noqa: E402, F401

# isort: split
import numpy  # noqa: E402, F401  reads the variable

if not asked:
    os.environ.pop("OPENBLAS_CORETYPE", None)
