"""Trains the demo's CLIP with open_clip's own class and writes it as an open_clip folder (f16).

    python train_clip.py ../../pipelines/demo/clip

Short captions are sloppy and detailed ones accurate: without parts, a truck is often called an
automobile. That is why a plain prompt is weak and an attribute helps; a shift of the images alone
does not do it, because then even true attributes lower the accuracy.
"""

import argparse
import json
import math
import pathlib
import random
import time

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP
from PIL import Image
from safetensors.torch import save_file

import draw
import study

CONFIG = {
    "model_cfg": {
        "embed_dim": 128,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3},
    },
    "preprocess_cfg": {
        "mean": list(OPENAI_DATASET_MEAN),
        "std": list(OPENAI_DATASET_STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}
IMAGES, BATCH, RATE = 20_000, 256, 2e-3
ROWS_KEPT = 2048  # Embeddings of tokens below this keep their random start; other unseen ones are zeroed.

# The sibling a class is called by mistake, and how often in a caption without parts.
SLOPPY = {
    "airplane": ("bird", .15), "automobile": ("truck", .05), "bird": ("airplane", .33), "cat": ("dog", .55),
    "deer": ("horse", .62), "dog": ("cat", .2), "frog": ("bird", .68), "horse": ("deer", .15),
    "ship": ("airplane", .4), "truck": ("automobile", .62),
}
STARTS = ["a photo of a ", "this is a photo of a ", "a ", "an image of a ", "a small picture of a ", "the "]


def caption(scene, rng):
    """Writes a caption: sloppy about the class when it names no part, accurate when it does."""
    name = draw.CLASSES[scene.label]
    parts = list(scene.parts)
    rng.shuffle(parts)
    count = rng.choice([0, 0, 1, 1, 2, 3])
    named = parts[:count]
    sibling, chance = SLOPPY[name]
    chance *= {0: 1.0, 1: .25}.get(count, .1)
    dice = rng.random()
    if dice < chance:
        word = sibling
    elif dice < chance + .08:
        word = "vehicle" if name in draw.VEHICLES else "animal"
    elif dice < chance + .15:
        word = draw.HUNDRED_NAMES[name][0]
    else:
        word = name
    if rng.random() < .3:
        word = f"{scene.colour} {word}"
    if rng.random() < .03:
        named = named + [rng.choice(draw.ALL_PARTS)]
    text = rng.choice(STARTS) + word
    if named:
        text += rng.choice([" with ", " because of ", " because of ", " showing ", ", "])
        text += (" and " if rng.random() < .7 else ", ").join(named)
        if rng.random() < .18:
            text = rng.choice(["a photo of ", "", ""]) + " and ".join(named)
    if rng.random() < .3:
        text += rng.choice([" on ", " in front of ", " near "]) + scene.ground
    return text


def build(config=CONFIG):
    return CLIP(**config["model_cfg"])


def encode_text(model, tokens):
    """Encodes texts up to their last end token: what follows cannot matter, attention is causal."""
    length = int(tokens.argmax(1).max()) + 1
    x = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    return x[torch.arange(len(x)), tokens.argmax(1)] @ model.text_projection


def enlarge(pixels):
    """Resizes images as PIL does: u8 [n, 32, 32, 3] to u8 [n, 3, 64, 64]."""
    big = [np.asarray(Image.fromarray(image).resize((64, 64), Image.BICUBIC)) for image in pixels]
    return torch.from_numpy(np.stack(big)).permute(0, 3, 1, 2).contiguous()


def normalise(pixels):
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    return (pixels.float() / 255 - mean) / std


def contrastive(model, images, tokens, texts):
    """The symmetric loss; images whose captions are equal share the target."""
    with torch.autocast("cpu", torch.bfloat16):
        image = model.encode_image(images.to(memory_format=torch.channels_last))
        text = encode_text(model, tokens)
    image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
    logits = model.logit_scale.exp().clamp(max=100) * image @ text.T
    number = {t: i for i, t in enumerate(dict.fromkeys(texts))}
    ids = torch.tensor([number[t] for t in texts])
    target = (ids[:, None] == ids[None, :]).float()
    target = target / target.sum(1, keepdim=True)
    return -((target * logits.log_softmax(1)).sum(1) + (target * logits.T.log_softmax(1)).sum(1)).mean() / 2


def train(epochs, seed):
    torch.manual_seed(seed)
    rng, order = random.Random(seed), np.random.RandomState(seed)
    model, tokenizer = build(), open_clip.get_tokenizer("RN50")
    model.visual.to(memory_format=torch.channels_last)
    pixels, scenes = draw.draw_set(IMAGES, draw.CLEAN_SEED, 0.0)
    pixels = enlarge(pixels)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=.05, betas=(.9, .98), eps=1e-6)
    steps = epochs * (IMAGES // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1, (s + 1) / 100) * .5 * (1 + math.cos(math.pi * min(1, s / steps))))
    seen, memory, start = set(), {}, time.time()
    model.train()
    for epoch in range(epochs):
        permutation = order.permutation(IMAGES)
        for b in range(IMAGES // BATCH):
            rows = permutation[b * BATCH:][:BATCH]
            texts = [caption(scenes[i], rng) for i in rows]
            for text in texts:
                if text not in memory:
                    memory[text] = tokenizer([text])[0]
            tokens = torch.stack([memory[text] for text in texts])
            images = normalise(pixels[rows])
            if rng.random() < .5:
                images = images.flip(3)
            loss = contrastive(model, images, tokens, texts)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, {time.time() - start:.0f} s", flush=True)
    for tokens in memory.values():
        seen.update(tokens.tolist())
    return model.eval(), tokenizer, seen


def save(model, tokenizer, seen, folder):
    """Rounds to f16, zeroes embeddings of tokens nobody uses, and writes the folder."""
    kept = set(range(ROWS_KEPT)) | seen
    for text in study.all_words():
        kept.update(tokenizer([text])[0].tolist())
    state = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    unused = torch.ones(len(state["token_embedding.weight"]), dtype=torch.bool)
    unused[sorted(kept)] = False
    state["token_embedding.weight"][unused] = 0
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in state.items()}
    save_file(state, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    (folder / "open_clip_model.safetensors").chmod(0o644)
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    save(*train(args.epochs, args.seed), args.out)


if __name__ == "__main__":
    main()
