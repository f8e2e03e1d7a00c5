#!/usr/bin/env python3
"""Makes a language model to be measured: Mistral's architecture, random weights, 126 million parameters.

    python3 benches/llm_model.py FOLDER [OPTIONS]

FOLDER then is as from Hugging Face: `config.json`, `model.safetensors`,
`tokenizer.json`, a chat template. `prompts.json` beside them has what
`benches/llm_reference.py` and the benchmark beside it ask: `text`, ten of the
study's prompts, and `ids`, the same through the chat template, some 90 tokens
each. Row i of a batch takes prompt i modulo 10.

The weights are numbers of bf16 in either type of file. The token that ends an
answer has a head of zeros: among so many logits it is never the highest, nor one
of the 50 highest, so answers are as long as asked for.

    --tokenizer FILE    a SentencePiece model (Mistral's of 32,768 pieces in tests/fixtures)
    --dtype NAME        type of the file, bfloat16 or float32 (bfloat16)
    --layers N, --width N, --heads N, --kv-heads N, --intermediate N
                        the shape (12, 768, 12, 4, 2048)
    --seed N            (0)

Needs torch, transformers and sentencepiece from PyPI.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

FIXTURE = Path(__file__).resolve().parent.parent / "tests/fixtures/llm/mistral_7b_v03/tokenizer.model"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
# The study's first prompt.
PROMPT = (
    "Please generate three visual attributes that are easy to see in an image of a {}. Each attribute should be a "
    "single word or a very short phrase (max 3 words). Provide the answer in strict JSON format with keys "
    '"feature1", "feature2", and "feature3", where the values are actual descriptions (for example, "brown", '
    '"round", or "metallic"). Do not include any additional text.'
)
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + '[/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('unknown role ' + message['role']) }}{% endif %}{% endfor %}"
)


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path, default=FIXTURE)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--intermediate", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main():
    arguments = read_arguments()
    import torch
    import transformers
    from transformers import LlamaTokenizer, MistralConfig, MistralForCausalLM

    transformers.utils.logging.disable_progress_bar()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as given:
        shutil.copy(arguments.tokenizer, Path(given) / "tokenizer.model")
        tokenizer = LlamaTokenizer.from_pretrained(given)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(arguments.folder)

    model = MistralForCausalLM(
        MistralConfig(
            vocab_size=len(tokenizer),
            hidden_size=arguments.width,
            intermediate_size=arguments.intermediate,
            num_hidden_layers=arguments.layers,
            num_attention_heads=arguments.heads,
            num_key_value_heads=arguments.kv_heads,
            max_position_embeddings=4096,
            sliding_window=None,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    generator = torch.Generator().manual_seed(arguments.seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(1 + 0.1 * noise)
            elif "embed" in name:
                parameter.copy_(noise)
            else:
                parameter.copy_(noise / parameter.shape[1] ** 0.5)
            parameter.copy_(parameter.bfloat16())
        model.lm_head.weight[tokenizer.eos_token_id] = 0
    model.to(getattr(torch, arguments.dtype)).save_pretrained(arguments.folder)

    texts = [PROMPT.format(name) for name in CLASSES]
    ids = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], return_dict=True)["input_ids"]
        for text in texts
    ]
    (arguments.folder / "prompts.json").write_text(json.dumps({"text": texts, "ids": ids}, indent=1) + "\n")
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{count:,} parameters, prompts of {min(map(len, ids))} to {max(map(len, ids))} tokens")


if __name__ == "__main__":
    main()
