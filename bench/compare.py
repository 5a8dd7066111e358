#!/usr/bin/env python3
"""This engine beside llama.cpp and ik_llama.cpp: the same file, the same machine, taking turns.

    bench/compare.py MODEL.gguf [-p 512] [-n 32] [-d 0] [-r 5] [-t THREADS] [--save FILE.json]

Builds the peers with bench/peers.sh where they are missing. Of each peer the flags that are fastest on this file are
found first, by one run each; then all engines take turns, a process for every run. Prints medians, the spread from the
fastest to the slowest run, ratios, the most memory that was resident, and for decoding the share of the floor: the
bytes of weights that a token needs over the read bandwidth measured in the same session. Run it on an idle machine.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(os.environ.get("KIMI_CACHE", pathlib.Path.home() / ".cache/kimi-operator"))
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", CACHE / "target"))


def build():
    """The command of each engine with each set of flags worth trying."""
    cargo = ["cargo", "build", "--release", "--locked", "-p", "worker", "-p", "quant", "--bins", "--examples"]
    environment = os.environ | {"CARGO_TARGET_DIR": str(TARGET)}
    subprocess.run(cargo, cwd=ROOT, check=True, env=environment)
    peers = subprocess.run([ROOT / "bench/peers.sh"], check=True, text=True, stdout=subprocess.PIPE).stdout
    folders = {name: folder for name, folder in (line.split(" ", 1) for line in peers.splitlines())}
    llama, ik = (folders[name] + "/llama-bench" for name in ("llama.cpp", "ik_llama.cpp"))
    return {
        "kimi": {"": [str(TARGET / "release/kimi"), "bench", "--no-warmup"]},
        "llama.cpp": {
            "": [llama, "--no-warmup"],
            "--repack 0": [llama, "--no-warmup", "--repack", "0"],
            "--repack 0 -fa 1": [llama, "--no-warmup", "--repack", "0", "-fa", "1"],
        },
        "ik_llama.cpp": {
            "": [ik, "-w", "0"],
            "-rtr 1": [ik, "-w", "0", "-rtr", "1"],
        },
    }


def run(command, model, args, test):
    """Tokens per second and peak resident bytes of one process, or why there are none."""
    flags = ["-m", model, "-t", str(args.t), "-r", "1", "-o", "json"]
    flags += ["-p", str(args.p), "-n", "0"] if test == "pp" else ["-p", "0", "-n", str(args.n)]
    if args.d:
        flags += ["-d", str(args.d)]
    # Into a file: a pipe that nobody empties meanwhile would stop an engine that logs much.
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen([*command, *flags], text=True, stdout=subprocess.PIPE, stderr=log)
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        err = log.read()
    if process.returncode:
        return None, err.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
    # ik_llama.cpp prints lines of its own between the list's bracket and its first element.
    rows = json.loads("[" + out[out.index("\n  {") :])
    return rows[-1]["avg_ts"], usage.ru_maxrss * 1024


def bandwidth(threads):
    lines = subprocess.run(
        [TARGET / "release/examples/read_bandwidth", str(threads)], check=True, text=True, stdout=subprocess.PIPE
    ).stdout
    return float(lines.split()[-1]) * 1e9


def bytes_per_token(kimi, model):
    """Of the weights: all of a matrix that every token meets, of the experts those that it is sent to."""
    out = subprocess.run([kimi, "inspect", model, "-o", "json"], check=True, text=True, stdout=subprocess.PIPE).stdout
    facts = json.loads(out)
    arch = facts["architecture"]
    share = facts["metadata"][f"{arch}.expert_used_count"] / facts["metadata"][f"{arch}.expert_count"]
    counted = {"Embedding": 0.0, "Expert": share}
    return sum(row["bytes"] * counted.get(row["class"], 1.0) for row in facts["classes"])


def fastest(commands, model, args, test):
    """Of each engine the flags that did best in one run."""
    chosen = {}
    for engine, variants in commands.items():
        tried = {flags: run(command, model, args, test) for flags, command in variants.items()}
        speeds = {flags: speed for flags, (speed, _) in tried.items() if speed}
        for flags, (speed, why) in tried.items():
            if not speed:
                print(f"{engine} {flags}: no result: {why[0]}", file=sys.stderr)
        if speeds:
            flags = max(speeds, key=speeds.get)
            chosen[engine] = (flags, variants[flags])
    return chosen


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("-p", type=int, default=512, help="tokens to read, 0 for none")
    parser.add_argument("-n", type=int, default=32, help="tokens to generate, 0 for none")
    parser.add_argument("-d", type=int, default=0, help="tokens in the cache before")
    parser.add_argument("-r", type=int, default=5, help="turns")
    parser.add_argument("-t", type=int, default=os.cpu_count(), help="threads")
    parser.add_argument("--save", help="where the runs are written")
    args = parser.parse_args()

    commands = build()
    speed_of_memory = bandwidth(args.t)
    weights = bytes_per_token(commands["kimi"][""][0], args.model)
    floor = speed_of_memory / weights
    cpu = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    print(f"{cpu}, {args.t} threads; memory is read at {speed_of_memory / 1e9:.1f} GB/s, a token needs {weights / 1e9:.2f} GB")
    print()
    print("| test | engine | flags | t/s, median | slowest to fastest | kimi is | of the floor | peak RSS, GiB |")
    print("|---|---|---|---|---|---|---|---|")
    saved = {"cpu": cpu, "threads": args.t, "model": os.path.basename(args.model), "bandwidth": speed_of_memory,
             "bytes_per_token": weights, "tests": []}
    for test, tokens in (("pp", args.p), ("tg", args.n)):
        if not tokens:
            continue
        chosen = fastest(commands, args.model, args, test)
        runs = {engine: [] for engine in chosen}
        memory = {engine: 0 for engine in chosen}
        for _ in range(args.r):
            for engine, (_, command) in chosen.items():
                speed, resident = run(command, args.model, args, test)
                if speed:
                    runs[engine].append(speed)
                    memory[engine] = max(memory[engine], resident)
        ours = statistics.median(runs["kimi"])
        for engine, speeds in runs.items():
            median = statistics.median(speeds)
            share = f"{median / floor:.0%}" if test == "tg" else ""
            ratio = "" if engine == "kimi" else f"{ours / median:.2f}x"
            name = f"{test}{tokens}" + (f" @ d{args.d}" if args.d else "")
            print(f"| {name} | {engine} | {chosen[engine][0]} | {median:.2f} | {min(speeds):.2f} to {max(speeds):.2f} "
                  f"| {ratio} | {share} | {memory[engine] / 2**30:.1f} |", flush=True)
            saved["tests"].append({"test": name, "engine": engine, "flags": chosen[engine][0], "ts": speeds,
                                   "peak_rss": memory[engine]})
    if args.save:
        pathlib.Path(args.save).write_text(json.dumps(saved, indent=1) + "\n")


main()
