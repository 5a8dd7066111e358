"""Writes the grids beside this file from the `gguf` Python package (0.19.0), which holds ggml's.

    pip install gguf==0.19.0 && python generate.py

NAME.grid is a list of little-endian u16, one per vector: the level of element i is the i-th field of BITS bits.
"""

from pathlib import Path

import numpy as np
from gguf import quants

HERE = Path(__file__).parent

for name, bits in [("IQ2_XXS", 2), ("IQ2_XS", 2), ("IQ2_S", 2), ("IQ3_XXS", 3), ("IQ3_S", 3), ("IQ1_S", 2)]:
    codec = getattr(quants, name)
    codec.init_grid()
    levels = np.array(codec.grid_map)
    fields = np.searchsorted(levels, codec.grid.reshape(codec.grid_shape)).astype(np.uint16)
    vectors = np.bitwise_or.reduce(fields << (bits * np.arange(codec.grid_shape[1], dtype=np.uint16)), axis=1)
    (HERE / f"{name}.grid").write_bytes(vectors.astype("<u2").tobytes())
