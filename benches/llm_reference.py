#!/usr/bin/env python3
"""Measures `generate` of transformers beside a benchmark of ours, in turn.

    python3 benches/llm_model.py FOLDER
    cargo build --release --benches
    python3 benches/llm_reference.py FOLDER [OPTIONS] [-- COMMAND [ARGUMENT ...]]

COMMAND is run in every repetition and prints a line `NAME VALUE UNIT` for each
figure it has, other lines are ignored. In an argument `{model}` stands for
FOLDER, `{batches}` for the batch sizes with commas and `{tokens}` for the number
of new tokens; the number of threads is in RAYON_NUM_THREADS. For
`benches/llm.rs`:

    ... FOLDER --batches 1,8 -- target/release/deps/llm-HASH {model} {batches} {tokens}

Without COMMAND the reference runs alone. FOLDER holds a model and `prompts.json`
as from `benches/llm_model.py`; row i of a batch asks prompt i modulo their number.
Every row decodes the same number of tokens: nothing ends an answer early.

    --batches N,...     rows a batch (1,8,32,128)
    --dtypes NAME,...   types of weights and arithmetic: f32, bf16 (f32)
    --tokens N          new tokens a row (64)
    --repeats N         repetitions of everything, both sides in turn (3)
    --threads N         threads of PyTorch and of COMMAND (2)
    --compile           measures torch.compile with a static cache too, at the first batch size
    --only TEXT         only the figures with TEXT in their names
    --limit SECONDS     starts no further repetition after this long (300)
    --json FILE         writes one line of JSON a figure and side too, with all its values

Figures, in inference mode:

    greedy.DTYPE.N      new tokens a second of the whole call, the prompts' part included
    sampled.DTYPE.N     the same at temperature 0.7, top_k 50
    first.DTYPE.1       milliseconds to the first token of one row
    greedy.DTYPE.N.compiled

Prints for both sides the best, the median and the worst, and how many times as
fast ours is, by the best of each.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

from beside import in_turn, printed, seconds

DTYPES = {"f32": "float32", "bf16": "bfloat16"}


def names(text):
    return text.split(",")


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batches", type=lambda text: [int(x) for x in names(text)], default=[1, 8, 32, 128])
    parser.add_argument("--dtypes", type=names, default=["f32"])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--limit", type=float, default=300)
    parser.add_argument("--json", type=Path)
    # What stands after `--` is not for the parser: it would take it with FOLDER or not at all.
    given = sys.argv[1:]
    end = given.index("--") if "--" in given else len(given)
    arguments = parser.parse_args(given[:end])
    arguments.command = given[end + 1 :]
    return arguments


def unit(name):
    return "ms" if name.startswith("first") else "tokens/s"


def reference(arguments):
    """Every figure of the reference as a name and what measures it once."""
    # Read when PyTorch starts.
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "0"
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, CompileConfig

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    asked = json.loads((arguments.folder / "prompts.json").read_text())["ids"]
    lengths = sorted(map(len, asked))
    print(
        f"transformers {transformers.__version__}, torch {torch.__version__}, {arguments.threads} threads, "
        f"prompts of {lengths[0]} to {lengths[-1]} tokens, {arguments.tokens} new ones"
    )
    figures = {}

    def call(model, rows, tokens, **settings):
        prompts = [asked[i % len(asked)] for i in range(rows)]
        width = max(map(len, prompts))
        # The mask says what is padding, whatever its id.
        ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])

        def work():
            with torch.inference_mode():
                out = model.generate(ids, attention_mask=mask, max_new_tokens=tokens, **settings)
            assert out.shape == (rows, width + tokens), "an answer ended early"

        return work

    def add(name, model, rows, tokens, warm_up, **settings):
        if arguments.only not in name:
            return
        work = call(model, rows, tokens, **settings)
        begin = time.perf_counter()
        if warm_up:
            work()
        else:
            call(model, rows, 2, **settings)()
        if name.endswith("compiled"):
            print(f"{name}: compiled in {time.perf_counter() - begin:.0f} s", flush=True)
        if unit(name) == "ms":
            figures[name] = lambda: 1e3 * seconds(work)
        else:
            figures[name] = lambda: rows * tokens / seconds(work)

    greedy = {"do_sample": False}
    sampled = {"do_sample": True, "temperature": 0.7, "top_k": 50}
    for dtype in arguments.dtypes:
        model = AutoModelForCausalLM.from_pretrained(arguments.folder, dtype=getattr(torch, DTYPES[dtype])).eval()
        # Nothing ends an answer early.
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
        add(f"first.{dtype}.1", model, 1, 1, True, **greedy)
        for rows in arguments.batches:
            add(f"greedy.{dtype}.{rows}", model, rows, arguments.tokens, False, **greedy)
            add(f"sampled.{dtype}.{rows}", model, rows, arguments.tokens, False, **sampled)
        if arguments.compile:
            rows = arguments.batches[0]
            compiled = CompileConfig(mode="default", fullgraph=False)
            # Else only accelerators are compiled for.
            compiled._compile_all_devices = True
            settings = dict(greedy, cache_implementation="static", compile_config=compiled)
            add(f"greedy.{dtype}.{rows}.compiled", model, rows, arguments.tokens, True, **settings)
    return figures


def ours(arguments):
    """The figures that the command prints, with their units."""
    if not arguments.command:
        return {}
    places = {
        "{model}": str(arguments.folder),
        "{batches}": ",".join(map(str, arguments.batches)),
        "{tokens}": str(arguments.tokens),
    }
    command = []
    for part in arguments.command:
        for place, value in places.items():
            part = part.replace(place, value)
        command.append(part)
    return printed(command, arguments.threads, arguments.only)


def best(name, values):
    return min(values) if unit(name) == "ms" else max(values)


def shown(name, values):
    if not values:
        return f"{'':>29}"
    worst = max(values) if unit(name) == "ms" else min(values)
    return f"{best(name, values):9.2f} {statistics.median(values):9.2f} {worst:9.2f}"


def main():
    arguments = read_arguments()
    figures = reference(arguments)
    begin = time.perf_counter()
    mine, theirs, units = in_turn(arguments, figures, ours)
    for name in theirs:
        if units.get(name, unit(name)) != unit(name):
            sys.exit(f"{name}: ours is in {units[name]}, the reference's in {unit(name)}")
    header = f"{'best':>9} {'median':>9} {'worst':>9}"
    print(f"{'':34} {'ours':>29}    {'reference':>29}     ratio")
    print(f"{'':34} {header}    {header}")
    for name in dict.fromkeys([*theirs, *mine]):
        a, b = mine.get(name, []), theirs.get(name, [])
        ratio = ""
        if a and b:
            quotient = best(name, a) / best(name, b)
            ratio = f"{1 / quotient if unit(name) == 'ms' else quotient:9.2f}"
        title = f"{name} ({unit(name)})"
        print(f"{title:34} {shown(name, a)}    {shown(name, b)} {ratio}")
    if arguments.json:
        sides = [("ours", mine), ("reference", theirs)]
        lines = [
            {"figure": name, "side": side, "unit": units.get(name, unit(name)), "best": best(name, values), "values": values}
            for side, table in sides
            for name, values in table.items()
            if values
        ]
        arguments.json.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
