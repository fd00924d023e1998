"""What a GPU computes in one go, where operation by operation the host could not keep up.

To launch anything on a GPU takes the host 10 to 20 microseconds, and most operations of a Transformer are shorter than
that: a layer norm, plainly written, is a dozen launches in either direction, for 20 microseconds of arithmetic.
So on a GPU the operations that cost a step most are handed over here, whole. The plain versions in `ops`, `optim.py`
and `tape.py` say what is computed and why. Here the same is computed, but for which elements dropout drops and for a
NaN among hidden scores; and the same gradient checks hold for both.

Each file of Python stands beside one in CUDA C++, with the kernels that it starts: begin with common.cu, columns.cu
and layer_norm. launch.py compiles them; products.py asks cuBLAS for what CuPy does not.
"""

from tinytransformer.kernels.adam import move
from tinytransformer.kernels.attention import attention
from tinytransformer.kernels.cross_entropy import cross_entropy
from tinytransformer.kernels.dropout import Dropping, drop
from tinytransformer.kernels.embedding import sum_rows_by_id
from tinytransformer.kernels.layer_norm import layer_norm
from tinytransformer.kernels.linear import linear
from tinytransformer.kernels.tape import add_pairs

__all__ = [
    "Dropping",
    "add_pairs",
    "attention",
    "cross_entropy",
    "drop",
    "layer_norm",
    "linear",
    "move",
    "sum_rows_by_id",
]
