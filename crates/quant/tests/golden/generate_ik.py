"""Makes the golden rows of ik_llama.cpp's types with ik_llama.cpp's own code, which is not part of this repository.

The source is the PyPI sdist ik-llama-cpp-python 0.1.5 (MIT), of which two files are built into a library:

    pip download --no-deps --no-binary :all: ik-llama-cpp-python==0.1.5 && tar xf ik_llama_cpp_python-0.1.5.tar.gz
    cd ik_llama_cpp_python-0.1.5/vendor/ik_llama.cpp/ggml/src
    F="-O2 -mavx2 -mfma -mf16c -fPIC -w -D_GNU_SOURCE -I. -I../include"
    gcc $F -c ggml-quants.c && g++ $F -std=c++17 -c iqk/iqk_quantize.cpp
    cat > rest.c <<'END'
    #include <immintrin.h>
    float ggml_table_f32_f16[1 << 16];
    __attribute__((constructor)) static void fill(void) {
        for (int i = 0; i < 1 << 16; i++) ggml_table_f32_f16[i] = _cvtsh_ss(i);
    }
    unsigned long ggml_row_size(int type, long values) { return 0; } /* rows are made one at a time */
    END
    gcc $F -c rest.c && g++ -shared -Wl,-z,lazy ggml-quants.o iqk_quantize.o rest.o -o libik.so
    python generate_ik.py libik.so

Per type: NAME.blocks holds one row of random bytes that decode to finite values, NAME.values those values;
NAME.quantized holds one row that the quantizer made of random numbers, NAME.quantized-values what it decodes to.
The row's own scale, where the type has one, comes first.
"""

import ctypes
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent

# Name: values of a block, bytes of a block, bytes of the row's scale.
TYPES = {
    "Q6_0": (32, 26, 0), "IQ2_K": (256, 76, 0), "IQ3_K": (256, 110, 0), "IQ4_K": (256, 144, 0), "IQ5_K": (256, 176, 0),
    "IQ6_K": (256, 212, 0), "IQ2_KS": (256, 70, 2), "IQ3_KS": (256, 102, 2), "IQ4_KS": (256, 136, 4),
    "IQ4_KSS": (256, 128, 4), "IQ5_KS": (256, 168, 4), "IQ2_KL": (256, 86, 2), "IQ1_KT": (256, 56, 4),
    "IQ2_KT": (256, 68, 4), "IQ3_KT": (256, 100, 4), "IQ4_KT": (256, 128, 4),
}  # fmt: skip

library = ctypes.CDLL(sys.argv[1], mode=1)  # RTLD_LAZY: what is not called may be missing


def decode(name, row, values):
    out = np.empty(values, dtype="<f4")
    dequantize = getattr(library, f"dequantize_row_{name.lower()}")
    dequantize(row.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(values))
    return out


def quantize(name, x, size):
    row = np.zeros(size, dtype=np.uint8)
    encode = getattr(library, f"quantize_{name.lower()}")
    encode.restype = ctypes.c_size_t
    ones = np.ones_like(x)
    pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (x, row, ones)]
    encode(pointers[0], pointers[1], ctypes.c_int64(1), ctypes.c_int64(len(x)), pointers[2])
    return row


def scale(rng, size):
    return np.array([rng.uniform(0.001, 0.01)], dtype={0: "<f4", 2: "<f2", 4: "<f4"}[size]).view(np.uint8)[:size]


rng = np.random.default_rng(22)
for name, (values, size, prefix) in TYPES.items():
    count = 41 if values < 256 else 21
    row = [scale(rng, prefix)]
    while len(row) <= count:
        block = rng.integers(0, 256, size, dtype=np.uint8)
        if np.isfinite(decode(name, np.concatenate([row[0], block]), values)).all():
            row.append(block)
    row = np.concatenate(row)
    (HERE / f"{name}.blocks").write_bytes(row.tobytes())
    (HERE / f"{name}.values").write_bytes(decode(name, row, count * values).tobytes())

    x = rng.normal(0, 0.05, 3 * values).astype("<f4")
    row = quantize(name, x, prefix + 3 * size)
    decoded = decode(name, row, len(x))
    error = np.sqrt(np.mean((decoded - x) ** 2)) / 0.05
    print(f"{name}: rms error {error:.3f}")
    assert error < 0.7, name
    (HERE / f"{name}.quantized").write_bytes(row.tobytes())
    (HERE / f"{name}.quantized-values").write_bytes(decoded.tobytes())
