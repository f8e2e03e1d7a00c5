#!/usr/bin/env python3
"""Times a run with nothing to do, beside ninja on a graph of the same shape.

    cargo build --release
    python3 benches/noop.py [NODES]

Makes NODES (default 10,000) `probe` nodes in layers of 100, each with two
inputs from the layer before, runs them once, and then times further runs of
`runner exec` and `ninja` in turn. Needs ninja (Debian's ninja-build, or PyPI's
ninja) and nothing else. Prints minimum, median and maximum in milliseconds.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNNER = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "runner"
WIDTH = 100
RUNS = 15


def parents(i):
    """Two nodes of the layer before, or none in the first layer."""
    layer, place = divmod(i, WIDTH)
    return [] if layer == 0 else [(layer - 1) * WIDTH + p for p in (place, (place + 1) % WIDTH)]


def write_pipeline(path, count):
    lines = ['version = 1', 'name = "noop"', ""]
    for i in range(count):
        lines += [f"[nodes.n{i}]", 'kind = "probe"', f'value = "{i}"', "constant = true"]
        if parents(i):
            lines.append("inputs = [" + ", ".join(f'"n{p}"' for p in parents(i)) + "]")
        lines.append("")
    path.write_text("\n".join(lines))


def write_ninja(path, count):
    lines = ["rule probe", "  command = echo $value > $out", ""]
    for i in range(count):
        lines += [f"build out/n{i}: probe " + " ".join(f"out/n{p}" for p in parents(i)), f"  value = {i}"]
    path.write_text("\n".join(lines) + "\n")


def once(command, folder):
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    took = time.perf_counter() - begin
    if done.returncode != 0:
        sys.exit(f"{command} failed:\n{done.stdout}{done.stderr}")
    return took * 1000, done.stdout + done.stderr


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    ninja = shutil.which("ninja")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pipeline(folder / "noop.toml", count)
        write_ninja(folder / "build.ninja", count)
        commands = {"runner": [str(RUNNER), "exec", "noop.toml"]}
        if ninja:
            commands["ninja"] = [ninja]
        else:
            print("ninja is not installed: runner alone is timed")
        for tool, command in commands.items():
            print(f"{tool}: first run of {count} nodes {once(command, folder)[0] / 1000:.1f} s")
        # The first run's own files are too fresh to be trusted by an index.
        time.sleep(0.1)
        print(once(commands["runner"], folder)[1].strip().splitlines()[-2])
        times = {tool: [] for tool in commands}
        for _ in range(RUNS):
            for tool, command in commands.items():
                times[tool].append(once(command, folder)[0])
        for tool, list_ in times.items():
            print(f"{tool:7} min {min(list_):7.1f}  median {statistics.median(list_):7.1f}  max {max(list_):7.1f} ms")
        for index in (folder / "cache" / "index").glob("*"):
            index.unlink()
        print(f"runner without its index: {once(commands['runner'], folder)[0]:.1f} ms")


if __name__ == "__main__":
    main()
