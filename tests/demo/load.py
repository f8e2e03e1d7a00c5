"""Reads the demo's folders with the reference implementations: open_clip, PIL, transformers."""

import pathlib

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoModelForCausalLM, AutoTokenizer

import train_clip

DEMO = pathlib.Path(__file__).resolve().parents[2] / "pipelines" / "demo"
TRAIN_FILES = [f"data_batch_{k}.bin" for k in range(1, 6)]
TEST_FILES = ["test_batch.bin"]


class Clip:
    """The committed CLIP with its f16 weights as f32, its tokenizer and its own preprocessing."""

    def __init__(self, folder=DEMO / "clip"):
        self.model, _, self.transform = open_clip.create_model_and_transforms(
            f"local-dir:{folder}", precision="fp32")
        self.model.eval()
        self.tokenizer = open_clip.get_tokenizer("RN50")
        self.memory = {}

    def pixels(self, images):
        """Images [n, 32, 32, 3] as the model wants them: f32 [n, 3, 64, 64]."""
        return torch.stack([self.transform(Image.fromarray(image)) for image in images])

    @torch.no_grad()
    def images(self, images):
        blocks = [self.model.encode_image(self.pixels(images[i:i + 200])) for i in range(0, len(images), 200)]
        return F.normalize(torch.cat(blocks), dim=-1)

    @torch.no_grad()
    def texts(self, texts):
        """Embeddings by the model's own `encode_text`, all 77 positions."""
        blocks = [self.model.encode_text(self.tokenizer(texts[i:i + 64])) for i in range(0, len(texts), 64)]
        return F.normalize(torch.cat(blocks), dim=-1)

    @torch.no_grad()
    def recall(self, texts):
        """The same up to rounding, faster: stops at the end token and remembers."""
        new = [text for text in dict.fromkeys(texts) if text not in self.memory]
        for i in range(0, len(new), 128):
            block = new[i:i + 128]
            rows = F.normalize(train_clip.encode_text(self.model, self.tokenizer(block)), dim=-1)
            self.memory.update(zip(block, rows))
        return torch.stack([self.memory[text] for text in texts])


class Llm:
    """The committed LLM with its f16 weights as f32, and its tokenizer."""

    def __init__(self, folder=DEMO / "llm"):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def ids(self, prompt):
        turns = [{"role": "user", "content": prompt}]
        return self.tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)

    def text(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    @torch.no_grad()
    def greedy(self, prompt, limit=96):
        """The ids that follow a prompt, the end token included when it comes."""
        ids = self.ids(prompt)
        out = self.model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=limit, pad_token_id=2)
        return out[0, len(ids):].tolist()

    @torch.no_grad()
    def sample(self, prompts, temperature, limit=96, each=1):
        """One sampled text per prompt (`each` per prompt, in turn), prompts padded on the left."""
        rows = [self.ids(prompt) for prompt in prompts]
        width = max(map(len, rows))
        tokens = torch.tensor([[2] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        out = self.model.generate(tokens, attention_mask=mask, do_sample=True, temperature=temperature, top_k=50,
                                  top_p=1.0, max_new_tokens=limit, num_return_sequences=each, pad_token_id=2)
        return [self.text(row) for row in out[:, width:].tolist()]


def cifar10(files, folder=DEMO / "cifar-10-batches-bin"):
    """Images u8 [n, 32, 32, 3] and labels [n] of CIFAR-10 binary files."""
    raw = np.concatenate([np.fromfile(folder / name, np.uint8) for name in files]).reshape(-1, 3073)
    return raw[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), torch.from_numpy(raw[:, 0].astype(np.int64))
