"""Runs the reference implementations on the committed demo and stores what they give, for the tests.

    python reference.py

Writes `reference.json`, `clip.safetensors`, `llm.json`, `llm.safetensors` and `finetune.json` beside
this script. All of it is computed from the f16 weights read back and converted to f32.
"""

import argparse
import json
import pathlib
import platform
import random
import re

import numpy as np
import open_clip
import PIL
import safetensors
import tokenizers
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file

import draw
import finetune
import load
import replay
import study

HERE = pathlib.Path(__file__).resolve().parent
STORED_IMAGES = 500
LIMIT = 96


def write(name, value):
    """JSON whose lists of numbers take one line each."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    text = re.sub(r"\[\s+(-?[\d.][^\[\]{}\"]*?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)
    assert json.loads(text) == value
    (HERE / name).write_text(text + "\n")


def versions():
    return {"python": platform.python_version(), "torch": torch.__version__, "open_clip": open_clip.__version__,
            "transformers": transformers.__version__, "tokenizers": tokenizers.__version__, "pillow": PIL.__version__,
            "safetensors": safetensors.__version__, "numpy": np.__version__}


def by_chance(count):
    """Each class's most likely parts, the likeliest first."""
    return [sorted(parts, key=parts.get, reverse=True)[:count] for parts in draw.PARTS.values()]


def prompt_sets():
    """Ten texts per set: plain, then with one, two and three attributes."""
    sets = {"plain": [study.photo(name) for name in draw.CLASSES]}
    for count in (1, 2, 3):
        sets[f"attributes {count}"] = [study.photo(n, words) for n, words in zip(draw.CLASSES, by_chance(count))]
    sets["this is plain"] = [study.photo(name, (), replay.THIS) for name in draw.CLASSES]
    return sets


def probes():
    """Texts that try the tokenizer and the text tower, beside the prompts of the study."""
    sets = prompt_sets()
    return sets["plain"] + sets["attributes 1"] + sets["attributes 3"] + sets["this is plain"] + [
        "a", "", "airplane", "a photo of a airplane.", "A PHOTO OF A CAT", "  a   photo of\ta dog \n",
        "a photo of a cat because of fur_color and whiskers_length and ear_shape",
        "a photo of a airplane because of long and tail-finned",
        "You should've done this; it's the dog's, we'd say, they'll agree!", "hello, world! (1,234.56) [ok] {x} <y> #1 @2",
        "a photo of a pickup_truck", "a photo of a sweet_pepper", "lawn_mower", "a photo of 3 dogs & 12 cats",
        "deer/horse \\ cat|dog", "don't", "rocket", "a photo of a tiger because of striped fur",
        "a \"quoted\" word", "&amp; &lt;b&gt;", "e-mail: someone@example.org", "caf\u00e9 na\u00efve", "\u65e5\u672c\u8a9e",
        "x" * 60, "the quick brown fox jumps over the lazy dog " * 3, "a photo of a dog " * 30,
    ]


def measure(images, labels, texts):
    """Counts and accuracies of one prompt set on one split, with the smallest gap between first and second."""
    logits = 100 * images @ texts.T
    order = logits.topk(5)
    hit = order.indices[:, 0] == labels
    five = (order.indices == labels[:, None]).any(1)
    per_class = [int(hit[labels == c].sum()) for c in range(len(draw.CLASSES))]
    sizes = [int((labels == c).sum()) for c in range(len(draw.CLASSES))]
    gaps = order.values[:, 0] - order.values[:, 1]
    return {"images": len(labels), "top1_count": int(hit.sum()), "top5_count": int(five.sum()),
            "top1": 100 * int(hit.sum()) / len(labels), "top5": 100 * int(five.sum()) / len(labels),
            "per_class_count": per_class, "per_class": [100 * k / n for k, n in zip(per_class, sizes)],
            "smallest_logit_gap": float(gaps.min())}, order.indices[:, 0]


def clip_reference(clip):
    sets, tensors, scores = prompt_sets(), {}, {}
    texts = probes()
    tensors["text_embeddings"] = clip.texts(texts)
    tensors["text_tokens"] = clip.tokenizer(texts).to(torch.int32)
    classifiers = {name: clip.texts(prompts) for name, prompts in sets.items()}
    for split, files in (("train", load.TRAIN_FILES), ("test", load.TEST_FILES)):
        images, labels = load.cifar10(files)
        embeddings = clip.images(images)
        if split == "test":
            tensors["image_embeddings"] = embeddings[:STORED_IMAGES].contiguous()
            tensors["labels"] = labels.to(torch.uint8)
            tensors["pixels"] = clip.pixels(images[:2])
        scores[split] = {}
        for name, classifier in classifiers.items():
            scores[split][name], predictions = measure(embeddings, labels, classifier)
            if split == "test":
                tensors["predictions " + name] = predictions.to(torch.uint8)
    save_file(tensors, HERE / "clip.safetensors", metadata={"format": "pt"})
    (HERE / "clip.safetensors").chmod(0o644)
    return {"texts": texts, "prompt_sets": sets, "scores": scores}


def llm_prompts():
    """Prompts of each kind of the study, with the kind."""
    parts = {name: list(draw.PARTS[name]) for name in draw.CLASSES}
    ask, wild = study.ask_attributes, study.ask_random
    return [("a", ask(name)) for name in ("airplane", "cat", "frog", "truck", "apple", "sweet_pepper", "tulip")] + [
        ("b", ask("airplane", 3, ["two wings"])), ("b", ask("cat", 3, ["fur_color"])),
        ("b", ask("deer", 3, ["large antlers"])), ("b", ask("horse", 3, ["long mane", "four legs"])),
        ("b", ask("ship", 3, ["white deck", "tall funnel"])), ("b", ask("tiger", 3, ["striped fur", "long tail"])),
        ("ten", ask("dog", 10)), ("ten", ask("automobile", 10, ["four wheels"])),
        ("ten", ask("bird", 10, parts["bird"][:4])),
        ("ten", ask("truck", 10, (parts["truck"] + ["large cab", "paint color", "heavy"])[:9])),
        ("c", wild()), ("c", wild(10)), ("d", wild(3, ["purple"])), ("d", wild(3, ["wooden", "tiny"])),
        ("d", wild(10, ["glass", "soft", "blue"])),
        ("free", "Describe what a cat looks like."), ("free", "What is 12 + 30, caf\u00e9?\nAnswer \u65e5\u672c {\"x\": '_'}  briefly."),
    ]


def llm_reference(llm):
    answers, logits = [], {}
    for k, (kind, prompt) in enumerate(llm_prompts()):
        ids = llm.ids(prompt)
        made = llm.greedy(prompt, LIMIT)
        with torch.no_grad():
            scores = llm.model(torch.tensor([ids + made])).logits[0, len(ids) - 1:-1]
        top = scores.topk(2).values
        assert scores.argmax(1).tolist() == made, "generation with a cache must agree with one pass"
        answers.append({"kind": kind, "prompt": prompt, "prompt_ids": ids, "ids": made, "text": llm.text(made),
                        "smallest_logit_gap": float((top[:, 0] - top[:, 1]).min())})
        if k in (0, 8):
            logits[f"logits {k}"] = scores[0].clone()
    save_file(logits, HERE / "llm.safetensors", metadata={"format": "pt"})
    (HERE / "llm.safetensors").chmod(0o644)
    two = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    three = [two[1], {"role": "assistant", "content": "yes"}, {"role": "user", "content": "again"}]
    templates = [{"turns": turns, "text": llm.tokenizer.apply_chat_template(turns, tokenize=False),
                  "ids": llm.tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)}
                 for turns in (two, three)]
    return {"limit": LIMIT, "answers": answers, "templates": templates}


def finetune_reference(clip, steps=10, size=50):
    """A short run from the committed weights: loss per step, gradients of the first, weights at the end."""
    model, rng = clip.model, random.Random(5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, labels = load.cifar10(load.TRAIN_FILES)
    features = finetune.trunk(model, clip.pixels(images))
    indices = [rng.sample(range(len(labels)), size) for _ in range(steps)]
    prompts = [study.photo(name, words, replay.THIS) for name, words in zip(draw.CLASSES, by_chance(1))]
    tokens, runs = clip.tokenizer(prompts), {}
    for affine in (True, False):
        model.load_state_dict(before)
        parameters = finetune.trained(model.eval(), affine)
        optimizer, losses = finetune.optimizer(parameters), []
        for step, rows in enumerate(indices):
            loss = finetune.loss_of(model, features[rows], labels[rows], lambda: model.encode_text(tokens))
            optimizer.zero_grad()
            loss.backward()
            if step == 0:
                norms = {name: float(p.grad.double().norm()) for name, p in parameters.items()}
            optimizer.step()
            losses.append(loss.item())
        runs["affine trained" if affine else "affine frozen"] = {
            "losses": losses, "gradient_norms": norms,
            "sums": {name: float(p.detach().double().sum()) for name, p in parameters.items()},
            "absolute_sums": {name: float(p.detach().double().abs().sum()) for name, p in parameters.items()}}
    model.load_state_dict(before)
    return {"scale": finetune.SCALE, "rate": finetune.RATE, "betas": [.9, .999], "eps": 1e-8, "weight_decay": 0.0,
            "split": "train", "prompts": prompts, "indices": indices, "runs": runs}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=replay.SEEDS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clip, llm = load.Clip(), load.Llm()
    result = {"versions": versions(), "shift": draw.SHIFT, "classes": draw.CLASSES} | clip_reference(clip)
    write("llm.json", llm_reference(llm))
    write("finetune.json", finetune_reference(clip))
    if args.seeds:
        result["acceptance"] = replay.replay(clip, llm, args.seeds)
    write("reference.json", result)


if __name__ == "__main__":
    main()
