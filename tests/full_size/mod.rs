//! A model folder of full size that takes no room: sparse files whose weights are a hole.
//!
//! `tests/fixtures/llm/mistral_7b_v03/` holds the names and shapes of
//! Mistral-7B-Instruct-v0.3's 291 tensors, and its `SentencePiece` tokenizer as
//! Mistral published it in `mistral-common` (Apache-2.0).

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use safetensors::tensor::Metadata;
use serde_json::{Map, Value, json};

/// One tensor of a line: name, tab, dimensions joined by `x`.
const TENSORS: &str = include_str!("../fixtures/llm/mistral_7b_v03/tensors.tsv");
const TOKENIZER: &[u8] = include_bytes!("../fixtures/llm/mistral_7b_v03/tokenizer.model");
/// A shard is full before it would hold more bytes than this, as in the published folder.
const MOST_BYTES: u64 = 5_000_000_000;
const SHARDS: usize = 3;
/// Turns of user and assistant, with the spaces of the third version's template.
const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}\
    {% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + '[/INST]' }}\
    {% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}\
    {% else %}{{ raise_exception('unknown role ' + message['role']) }}{% endif %}{% endfor %}";

/// What of the folder is not as published.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// The tensor is in neither the index nor a shard.
    Missing(&'static str),
    /// The tensor is in the index, but not in its shard.
    MissingInShard(&'static str),
    /// One tensor more, of 16 bf16 numbers.
    Extra(&'static str),
    /// The tensor has another name.
    Renamed(&'static str, &'static str),
    /// The tensor has another shape.
    Reshaped(&'static str, Vec<u64>),
    /// The tensor has another type, by its name in a header: `F32`, `F16`, `I8` and so on.
    Retyped(&'static str, &'static str),
    /// The last shard ends one byte early.
    CutShort,
}

#[derive(Clone, Debug)]
struct Tensor {
    name: String,
    shape: Vec<u64>,
    dtype: &'static str,
    /// Whether it is only named in the index.
    absent: bool,
}

impl Tensor {
    fn bytes(&self) -> io::Result<u64> {
        let width = match self.dtype {
            "F64" | "I64" => 8,
            "F32" | "I32" => 4,
            "BF16" | "F16" | "I16" => 2,
            "I8" | "U8" | "BOOL" | "F8_E4M3" | "F8_E5M2" => 1,
            other => return Err(io::Error::other(format!("no type is called `{other}`"))),
        };
        Ok(self.shape.iter().product::<u64>() * width)
    }
}

/// Writes a folder as Mistral-7B-Instruct-v0.3's: configuration, tokenizer, chat
/// template, an index and three shards of bf16 zeros, 14.5 GB long, of which a
/// file system that knows holes stores some 30 kB.
///
/// Existing files of these names are replaced.
///
/// # Errors
/// Where a file cannot be written, or the change names a tensor that is not there.
pub(crate) fn mistral_7b(folder: &Path, change: Change) -> io::Result<()> {
    write_json(&folder.join("config.json"), &config())?;
    write_json(&folder.join("generation_config.json"), &generation_config())?;
    write_json(&folder.join("tokenizer_config.json"), &tokenizer_config())?;
    fs::write(folder.join("tokenizer.model"), TOKENIZER)?;
    let cut = change == Change::CutShort;
    let shards = shards(changed(tensors()?, change)?)?;
    let mut places = Map::new();
    let mut total = 0;
    for (index, shard) in shards.iter().enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", index + 1, shards.len());
        for tensor in shard {
            places.insert(tensor.name.clone(), json!(file));
            total += tensor.bytes()?;
        }
        let last = index + 1 == shards.len();
        write_shard(&folder.join(file), shard, u64::from(cut && last))?;
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": places});
    write_json(&folder.join("model.safetensors.index.json"), &index)
}

fn config() -> Value {
    json!({
        "architectures": ["MistralForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "initializer_range": 0.02,
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "model_type": "mistral",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1_000_000.0,
        "sliding_window": null,
        "tie_word_embeddings": false,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.42.0.dev0",
        "use_cache": true,
        "vocab_size": 32768,
    })
}

fn generation_config() -> Value {
    json!({
        "_from_model_config": true,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "transformers_version": "4.42.0.dev0",
    })
}

fn tokenizer_config() -> Value {
    json!({
        "add_bos_token": true,
        "add_eos_token": false,
        "bos_token": "<s>",
        "chat_template": TEMPLATE,
        "eos_token": "</s>",
        "legacy": false,
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
    })
}

fn tensors() -> io::Result<Vec<Tensor>> {
    let wrong = |line: &str| io::Error::other(format!("`{line}` is no tensor"));
    let tensor = |line: &str| {
        let (name, shape) = line.split_once('\t').ok_or_else(|| wrong(line))?;
        let shape: Result<Vec<u64>, _> = shape.split('x').map(str::parse).collect();
        Ok(Tensor {
            name: name.to_owned(),
            shape: shape.map_err(|_| wrong(line))?,
            dtype: "BF16",
            absent: false,
        })
    };
    TENSORS.lines().map(tensor).collect()
}

fn changed(mut tensors: Vec<Tensor>, change: Change) -> io::Result<Vec<Tensor>> {
    let find = |tensors: &[Tensor], name: &str| {
        (tensors.iter().position(|tensor| tensor.name == name))
            .ok_or_else(|| io::Error::other(format!("the model has no tensor `{name}`")))
    };
    match change {
        Change::None | Change::CutShort => {}
        Change::Missing(name) => {
            let at = find(&tensors, name)?;
            tensors.remove(at);
        }
        Change::MissingInShard(name) => {
            let at = find(&tensors, name)?;
            tensors[at].absent = true;
        }
        Change::Extra(name) => tensors.push(Tensor {
            name: name.to_owned(),
            shape: vec![16],
            dtype: "BF16",
            absent: false,
        }),
        Change::Renamed(name, new) => {
            let at = find(&tensors, name)?;
            new.clone_into(&mut tensors[at].name);
        }
        Change::Reshaped(name, shape) => {
            let at = find(&tensors, name)?;
            tensors[at].shape = shape;
        }
        Change::Retyped(name, dtype) => {
            let at = find(&tensors, name)?;
            tensors[at].dtype = dtype;
        }
    }
    Ok(tensors)
}

/// Fills one shard after the other; the last takes what is left.
fn shards(tensors: Vec<Tensor>) -> io::Result<Vec<Vec<Tensor>>> {
    let mut shards = vec![Vec::new()];
    let mut filled = 0;
    for tensor in tensors {
        let bytes = tensor.bytes()?;
        if filled + bytes > MOST_BYTES && shards.len() < SHARDS {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += bytes;
        if let Some(shard) = shards.last_mut() {
            shard.push(tensor);
        }
    }
    Ok(shards)
}

/// A header, and a hole that is `short` bytes shorter than it says.
fn write_shard(path: &Path, tensors: &[Tensor], short: u64) -> io::Result<()> {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut end = 0;
    for tensor in tensors.iter().filter(|tensor| !tensor.absent) {
        let start = end;
        end += tensor.bytes()?;
        let entry = json!({
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": [start, end],
        });
        header.insert(tensor.name.clone(), entry);
    }
    let mut header = Value::Object(header).to_string();
    // Data begin at a multiple of 8.
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut file = File::create(path)?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    file.set_len(8 + header.len() as u64 + end - short)
}

fn write_json(path: &Path, value: &Value) -> io::Result<()> {
    fs::write(path, serde_json::to_vec_pretty(value)?)
}

/// Names, shapes and types in a folder's shards, read by the safetensors crate.
fn written(folder: &Path) -> Vec<(String, Vec<usize>, String)> {
    let mut found = Vec::new();
    let mut paths: Vec<_> = (fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    paths.sort();
    assert_eq!(paths.len(), SHARDS);
    for path in paths {
        let mut file = File::open(&path).unwrap();
        let mut length = [0; 8];
        file.read_exact(&mut length).unwrap();
        let mut header = vec![0; u64::from_le_bytes(length) as usize];
        file.read_exact(&mut header).unwrap();
        let begin = 8 + header.len();
        assert_eq!(begin % 8, 0);
        let header: Metadata = serde_json::from_slice(&header).unwrap();
        let mut tensors: Vec<_> = header.tensors().into_iter().collect();
        tensors.sort_by_key(|(_, info)| info.data_offsets);
        let mut end = 0;
        for (name, info) in tensors {
            assert_eq!(info.data_offsets.0, end, "{name}");
            end += info.shape.iter().product::<usize>() * info.dtype.bitsize() / 8;
            assert_eq!(info.data_offsets.1, end, "{name}");
            found.push((name, info.shape.clone(), format!("{:?}", info.dtype)));
        }
        assert_eq!(file.metadata().unwrap().len(), (begin + end) as u64);
    }
    found
}

#[test]
fn the_folder_has_every_tensor_and_takes_no_room() {
    let folder = tempfile::tempdir().unwrap();
    mistral_7b(folder.path(), Change::None).unwrap();
    let tensors = written(folder.path());
    assert_eq!(tensors.len(), 291);
    let numbers: usize = tensors.iter().map(|t| t.1.iter().product::<usize>()).sum();
    assert_eq!(numbers, 7_248_023_552);
    assert!(tensors.iter().all(|tensor| tensor.2 == "BF16"));
    let read = |name| fs::read(folder.path().join(name)).unwrap();
    let index: Value = serde_json::from_slice(&read("model.safetensors.index.json")).unwrap();
    assert_eq!(index["metadata"]["total_size"], json!(14_496_047_104_u64));
    let places = index["weight_map"].as_object().unwrap();
    assert!(tensors.iter().all(|(name, ..)| places.contains_key(name)));
    assert_eq!(places.len(), 291);
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let stored = |entry: io::Result<fs::DirEntry>| entry.unwrap().metadata().unwrap().blocks();
        let blocks: u64 = fs::read_dir(folder.path()).unwrap().map(stored).sum();
        assert!(blocks * 512 < 1 << 20, "{blocks} blocks of 512 bytes");
    }
}

#[test]
fn a_change_is_the_only_one() {
    let of = |change| {
        let folder = tempfile::tempdir().unwrap();
        mistral_7b(folder.path(), change).map(|()| written(folder.path()))
    };
    let plain = of(Change::None).unwrap();
    let name = "model.layers.7.self_attn.k_proj.weight";
    let differing = |change| -> Vec<_> {
        let found = of(change).unwrap();
        let new = found.iter().filter(|t| !plain.contains(t)).cloned();
        let gone = plain.iter().filter(|t| !found.contains(t)).cloned();
        new.chain(gone).map(|t| (t.0, t.1, t.2)).collect()
    };
    let entry = |name: &str, shape: &[usize], dtype: &str| {
        (name.to_owned(), shape.to_vec(), dtype.to_owned())
    };
    let old = entry(name, &[1024, 4096], "BF16");
    for change in [Change::Missing(name), Change::MissingInShard(name)] {
        assert_eq!(differing(change), std::slice::from_ref(&old));
    }
    assert_eq!(differing(Change::Extra("x")), [entry("x", &[16], "BF16")]);
    assert_eq!(
        differing(Change::Renamed(name, "x")),
        [entry("x", &[1024, 4096], "BF16"), old.clone()]
    );
    assert_eq!(
        differing(Change::Reshaped(name, vec![4096, 4096])),
        [entry(name, &[4096, 4096], "BF16"), old.clone()]
    );
    assert_eq!(
        differing(Change::Retyped(name, "F32")),
        [entry(name, &[1024, 4096], "F32"), old]
    );
    assert!(of(Change::Missing("no such tensor")).is_err());
    assert!(of(Change::Retyped(name, "F7")).is_err());
    let folder = tempfile::tempdir().unwrap();
    mistral_7b(folder.path(), Change::CutShort).unwrap();
    let last = folder.path().join("model-00003-of-00003.safetensors");
    assert_eq!(fs::metadata(last).unwrap().len() % 8, 7);
}
