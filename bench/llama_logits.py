#!/usr/bin/env python3
"""Logits by llama.cpp in the form of testdata/logits.json, for `kimi eval --logits`.

Takes the texts, token ids and positions of a reference file and writes what llama.cpp computes for a model at the same
positions. llama.cpp comes prebuilt in the wheel that is named below; nothing is compiled:

    python3 -m venv venv && venv/bin/pip install xllamacpp==2026.10.11549 numpy
    venv/bin/python bench/llama_logits.py MODEL.gguf testdata/logits.json OUT.json

llama.cpp does not read yarn_beta_fast from deepseek2 files and takes 32; `--yarn-beta-fast 1` corrects that for
Kimi-K2. Without it the result is to be compared with `kimi eval --compat llama.cpp`.
"""

import argparse
import ctypes
import json
import math
import pathlib
import struct

import numpy
import xllamacpp

# Offsets in llama_context_params and llama_model_params of the release named above. The structures are passed by
# value; what is not set here keeps llama.cpp's default. `check` refuses another layout.
N_CTX, N_BATCH, N_UBATCH, N_THREADS, N_THREADS_BATCH = 0, 4, 8, 28, 32
FLASH_ATTENTION, BETA_FAST, TYPE_K, TYPE_V = 52, 72, 104, 108
USE_EXTRA_BUFFER_TYPES = 74
GGML_TYPE_F32 = 0


class Params(ctypes.Structure):
    """Larger than either structure, which the calling convention allows: both go by memory."""

    _fields_ = [("bytes", ctypes.c_ubyte * 512)]

    def set(self, form, offset, value):
        struct.pack_into(form, self.bytes, offset, value)

    def get(self, form, offset):
        return struct.unpack_from(form, self.bytes, offset)[0]


class Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


def library():
    path = next(pathlib.Path(xllamacpp.__file__).parent.glob("*.so"))
    lib = ctypes.CDLL(str(path))
    for name in ("llama_model_default_params", "llama_context_default_params"):
        getattr(lib, name).restype = Params
    pointers = ("llama_model_load_from_file", "llama_init_from_model", "llama_model_get_vocab", "llama_get_memory")
    for name in pointers:
        getattr(lib, name).restype = ctypes.c_void_p
    lib.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
    lib.llama_batch_init.restype = Batch
    return lib


def check(params):
    found = [params.get("<I", at) for at in (N_CTX, N_BATCH, N_UBATCH, TYPE_K, TYPE_V)]
    if found != [512, 2048, 512, 1, 1] or params.get("<f", BETA_FAST) != -1.0:
        raise SystemExit("llama_context_params has another layout: install the xllamacpp named in this file")


def position(logits, at, top):
    logits = logits.astype(numpy.float64)
    best = numpy.argsort(-logits, kind="stable")[:top]
    highest = logits.max()
    logsumexp = highest + math.log(numpy.exp(logits - highest).sum())
    pairs = [[int(token), round(float(logits[token]), 5)] for token in best]
    return {"pos": at, "top": pairs, "logsumexp": round(logsumexp, 5)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("reference")
    parser.add_argument("out")
    parser.add_argument("--yarn-beta-fast", type=float, default=-1.0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    reference = json.loads(pathlib.Path(args.reference).read_text())
    longest = max(len(text["ids"]) for text in reference)
    lib = library()
    # The library announces every tensor; only what goes wrong here is of interest, and that is raised below.
    quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    lib.llama_log_set(quiet, None)
    lib.llama_backend_init()

    params = lib.llama_model_default_params()
    params.set("<B", USE_EXTRA_BUFFER_TYPES, 0)
    model = lib.llama_model_load_from_file(args.model.encode(), params)
    if not model:
        raise SystemExit(f"llama.cpp cannot load {args.model}")
    vocab = lib.llama_vocab_n_tokens(ctypes.c_void_p(lib.llama_model_get_vocab(ctypes.c_void_p(model))))

    params = lib.llama_context_default_params()
    check(params)
    for offset in (N_CTX, N_BATCH, N_UBATCH):
        params.set("<I", offset, -(-longest // 256) * 256)
    for offset in (N_THREADS, N_THREADS_BATCH):
        params.set("<i", offset, args.threads)
    for offset in (TYPE_K, TYPE_V):
        params.set("<i", offset, GGML_TYPE_F32)
    params.set("<i", FLASH_ATTENTION, 0)
    params.set("<f", BETA_FAST, args.yarn_beta_fast)
    context = lib.llama_init_from_model(ctypes.c_void_p(model), params)
    if not context:
        raise SystemExit("llama.cpp cannot make a context")
    context = ctypes.c_void_p(context)

    result = []
    for text in reference:
        ids = text["ids"]
        lib.llama_memory_clear(ctypes.c_void_p(lib.llama_get_memory(context)), ctypes.c_bool(True))
        batch = lib.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for at, token in enumerate(ids):
            batch.token[at], batch.pos[at] = token, at
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
            batch.logits[at] = 1
        if lib.llama_decode(context, batch) != 0:
            raise SystemExit(f"llama.cpp cannot evaluate '{text['name']}'")
        positions = []
        for wanted in text["positions"]:
            row = lib.llama_get_logits_ith(context, wanted["pos"])
            row = numpy.ctypeslib.as_array(row, shape=(vocab,))
            positions.append(position(row, wanted["pos"], len(wanted["top"])))
        lib.llama_batch_free(batch)
        result.append({**text, "positions": positions})
    pathlib.Path(args.out).write_text(json.dumps(result, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
