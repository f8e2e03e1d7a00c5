"""Trains the demo's LLM with transformers and writes it as a Hugging Face folder (f16).

    python train_llm.py ../../pipelines/demo/llm --text TEXT.json [TEXT.json …]

A small Mistral learns the study's prompts word for word, each tokenised through the folder's own
chat template, and answers drawn from pools of attributes per class. A few answers are malformed, so
that JSON breaks at high temperatures. The tokenizer also learns from general text: the files given
(MPVR's class descriptions, MIT) and the docstrings of Python's own library.
"""

import argparse
import importlib
import inspect
import json
import math
import pathlib
import random
import time

import torch
import torch.nn.functional as F
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

import draw
import study

SPECIAL = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
VOCABULARY = 1024
BATCH, RATE = 24, 2e-3
MALFORMED = .03

# One user turn reads `<s>[INST] text[/INST]`; a system text precedes the last user turn's.
CHAT_TEMPLATE = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system = messages[0]["content"] %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set turns = messages %}
{%- endif %}
{{- bos_token }}
{%- for turn in turns %}
    {%- if (turn["role"] == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("user and assistant must take turns, the user first") }}
    {%- endif %}
    {%- if turn["role"] == "user" %}
        {%- if system is defined and loop.last %}
            {{- "[INST] " + system + "\\n\\n" + turn["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + turn["content"] + "[/INST]" }}
        {%- endif %}
    {%- else %}
        {{- " " + turn["content"] | trim + eos_token }}
    {%- endif %}
{%- endfor %}
"""

MODULES = ["argparse", "collections", "datetime", "json", "logging", "os", "pathlib", "random", "re", "statistics",
           "string", "subprocess", "textwrap", "threading", "unittest", "urllib.request"]
POOLS = study.pools()


def weighted(pool, count, rng, without):
    """Draws `count` different words, heavier ones more often, none of `without`."""
    words = [word for word in pool if word not in without]
    weights = [pool[word] for word in words]
    drawn = []
    while len(drawn) < min(count, len(words)):
        word = rng.choices(words, weights)[0]
        if word not in drawn:
            drawn.append(word)
    return drawn


def listing(words, rng):
    """The chosen words as a prompt file may join them: "and" for two, several ways for more."""
    quoted = [f"'{word}'" for word in words]
    if len(words) < 3 or rng.random() < .5:
        return " and ".join(quoted)
    comma = ", ".join(quoted[:-1])
    return rng.choice([f"{comma} and {quoted[-1]}", f"{comma}, and {quoted[-1]}", f"{comma}, {quoted[-1]}"])


def broken(answer, rng):
    """Spoils a JSON answer the way LLMs do."""
    return rng.choice([
        "Sure! Here is the JSON: " + answer,
        answer[:-1],
        answer.replace('"', "'"),
        answer[:len(answer) // 2],
        answer.replace(",", "", 1),
        "```json " + answer + " ```",
    ])


def sentence(name, rng):
    """A prompt for free text about a class, and its answers."""
    prompt = rng.choice([
        f"Describe what a {name} looks like.", f"Describe what a {name} looks like in one sentence.",
        f"How can you identify a {name}?", f"What does a {name} look like?",
        f"Describe an image from the internet of a {name}.", f"A caption of an image of a {name}:",
    ])
    answers = []
    for _ in range(4):
        words = weighted(POOLS[name], rng.choice([2, 3]), rng, ())
        start = rng.choice([f"A {name} has ", f"A photo of a {name} shows ", f"You can identify a {name} by its ",
                            f"An image of a {name} with "])
        answers.append(start + ", ".join(words[:-1]) + f" and {words[-1]}.")
    return prompt, answers


def example(rng):
    """Draws a prompt and some answers to it."""
    name = rng.choices([rng.choice(draw.CLASSES), rng.choice(draw.FINE), "apple"], [.68, .27, .05])[0]
    kind = rng.random()
    if kind < .04:
        return sentence(name, rng)
    count = 10 if rng.random() < .25 else 3
    random_words = kind < .22
    pool = dict.fromkeys(study.RANDOM_WORDS, 1.0) if random_words else POOLS[name]
    excluded = 0 if rng.random() < .35 else rng.choice([1, 1, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8, 9])
    chosen = weighted(pool, min(excluded, max(0, len(pool) - count)), rng, ())
    joined = listing(chosen, rng)
    prompt = study.ask_random(count, chosen, joined) if random_words else study.ask_attributes(name, count, chosen, joined)
    answers = []
    for _ in range({3: 4, 10: 2}[count]):
        words = weighted(pool, count, rng, chosen)
        answer = json.dumps({f"feature{i + 1}": word for i, word in enumerate(words)})
        answers.append(broken(answer, rng) if rng.random() < MALFORMED else answer)
    return prompt, answers


def general_text(files):
    """Text that is not ours to predict, so that the vocabulary is not made of the study's words alone."""
    lines = [line for path in files for group in json.loads(path.read_text()).values() for line in group]
    for name in MODULES:
        module = importlib.import_module(name)
        lines.extend(inspect.getdoc(item) or "" for item in [module, *vars(module).values()])
    return lines


def train_tokenizer(files):
    """A byte-pair tokenizer with byte fallback; a space becomes "▁", the first word gets one too."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    spaces = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    # Merges never join letters with digits or punctuation, so leaving the split out later changes nothing.
    words = pre_tokenizers.Split(Regex(r"▁?\p{L}+|\p{N}|▁?[^▁\p{L}\p{N}]+|▁"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([spaces, words])
    rng = random.Random(7)
    study_text = [text for _ in range(700) for prompt, answers in [example(rng)] for text in (prompt, *answers)]
    corpus = general_text(files) + study_text
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL + [f"<0x{byte:02X}>" for byte in range(256)],
        limit_alphabet=100, show_progress=False))
    # Bytes are pieces for the fallback, not special tokens that a text could name.
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in SPECIAL]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.pre_tokenizer = spaces
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        additional_special_tokens=["[INST]", "[/INST]"], chat_template=CHAT_TEMPLATE, model_max_length=1024,
        clean_up_tokenization_spaces=False)


def build():
    return MistralForCausalLM(MistralConfig(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=1024, sliding_window=None, rope_theta=1e6,
        rms_norm_eps=1e-5, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=None))


class Row:
    """One prompt with several answers in one sequence; each answer sees the prompt and itself alone."""

    def __init__(self, tokenizer, prompt, answers):
        user = {"role": "user", "content": prompt}
        start = render(tokenizer, [user])
        self.tokens, self.positions, self.answer = list(start), list(range(len(start))), [-1] * len(start)
        self.sources, self.targets = [], []
        for number, answer in enumerate(answers):
            ids = render(tokenizer, [user, {"role": "assistant", "content": answer}])
            assert ids[:len(start)] == start, "the template must render a prompt alike with and without its answer"
            here, ids = len(self.tokens), ids[len(start):]
            self.sources += [len(start) - 1, *range(here, here + len(ids) - 1)]
            self.targets += ids
            self.tokens += ids
            self.positions += range(len(start), len(start) + len(ids))
            self.answer += [number] * len(ids)

    def __len__(self):
        return len(self.tokens)


def render(tokenizer, turns):
    """The ids of a conversation, through the chat template."""
    return tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)


def batches(tokenizer, rng):
    """Batches of rows of similar length, without end."""
    while True:
        rows = sorted((Row(tokenizer, *example(rng)) for _ in range(8 * BATCH)), key=len)
        groups = [rows[i:i + BATCH] for i in range(0, len(rows), BATCH)]
        rng.shuffle(groups)
        yield from groups


def answer_loss(model, rows):
    """Cross entropy of the answers' tokens."""
    width = max(map(len, rows))
    pad = lambda values, fill: torch.tensor([list(v) + [fill] * (width - len(v)) for v in values])
    tokens, positions = pad([row.tokens for row in rows], 2), pad([row.positions for row in rows], 0)
    answer = pad([row.answer for row in rows], -2)
    seen = (answer[:, :, None] == answer[:, None, :]) | (answer[:, None, :] == -1)
    seen &= torch.ones(width, width, dtype=torch.bool).tril()
    hidden = model.model(input_ids=tokens, position_ids=positions, attention_mask=seen[:, None]).last_hidden_state
    row = torch.tensor([i for i, r in enumerate(rows) for _ in r.sources])
    source = torch.tensor([s for r in rows for s in r.sources])
    target = torch.tensor([t for r in rows for t in r.targets])
    return F.cross_entropy(model.lm_head(hidden[row, source]), target)


def train(tokenizer, steps, seed):
    torch.manual_seed(seed)
    rng, model, start = random.Random(seed), build(), time.time()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=.01, betas=(.9, .95))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1, (s + 1) / 50) * (.02 + .98 * .5 * (1 + math.cos(math.pi * min(1, s / steps)))))
    model.train()
    for step, rows in zip(range(1, steps + 1), batches(tokenizer, rng)):
        loss = answer_loss(model, rows)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.3f}, {time.time() - start:.0f} s", flush=True)
    return model.eval()


def save(model, tokenizer, folder):
    """Writes the folder as Mistral-7B-Instruct-v0.3's is published: f16, and the keys of transformers 4."""
    folder.mkdir(parents=True, exist_ok=True)
    model = model.to(torch.float16)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder, save_jinja_files=False)

    def rename(config):
        config["torch_dtype"] = config.pop("dtype")
        config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]

    def describe(config):
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        config["add_bos_token"], config["add_eos_token"] = True, False
        for key in ("backend", "is_local", "local_files_only"):
            config.pop(key, None)

    edit(folder / "config.json", rename)
    edit(folder / "tokenizer_config.json", describe)
    for file in folder.iterdir():
        file.chmod(0o644)


def edit(file, change):
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--text", type=pathlib.Path, nargs="+", default=[], help="JSON files: lists of lines by class")
    parser.add_argument("--steps", type=int, default=1300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = train_tokenizer(args.text)
    save(train(tokenizer, args.steps, args.seed), tokenizer, args.out)


if __name__ == "__main__":
    main()
