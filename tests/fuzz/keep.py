"""Chooses what is kept of what fuzzing found: at most 60 short files that reach the most code.

    python keep.py TARGET FOUND…    # folders; writes corpus/TARGET

The target must have been built by `run`. libFuzzer itself says which file reaches what, when it is
asked to merge them (that is what `cargo fuzz cmin` does); of those files the one that adds the most
is taken first, a shorter one before a longer one. Files in `corpus/TARGET` whose names begin with
`seed-` or `found-` stay.
"""

import heapq
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
        [program, "-set_cover_merge=1", f"-merge_control_file={control}", "-timeout=10", merged, pool],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    # The number of files, of those that are there already, and their names; then what each reaches:
    # eight numbers an edge, one for each of the bits of how often it was taken.
    lines = control.read_text().splitlines()
    names = lines[2 : 2 + int(lines[0])]
    reached = {}
    for line in lines[2 + len(names) :]:
        what, at, *rest = line.split()
        if what == "FT":
            reached[names[int(at)]] = {int(one) for one in rest}

    chosen = sorted(path for path in corpus.iterdir() if path.name.startswith(KEPT))
    seen, edges = set(), set()

    def added(name):
        """New edges first, then edges taken more often."""
        new = reached[name] - seen
        return len({one // 8 for one in new} - edges), len(new), -Path(name).stat().st_size

    def take(name):
        new = reached.pop(name, set())
        seen.update(new)
        edges.update(one // 8 for one in new)

    for path in chosen:
        take(str(pool / path.name))
    # What a file adds only falls while others are taken: one that is still best now is the best.
    queue = [(*(-one for one in added(name)), name) for name in reached]
    heapq.heapify(queue)
    while queue and len(chosen) < MOST:
        *_, best = heapq.heappop(queue)
        now = (*(-one for one in added(best)), best)
        if now[1] == 0:
            continue
        if queue and now > queue[0]:
            heapq.heappush(queue, now)
            continue
        take(best)
        chosen.append(Path(best))
    lost = {one // 8 for rest in reached.values() for one in rest} - edges

    for path in corpus.iterdir():
        if not path.name.startswith(KEPT):
            path.unlink()
    for path in chosen:
        if path.parent == pool:
            shutil.copy(path, corpus / path.name)

print(f"{target}: {len(chosen)} files reach {len(edges)} edges; files not kept reach {len(lost)} more")
