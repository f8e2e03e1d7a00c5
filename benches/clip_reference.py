#!/usr/bin/env python3
"""Measures open_clip on PyTorch beside a benchmark of ours, in turn.

    cargo build --release --benches
    python3 benches/clip_reference.py [OPTIONS] [-- COMMAND [ARGUMENT ...]]

COMMAND is run in every repetition and prints a line `NAME VALUE UNIT` for each
figure it has, other lines are ignored. It is run once for every model, if an
argument has `{model}` for the model's name, and finds the number of threads in
RAYON_NUM_THREADS. For `benches/clip.rs`:

    ... --models RN50-quickgelu --batches 16,64 -- target/release/deps/clip-HASH {model} 16 64

Without COMMAND the reference runs alone. Needs open_clip_torch, torch,
torchvision and pillow from PyPI (for --compile a C++ compiler too); weights are
random, nothing is downloaded.

    --models NAME,...   open_clip's names (RN50-quickgelu,ViT-B-32-quickgelu)
    --batches N,...     images and texts a batch (16,32,64)
    --repeats N         repetitions of everything, both sides in turn (3)
    --threads N         threads of PyTorch and of COMMAND (2)
    --compile           measures torch.compile too, at the first batch size
    --only TEXT         only the figures with TEXT in their names
    --limit SECONDS     starts no further repetition after this long (200)

Figures, all a second, all in float32 and inference mode:

    MODEL.images.N      images through the tower, which are tensors already
    MODEL.texts.N       texts through the tower, padded to 77 tokens, which are ids already
    MODEL.images.N.compiled, MODEL.texts.N.compiled
    resize.32x32, resize.500x375
                        8-bit pictures through Pillow's bicubic resize and crop, one thread
    preprocess.32x32, preprocess.500x375
                        the same and on to normalised tensors, one thread

Prints for both sides the median, least and greatest, and the ratio of the
medians, ours over the reference's.
"""

import argparse
import logging
import os
import statistics
import time

from beside import in_turn, printed, seconds

# Prompts as the study has them, 7 to 21 tokens; those of `benches/clip.rs`.
PROMPTS = [
    "a photo of a cat",
    "This is a photo of a airplane",
    "This is a photo of a airplane because of long",
    "a photo of a airplane because of long and tail-finned",
    "This is a photo of a dog because of fur and tail and ears",
    "This is a photo of a ship because of horizontal stripes and square sails",
    "This is a photo of a frog because of webbed feet and large eyes and long tongue",
    "a photo of a cat because of fur_color and whiskers_length and ear_shape",
]


def names(text):
    return text.split(",")


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=names, default=["RN50-quickgelu", "ViT-B-32-quickgelu"])
    parser.add_argument("--batches", type=lambda text: [int(x) for x in names(text)], default=[16, 32, 64])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--limit", type=float, default=200)
    parser.add_argument("command", nargs="*")
    return parser.parse_args()


def reference(arguments):
    """Every figure of the reference as a name and what measures it once."""
    # Read when PyTorch starts.
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    import open_clip
    import torch
    from PIL import Image

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    # That the weights are random is no news here.
    logging.disable(logging.WARNING)
    print(f"open_clip {open_clip.__version__}, torch {torch.__version__}, {arguments.threads} threads")
    figures = {}

    def add(name, count, work, warm_up):
        if arguments.only in name:
            begin = time.perf_counter()
            warm_up()
            if name.endswith("compiled"):
                print(f"{name}: compiled in {time.perf_counter() - begin:.0f} s", flush=True)
            figures[name] = lambda: count / seconds(work)

    def forward(module, given):
        def work():
            with torch.inference_mode():
                module(given)

        return work

    def tower(name, module, given):
        """All batch sizes, and the first of them through torch.compile."""
        for batch in arguments.batches:
            add(f"{name}.{batch}", batch, forward(module, given[:batch]), forward(module, given[:8]))
        if arguments.compile:
            batch = arguments.batches[0]
            work = forward(torch.compile(module), given[:batch])
            add(f"{name}.{batch}.compiled", batch, work, work)

    most = max(arguments.batches)
    for model_name in arguments.models:
        model = open_clip.create_model(model_name, pretrained=None, precision="fp32").eval()
        size = model.visual.image_size
        side = size[0] if isinstance(size, tuple) else size
        tower(f"{model_name}.images", model.visual, torch.randn(most, 3, side, side))
        prompts = (PROMPTS * (most // len(PROMPTS) + 1))[:most]
        tokens = open_clip.get_tokenizer(model_name)(prompts)
        tower(f"{model_name}.texts", model.encode_text, tokens)

    def one_thread(step, picture):
        def work():
            torch.set_num_threads(1)
            step(picture)
            torch.set_num_threads(arguments.threads)

        return work

    prepare = open_clip.image_transform(224, is_train=False)
    resize_and_crop = type(prepare)(prepare.transforms[:2])
    for width, height in [(32, 32), (500, 375)]:
        picture = Image.frombytes("RGB", (width, height), os.urandom(width * height * 3))
        for name, step in [("resize", resize_and_crop), ("preprocess", prepare)]:
            work = one_thread(step, picture)
            add(f"{name}.{width}x{height}", 1, work, work)
    return figures


def ours(arguments):
    """The figures that the command prints, with their units."""
    with_model = any("{model}" in part for part in arguments.command)
    runs = arguments.models if with_model else ["none"] if arguments.command else []
    figures = {}
    for model in runs:
        command = [part.replace("{model}", model) for part in arguments.command]
        figures |= printed(command, arguments.threads, arguments.only)
    return figures


def shown(values):
    if not values:
        return f"{'':>29}"
    return f"{statistics.median(values):9.2f} {min(values):9.2f} {max(values):9.2f}"


def main():
    arguments = read_arguments()
    figures = reference(arguments)
    begin = time.perf_counter()
    mine, theirs, _ = in_turn(arguments, figures, ours)
    header = f"{'median':>9} {'min':>9} {'max':>9}"
    print(f"{'a second':34} {'ours':>29}    {'reference':>29}     ratio")
    print(f"{'':34} {header}    {header}")
    for name in dict.fromkeys([*theirs, *mine]):
        a, b = mine.get(name, []), theirs.get(name, [])
        ratio = f"{statistics.median(a) / statistics.median(b):9.2f}" if a and b else ""
        print(f"{name:34} {shown(a)}    {shown(b)} {ratio}")
    print(f"{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
