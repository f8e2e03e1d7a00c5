"""What `clip_reference.py` and `llm_reference.py` share: running both sides in turn."""

import os
import re
import shlex
import subprocess
import sys
import time

LINE = re.compile(r"^(\S+)\s+(\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s+(\S+)$")
# A measurement goes on until it has lasted this long, so that short ones mean something.
LEAST = 0.5


def seconds(work):
    """Of one call: the mean of as many as last long enough."""
    calls, begin = 0, time.perf_counter()
    while True:
        work()
        calls += 1
        took = time.perf_counter() - begin
        if took >= LEAST:
            return took / calls


def printed(command, threads, only):
    """The figures with `only` in their names that the command prints, with their units."""
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads))
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    except OSError as error:
        sys.exit(f"{shlex.join(command)} did not start: {error}")
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)} failed:\n{done.stdout}{done.stderr}")
    lines = (LINE.match(line.strip()) for line in done.stdout.splitlines())
    return {m[1]: (float(m[2]), m[3]) for m in lines if m and only in m[1]}


def in_turn(arguments, figures, ours):
    """Measures both sides `repeats` times: all values of ours and of the reference's
    figures by name, and the units of ours."""
    theirs, mine, units = {name: [] for name in figures}, {}, {}
    begin = time.perf_counter()
    for repeat in range(arguments.repeats):
        if repeat and time.perf_counter() - begin > arguments.limit:
            print(f"stopped after {repeat} of {arguments.repeats} repetitions")
            break
        for name, (value, unit) in ours(arguments).items():
            mine.setdefault(name, []).append(value)
            units[name] = unit
        for name, figure in figures.items():
            theirs[name].append(figure())
    for name in mine:
        if name not in theirs:
            print(f"{name}: the reference has no such figure ({units[name]})")
    return mine, theirs, units
