"""Replays the study on the demo with the reference implementations, and prints the acceptance figures.

    python replay.py                 # five LLM seeds: selection on the train split, scores on the test split
    python replay.py --scan .5 .8    # the plain prompt's accuracy by shift, to choose `draw.SHIFT`
"""

import argparse
import json
import random
import statistics

import torch

import draw
import finetune
import load
import study
import train_clip

SEEDS = 5
ROUNDS = 3
THIS = "This is a photo of a "


def parse(text, count=3):
    """The attributes of a valid answer, or None."""
    try:
        found = json.loads(text.strip())
    except ValueError:
        return None
    if not isinstance(found, dict) or list(found) != [f"feature{i + 1}" for i in range(count)]:
        return None
    values = list(found.values())
    return values if all(isinstance(v, str) and v.strip() for v in values) else None


def ask(llm, prompts, temperature=.5, attempts=10):
    """Attributes per prompt; an invalid answer is asked for again. Also counts first failures."""
    answers, failed = [None] * len(prompts), 0
    for attempt in range(attempts):
        open_ones = [i for i, answer in enumerate(answers) if answer is None]
        if not open_ones:
            break
        for i, text in zip(open_ones, llm.sample([prompts[i] for i in open_ones], temperature)):
            answers[i] = parse(text)
        if attempt == 0:
            failed = sum(answer is None for answer in answers)
    return [answer or [] for answer in answers], failed


def accuracy(clip, split, chosen, start=THIS):
    images, labels = split
    texts = clip.recall([study.photo(name, words, start) for name, words in zip(draw.CLASSES, chosen)])
    return 100 * int(((images @ texts.T).argmax(1) == labels).sum()) / len(labels)


def select(clip, split, chosen, candidates):
    """The study's greedy step: for each class the candidate that scores best, the others plain."""
    images, labels = split
    base = images @ clip.recall([study.photo(name) for name in draw.CLASSES]).T
    result = []
    for c, name in enumerate(draw.CLASSES):
        scores = []
        for word in candidates[c]:
            logits = base.clone()
            logits[:, c] = images @ clip.recall([study.photo(name, chosen[c] + [word])])[0]
            scores.append(int((logits.argmax(1) == labels).sum()))
        result.append(chosen[c] + ([candidates[c][scores.index(max(scores))]] if scores else []))
    return result


def recursive(clip, llm, split, prompt, pick):
    """Rounds of asking and choosing; the chosen attributes after each round."""
    chosen, history = [[] for _ in draw.CLASSES], []
    for _ in range(ROUNDS):
        candidates, _ = ask(llm, [prompt(name, 3, words) for name, words in zip(draw.CLASSES, chosen)])
        chosen = pick(clip, split, chosen, candidates)
        history.append(chosen)
    return history


def first(_clip, _split, chosen, candidates):
    return [words + new[:1] for words, new in zip(chosen, candidates)]


def tune(clip, train, test, chosen, seed, epochs=10, size=50):
    """The study's fixed fine-tuning: top-1 and top-5 on the test images after each epoch."""
    model = clip.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = finetune.trained(model)
    tokens = clip.tokenizer([study.photo(name, words, THIS) for name, words in zip(draw.CLASSES, chosen)])
    encode = lambda: train_clip.encode_text(model, tokens)
    optimizer, order, curve = finetune.optimizer(parameters), torch.Generator().manual_seed(seed), []
    (features, labels), (held, answers) = train, test
    for _ in range(epochs):
        for rows in torch.randperm(len(labels), generator=order).split(size):
            loss = finetune.loss_of(model, features[rows], labels[rows], encode)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            logits = finetune.unit(finetune.tail(model, held)) @ finetune.unit(encode()).T
        top5 = (logits.topk(5).indices == answers[:, None]).any(1)
        curve.append([100 * (logits.argmax(1) == answers).float().mean().item(), 100 * top5.float().mean().item()])
    model.load_state_dict(before)
    return curve


def replay(clip, llm, seeds=SEEDS):
    """All figures of the acceptance, as a dictionary."""
    splits, trunks = {}, {}
    for name, files in (("train", load.TRAIN_FILES), ("test", load.TEST_FILES)):
        images, labels = load.cifar10(files)
        splits[name] = (clip.images(images), labels)
        trunks[name] = (finetune.trunk(clip.model, clip.pixels(images)), labels)
    train, test = splits["train"], splits["test"]
    none = [[]] * len(draw.CLASSES)
    out = {"plain": {split: {"a photo": accuracy(clip, splits[split], none, "a photo of a "),
                             "This is a photo": accuracy(clip, splits[split], none)} for split in splits},
           "seeds": []}
    for seed in range(seeds):
        torch.manual_seed(seed)
        score = lambda history: [round(accuracy(clip, test, chosen), 2) for chosen in history]
        best = recursive(clip, llm, train, study.ask_attributes, select)
        wild = recursive(clip, llm, train, lambda _, n, words: study.ask_random(n, words), first)
        wild_best = recursive(clip, llm, train, lambda _, n, words: study.ask_random(n, words), select)
        unselected = recursive(clip, llm, train, study.ask_attributes, first)
        direct, _ = ask(llm, [study.ask_random()] * len(draw.CLASSES))
        turn = random.Random(seed).randrange(1, len(draw.CLASSES))
        swapped = [chosen[turn:] + chosen[:turn] for chosen in best]
        curve = tune(clip, trunks["train"], trunks["test"], best[0], seed)
        row = {"best of three": score(best), "first of three": score(unselected),
               "random, unselected, recursive": score(wild), "random, unselected, at once": score([direct])[0],
               "random, selected": score(wild_best), "swapped": score(swapped),
               "fine-tuned": [[round(v, 2) for v in pair] for pair in curve], "attributes": best[-1]}
        print(seed, {k: v for k, v in row.items() if k != "fine-tuned"}, "fine-tuned", row["fine-tuned"][-1], flush=True)
        out["seeds"].append(row)
    for key in ("best of three", "first of three", "random, unselected, recursive", "random, selected", "swapped"):
        out[key] = [round(statistics.mean(row[key][k] for row in out["seeds"]), 2) for k in range(ROUNDS)]
    out["random, unselected, at once"] = round(statistics.mean(r["random, unselected, at once"] for r in out["seeds"]), 2)
    out["fine-tuned"] = [round(statistics.mean(row["fine-tuned"][-1][k] for row in out["seeds"]), 2) for k in (0, 1)]
    out["invalid"] = {str(t): invalid(llm, t) for t in (.2, .5, 1.0, 1.4, 1.8)}
    return out


def invalid(llm, temperature, each=40):
    """Percent of invalid answers over the ten classes' prompts (a) and (b)."""
    torch.manual_seed(100)
    prompts = [study.ask_attributes(name) for name in draw.CLASSES]
    prompts += [study.ask_attributes(name, 3, [next(iter(draw.PARTS[name]))]) for name in draw.CLASSES]
    texts = [text for prompt in prompts for text in llm.sample([prompt], temperature, each=each)]
    return round(100 * sum(parse(text) is None for text in texts) / len(texts), 2)


def scan(clip, low, high, count=2000):
    """Prints accuracy by shift, on images drawn with the test set's seed."""
    typical = [sorted(draw.PARTS[name], key=draw.PARTS[name].get)[-1:] for name in draw.CLASSES]
    for k in range(7):
        shift = round(low + (high - low) * k / 6, 3)
        row = [shift]
        for seed in (draw.TEST_SEED, draw.TRAIN_SEED):
            pixels, scenes = draw.draw_set(count, seed, shift)
            split = (clip.images(pixels), torch.tensor([scene.label for scene in scenes]))
            none = [[]] * len(draw.CLASSES)
            row += [round(accuracy(clip, split, none, "a photo of a "), 2), round(accuracy(clip, split, none), 2),
                    round(accuracy(clip, split, typical), 2)]
        print("shift, then for test and train: plain, This is, with the most typical part:", row, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", default=load.DEMO / "clip")
    parser.add_argument("--llm", default=load.DEMO / "llm")
    parser.add_argument("--scan", type=float, nargs=2)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.scan:
        scan(load.Clip(args.clip), *args.scan)
        return
    result = replay(load.Clip(args.clip), load.Llm(args.llm), args.seeds)
    del result["seeds"]
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
