"""Makes the golden blocks beside this file with the `gguf` Python package (0.19.0), ggml's own decoder in numpy.

    pip install gguf==0.19.0 && python generate.py

Per type: NAME.blocks holds random bytes that decode to finite values (such bytes are valid blocks), NAME.values those
values. encode.values holds floats and NAME.encoded what they encode to.
"""

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

HERE = Path(__file__).parent

DECODED = [
    "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "IQ1_S", "IQ1_M",
    "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4",
]  # fmt: skip
ENCODED = ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]


def decode_goldens(rng):
    for name in DECODED:
        qtype = GGMLQuantizationType[name]
        values, size = GGML_QUANT_SIZES[qtype]
        # Some blocks are expected to be drawn with scales that are infinite or not a number.
        drawn = rng.integers(0, 256, (64, size), dtype=np.uint8)
        with np.errstate(invalid="ignore", over="ignore"):
            finite = np.isfinite(quants.dequantize(drawn, qtype)).all(axis=-1)
        blocks = drawn[finite][: 41 if values < 256 else 21]
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


decode_goldens(np.random.default_rng(20))
encode_goldens(np.random.default_rng(21))
