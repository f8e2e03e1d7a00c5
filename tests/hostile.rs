//! Broken and hostile files of models and data: a clear error that names the
//! file and the exit code of a failed node; never a crash, never a result.

use std::path::{Path, PathBuf};

use crate::space::Space;

/// The pipeline that reads each kind of file once, in a folder with copies of them.
fn space() -> Space {
    let space = Space::new();
    let demo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("pipelines/demo");
    for folder in ["clip", "llm", "cifar-10-batches-bin"] {
        std::fs::create_dir_all(space.path().join(folder)).unwrap();
        for entry in std::fs::read_dir(demo.join(folder)).unwrap() {
            let from = entry.unwrap().path();
            std::fs::copy(
                &from,
                space.path().join(folder).join(from.file_name().unwrap()),
            )
            .unwrap();
        }
    }
    space.write(
        "p.toml",
        r#"
version = 1
name = "hostile"
[data.pics]
format = "cifar10"
path = "cifar-10-batches-bin"
limit = 8
[models.clip]
path = "clip"
[models.llm]
path = "llm"
[nodes.images]
kind = "clip_encode"
model = "clip"
images = "pics.test"
[nodes.texts]
kind = "clip_encode"
model = "clip"
classes = ["cat", "dog"]
prompts = "a {{ class }}"
[nodes.answers]
kind = "llm_generate"
model = "llm"
classes = ["cat"]
prompt = "Name a {{ class }}."
json = "off"
max_tokens = 4
"#,
    );
    space
}

fn damage(path: &Path, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// Damages `file`, runs, and expects a failure that names it and no result that used it.
fn fails_naming(file: &str, change: impl Fn(&mut Vec<u8>)) {
    let space = space();
    damage(&space.path().join(file), change);
    let ran = space.run(&["exec", "p.toml"]);
    assert_eq!(ran.code, 1, "{file}: {}", ran.stderr);
    let name = file.rsplit('/').next().unwrap();
    assert!(ran.stderr.contains(name), "{file}: {}", ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{file}: {}", ran.stderr);
}

#[test]
fn the_files_are_sound_before_they_are_damaged() {
    let space = space();
    let ran = space.run(&["exec", "p.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

#[test]
fn broken_weights_are_named() {
    for file in ["clip/open_clip_model.safetensors", "llm/model.safetensors"] {
        fails_naming(file, |bytes| bytes.truncate(bytes.len() / 2));
        fails_naming(file, |bytes| {
            bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        });
        fails_naming(file, |bytes| bytes[8] = b'[');
        fails_naming(file, Vec::clear);
    }
}

#[test]
fn broken_configurations_are_named() {
    for file in ["clip/open_clip_config.json", "llm/config.json"] {
        fails_naming(file, |bytes| bytes.truncate(20));
        fails_naming(file, |bytes| *bytes = b"{}".to_vec());
        fails_naming(file, |bytes| *bytes = vec![b'['; 100_000]);
    }
    fails_naming("llm/config.json", |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        *bytes = text
            .replace(
                "\"num_hidden_layers\": 4",
                "\"num_hidden_layers\": 4000000000",
            )
            .into_bytes();
    });
}

#[test]
fn a_broken_tokenizer_is_named() {
    fails_naming("llm/tokenizer.json", |bytes| bytes.truncate(1000));
    fails_naming("llm/tokenizer.json", |bytes| {
        *bytes = b"{\"model\": {\"type\": \"BPE\"}}".to_vec();
    });
}

#[test]
fn broken_data_is_named() {
    for file in [
        "cifar-10-batches-bin/test_batch.bin",
        "cifar-10-batches-bin/data_batch_4.bin",
    ] {
        fails_naming(file, |bytes| bytes.truncate(5000));
        fails_naming(file, |bytes| bytes[0] = 200);
    }
    fails_naming("cifar-10-batches-bin/batches.meta.txt", |bytes| {
        *bytes = vec![0xff, 0xfe];
    });
}
