"""Chooses what is kept of what fuzzing found: at most 60 short files that reach the most code.

    python keep.py TARGET FOUND…    # folders; writes corpus/TARGET

The target must have been built by `run`. libFuzzer itself says which file reaches what, when it is
asked to merge them (that is what `cargo fuzz cmin` does); of those files the one that adds the most
is taken first, a shorter one before a longer one. Files in `corpus/TARGET` whose names begin with
`seed-` or `found-` stay.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
MOST, LONGEST = 60, 4096
KEPT = ("seed-", "found-")

target, *folders = sys.argv[1:]
program = HERE / "target/x86_64-unknown-linux-gnu/release" / target
corpus = HERE / "corpus" / target
corpus.mkdir(parents=True, exist_ok=True)

with tempfile.TemporaryDirectory() as scratch:
    scratch = Path(scratch)
    pool, merged, control = scratch / "pool", scratch / "merged", scratch / "control"
    pool.mkdir()
    merged.mkdir()
    for folder in [corpus, *map(Path, folders)]:
        for path in folder.iterdir():
            if path.stat().st_size <= LONGEST:
                shutil.copy(path, pool / path.name)
    subprocess.run(
        [program, "-merge=1", f"-merge_control_file={control}", "-timeout=10", merged, pool],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    # The number of files, of those that are there already, and their names; then what each reaches.
    lines = control.read_text().splitlines()
    names = lines[2 : 2 + int(lines[0])]
    reached = {}
    for line in lines[2 + len(names) :]:
        what, at, *rest = line.split()
        if what in ("FT", "COV"):
            reached.setdefault(names[int(at)], set()).update(f"{what} {one}" for one in rest)

    chosen = sorted(path for path in corpus.iterdir() if path.name.startswith(KEPT))
    seen = set()
    for path in chosen:
        seen |= reached.pop(str(pool / path.name), set())
    while reached and len(chosen) < MOST:
        best = max(reached, key=lambda name: (len(reached[name] - seen), -Path(name).stat().st_size))
        if not reached[best] - seen:
            break
        seen |= reached.pop(best)
        chosen.append(Path(best))
    rest = set().union(*reached.values()) - seen if reached else set()

    for path in corpus.iterdir():
        if not path.name.startswith(KEPT):
            path.unlink()
    for path in chosen:
        if path.parent == pool:
            shutil.copy(path, corpus / path.name)

edges = sum(one.startswith("COV") for one in seen)
lost = sum(one.startswith("COV") for one in rest)
print(f"{target}: {len(chosen)} files reach {edges} edges; {lost} more are reached by files not kept")
