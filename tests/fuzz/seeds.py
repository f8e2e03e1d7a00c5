"""Makes the inputs that fuzzing starts from, out of the repository's own files.

    python seeds.py FOLDER    # writes FOLDER/TARGET/NAME

Needs nothing but Python, and of every file takes only what is short enough. The layouts are those
that `checks/TARGET.rs` describes.
"""

import json
import re
import struct
import sys
import zipfile
import zlib
from pathlib import Path

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
FIXTURES = TESTS / "fixtures"
LONGEST = 4096
OUT = Path(sys.argv[1])


def seed(target, name, data):
    data = data.encode() if isinstance(data, str) else data
    if len(data) <= LONGEST:
        folder = OUT / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"seed-{name}").write_bytes(data)


# Pipelines, each with what it extends where both are short.
BASE = '\n#### base.toml\nversion = 1\n[models.clip]\npath = "clip"\n[data.cifar10]\nformat = "cifar10"\npath = "cifar"\n'
for path in [*sorted((ROOT / "pipelines").glob("*.toml")), *sorted((TESTS / "bad").glob("*.toml"))]:
    data = path.read_bytes()
    seed("pipeline", path.stem, data)
    if b"extends" in data:
        seed("pipeline", f"{path.stem}-based", data.rstrip(b"\n") + BASE.encode())
good = re.search(r'const GOOD: &str = r#"(.*?)"#;', (TESTS / "bad.rs").read_text(), re.S).group(1)
seed("pipeline", "good", good.replace("matrix = { k = [1] }\n", ""))

# Records: the first line of one is tried as a whole file and as a line with its hash.
golden = (FIXTURES / "store/record-v1.txt").read_text()
line = golden.splitlines()[0]
name = "a/embeddings.safetensors"
seed("record", "golden", golden)
seed("record", "signed", golden + "sig ana-1:AAAA\n")
seed("record", "line", line)
for what, text in {
    "outside": line.replace(name, "../../etc/passwd"),
    "inside-out": line.replace(name, "a/../../b"),
    "absolute": line.replace(name, "/etc/passwd"),
    "nul": line.replace(name, r"a\u0000b"),
    "escaped": line.replace(name, r"\u0061/\ud83d\ude00"),
    "version": line.replace('"v":1', '"v":2'),
    "domain": line.replace("local", "ci"),
    "numbers": line.replace("0.1", "[1e300,-0.0,18446744073709551615,0.1e-7]"),
    "deep": line.replace("0.1", "[" * 120 + "]" * 120),
    "reference": line.replace('"key"', '"fingerprint_object":{"digest":"' + "0" * 64 + '","size":7},"key"'),
}.items():
    seed("record", what, text)

# Trust: the key's public half and signature are those of 32 sevens; see `checks/trust.rs`.
ANA = "ana-1:6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw="
BOB = "bob-1:iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w="
own = f'# mine\n[[domain]]\nname = "ana"\nkeys = [\n    "{ANA}", # this one\n]\nwrite_as = "ana-1"\n'
lab = f'[[domain]]\nname = "lab"\nkeys = ["{ANA}", "{BOB}"]\n'
gone = f'[revoked]\nkeys = ["{BOB}"]\n'
line = "sig ana-1:" + "A" * 86 + "=="
good = "sig ana-1:oRx6JdvPs6hr7gPOjKa2rRfoSW2qP2/eMj08SaZpAGmfcJPClvDH5/feeSCl+TE+Ab5K0k1vilreIcc8wma6Cg=="
change = f"{BOB}\nlab\nbob-1"
for what, parts in {
    "own": [own, line, change],
    "signed": [own, good, change],
    "both": [own + lab, line + "\nsig bob-1:" + "B" * 86 + "==", change],
    "revoked": [own + gone, "", change],
    "unsigned": ["require_signatures = false\n" + lab, "", f"{BOB}\nana\n{ANA}"],
    "inline": [f'domain = [{{ name = "ana", keys = ["{ANA}"] }}]', line, change],
    "empty": ["", "", f"{ANA}\nana\nana-1"],
    "odd": [own.replace("[\n", "[ # keys\n").replace('", #', '" #'), "sig", "carol-1:AAAA\n..\ncarol-1"],
}.items():
    seed("trust", what, "\n----\n".join(parts))

# Safetensors.
seed("safetensors", "script", (FIXTURES / "weights/script.safetensors").read_bytes())
seed("safetensors", "torch", (FIXTURES / "weights/torch.safetensors").read_bytes())


def safetensors(header, data):
    text = header if isinstance(header, str) else json.dumps(header)
    return struct.pack("<Q", len(text)) + text.encode() + data


def tensor(dtype, shape, start, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


seed("safetensors", "none", safetensors({}, b""))
seed("safetensors", "padded", safetensors('{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}   ', b"\0\0\x80?"))
seed("safetensors", "scalar", safetensors({"vocab_size": tensor("I64", [], 0, 8)}, struct.pack("<q", 49408)))
seed("safetensors", "types", safetensors({"a": tensor("BF16", [2, 1], 0, 4), "b": tensor("F16", [1], 4, 6), "c": tensor("U8", [2], 6, 8)}, bytes(range(8))))
seed("safetensors", "empty", safetensors({"a": tensor("F32", [0, 3], 0, 0), "b": tensor("F64", [1], 0, 8)}, bytes(8)))
seed("safetensors", "half-bytes", safetensors({"a": tensor("F4", [2], 0, 1)}, b"\x12"))
seed("safetensors", "hole", safetensors({"a": tensor("U8", [1], 1, 2)}, b"ab"))
seed("safetensors", "overlap", safetensors({"a": tensor("U8", [2], 0, 2), "b": tensor("U8", [2], 1, 3)}, b"abc"))
seed("safetensors", "list", safetensors('{"a":["U8",[1],[0,1]]}', b"a"))

# Files of PyTorch, whole and as lists of members.
NAMES = ["data.pkl", "constants.pkl", "code/__torch__.py", "data/0", "data/1", "byteorder", "code/__torch__/a.py", "version"]


def members(path):
    parts = b""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            name, data = name.split("/", 1)[1], archive.read(name)
            if name in NAMES:
                parts += struct.pack("<BH", NAMES.index(name), len(data)) + data
            elif name.startswith("code/") and name.endswith(".py"):
                parts += struct.pack("<BH", 6, len(data)) + data
    return parts


for path in sorted((FIXTURES / "weights").glob("*.pt")):
    data = path.read_bytes()
    seed("archive", path.stem, data)
    if data.startswith(b"PK"):
        seed("archive", f"{path.stem}-members", members(path))


def pickled(state):
    """A state dict of one tensor of two floats, by hand: PyTorch is not needed."""
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x02tQ"
    return state.replace(b"TENSOR", b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0K\x02\x85K\x01\x85\x89}tR")


def archive(*parts):
    return b"".join(struct.pack("<BH", what, len(data)) + data for what, data in parts)


FLOATS = (3, struct.pack("<2f", 1, 2))
state = pickled(b"\x80\x02}(X\x01\0\0\0aTENSORX\x01\0\0\0bNu.")
module = pickled(b"\x80\x02c__torch__\nM\n)\x81}(X\x08\0\0\0trainingI00\nX\x01\0\0\0aTENSORX\x01\0\0\0nK\x05ub.")
inner = pickled(b"\x80\x02c__torch__\nM\n)\x81}X\x01\0\0\0mc__torch__.a\nN\n)\x81}X\x01\0\0\0aTENSORsbsb.")
source = b'class M(Module):\n  __parameters__ = ["a", ]\n  __buffers__ = []\n  a : Tensor\n  n : int\n'
seed("archive", "state", archive((0, state), FLOATS))
seed("archive", "little", archive((0, state), FLOATS, (5, b"little"), (7, b"3\n")))
seed("archive", "big", archive((0, state), FLOATS, (5, b"big")))
deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
seed("archive", "deflated", archive((0x80, deflate.compress(state) + deflate.flush()), FLOATS))
seed("archive", "module", archive((0, module), FLOATS, (1, b"\x80\x02)."), (2, source)))
seed("archive", "inner", archive((0, inner), FLOATS, (2, source), (6, source.replace(b"class M", b"class N"))))
seed("archive", "strided", archive((0, state.replace(b"K\x02\x85K\x01\x85", b"K\x02K\x02\x86K\0K\x01\x86")), FLOATS))

# Pickles.
for path in sorted((FIXTURES / "weights").glob("*.pkl")):
    seed("pickle", path.stem, path.read_bytes())
seed("pickle", "state", state)
seed("pickle", "module", module)

# Tokenizers: the file, a zero, a text.
TOKENS = {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4, "ab": 5, "\u2581": 6, "\u2581a": 7, "\u0120": 8}
added = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True} for t, i in [("<s>", 1), ("</s>", 2)]]


def tokenizer(**changes):
    file = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": None,
        "decoder": None,
        "model": {"type": "BPE", "unk_token": "<unk>", "vocab": TOKENS, "merges": ["a b", "\u2581 a"]},
    }
    return json.dumps({**file, **changes}, ensure_ascii=False) + "\0<s>ab a b caf\u00e9</s>"


SPLIT = {"type": "Split", "pattern": {"Regex": r"\p{L}+|\s+(?!\S)|\s+"}, "behavior": "Isolated", "invert": False}
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
SPACE = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}
seed("tokenizer_json", "plain", tokenizer())
seed("tokenizer_json", "split", tokenizer(pre_tokenizer={"type": "Sequence", "pretokenizers": [SPLIT, LEVEL]}, decoder=LEVEL))
seed("tokenizer_json", "space", tokenizer(pre_tokenizer=SPACE, decoder=SPACE))
seed(
    "tokenizer_json",
    "llama",
    tokenizer(
        normalizer={"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
        decoder={"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    ),
)
seed("tokenizer_json", "words", tokenizer(model={"type": "WordLevel", "unk_token": "<unk>", "vocab": TOKENS}, pre_tokenizer={"type": "Whitespace"}))
seed("tokenizer_json", "pieces", tokenizer(model={"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": TOKENS}, pre_tokenizer={"type": "BertPreTokenizer"}, normalizer={"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}, decoder={"type": "WordPiece", "prefix": "##", "cleanup": True}))
seed("tokenizer_json", "unigram", tokenizer(model={"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["<s>", 0.0], ["</s>", 0.0], ["a", -1.5], ["b", -2.0]], "byte_fallback": False}))

# SentencePiece: what to add, the length of a text, the text, a model.


def field(number, data):
    return bytes([number << 3 | 2, len(data)]) + data


def piece(text, score=None, kind=None):
    data = field(1, text.encode())
    data += b"\x15" + struct.pack("<f", score) if score is not None else b""
    return field(1, data + (bytes([0x18, kind]) if kind else b""))


def model(what, text, *parts):
    text = text.encode()
    return bytes([what, len(text)]) + text + b"".join(parts)


pieces = [piece("<s>", 0, 3), piece("</s>", 0, 3), piece("a", -1), piece("b", -2), piece("ab", -0.5), piece("\u2581a", -0.25), piece("\u2581", -3)]
bpe = field(2, b"\x18\x02")
seed("sentencepiece", "plain", model(0, "ab a <s>b", piece("<unk>", 0, 2), *pieces, bpe))
for what in range(16):
    seed("sentencepiece", f"added-{what}", model(what | 1, " ab a\u00e9 <s>[X]b", *pieces))
seed("sentencepiece", "defined", model(3, "abba ab", *pieces, piece("ba", 0, 4), piece("aba", -9, 5)))
trie = struct.pack("<3I", 0, 0, 0)
seed("sentencepiece", "table", model(1, "ab a", *pieces, field(3, field(2, struct.pack("<I", len(trie)) + trie + b"x\0") + b"\x18\0")))
for path in sorted((FIXTURES / "llm/tokenizer").glob("*.model")):
    seed("sentencepiece", path.stem, model(0, "a cat", path.read_bytes()))

# Chat templates.
for path in sorted((FIXTURES / "llm/tokenizer/templates").glob("*.jinja")):
    seed("chat_template", path.stem, path.read_bytes())
seed("chat_template", "llama", (FIXTURES / "llm/llama/chat_template.jinja").read_bytes())
seed("chat_template", "generation", "{% for m in messages %}{% generation %}{{ m['content'] | tojson(indent=2) }}{% endgeneration %}{% endfor %}")
seed("chat_template", "methods", "{{ 'a b'.title().split(' ')[0].strip().removeprefix('A') | default('x', true) }}{{ '%s' | format(1) }}{{ 'a{}'.format(2) }}{{ strftime_now('%d %b %Y') }}")

# Texts for CLIP.
TEXTS = ["a photo of a cat.", "You should've DONE this", "<end_of_text> <|endoftext|>", "&amp;lt; caf\u00c3\u00a9 \u201cq\u201d", "\ufb01 \u2460 \uff21 \u0345\u0130\u017f", "cat " * 90, "\U0001f408\u200d\u2b1b 123,4 __ don't", "\x1b[36mx\x07\u00a0\u3000y"]
for at, text in enumerate(TEXTS):
    seed("clip_text", str(at), text)
