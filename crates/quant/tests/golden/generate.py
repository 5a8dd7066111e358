"""Makes the golden blocks beside this file with the `gguf` Python package (0.19.0), ggml's own decoder in numpy.

    pip install gguf==0.19.0 && python generate.py

Per type: NAME.blocks holds random bytes whose half-precision fields are finite (such bytes are valid blocks),
NAME.values the floats they decode to. encode.values holds floats and NAME.encoded what they encode to.
"""

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

HERE = Path(__file__).parent

# Byte offsets of the half-precision fields of a block.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    "IQ4_NL": [0], "IQ4_XS": [0],
}  # fmt: skip
ENCODED = ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]


def decode_goldens(rng):
    for name, offsets in HALVES.items():
        qtype = GGMLQuantizationType[name]
        values, size = GGML_QUANT_SIZES[qtype]
        count = max(3, 96 // values)
        blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
        for offset in offsets:
            halves = rng.normal(0, 0.02, count).astype(np.float16)
            halves[-1] = np.float16(6e-8)  # a subnormal
            blocks[:, offset : offset + 2] = halves.reshape(-1, 1).view(np.uint8)
        decoded = quants.dequantize(blocks, qtype).astype("<f4")
        (HERE / f"{name}.blocks").write_bytes(blocks.tobytes())
        (HERE / f"{name}.values").write_bytes(decoded.tobytes())


def encode_goldens(rng):
    rows = rng.normal(0, 0.05, (16, 32)).astype(np.float32)
    rows[1] = 0
    rows[2] = 0.25
    rows[3] = -np.abs(rows[3])
    rows[4] *= 1000
    rows[5] *= 1e-6
    rows[6, 1:] = 0
    rows[7] = np.round(rows[7] * 64) / 64  # exact ties between levels
    (HERE / "encode.values").write_bytes(rows.astype("<f4").tobytes())
    for name in ENCODED:
        encoded = quants.quantize(rows, GGMLQuantizationType[name])
        (HERE / f"{name}.encoded").write_bytes(encoded.tobytes())


rng = np.random.default_rng(20)
decode_goldens(rng)
encode_goldens(rng)
