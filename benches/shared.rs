//! A teammate's warm start: 50,000 embeddings of 1,024 numbers and 3,000 answers from a shared
//! cache into an empty store. `benches/shared.sh` runs it beside `rclone copy` and `dvc pull`.
//!
//! usage: cargo bench --bench shared -- put|get URL FOLDER

use std::{path::Path, time::Instant};

use runner::{
    digest::Digest,
    store::{Output, Record, RemoteOptions, Store},
    trust::{self, Trust},
};
use serde_json::json;

const EMBEDDINGS: usize = 50_000;
const NUMBERS: usize = 1024;
const ANSWERS: usize = 3000;
/// Answers that the engine commits together.
const PACK: usize = 32;

/// Bytes that no compression shrinks, the same ones every time.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

fn key(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn space() -> Digest {
    key("answers")
}

/// A store in `folder`, with the shared cache at `url` behind it.
fn open(folder: &Path, name: &str, url: &str) -> anyhow::Result<Store> {
    let config = folder.join("config");
    if Trust::load(&config)?.writer().is_none() {
        trust::create(&config, "ana", None)?;
    }
    let store = Store::open(&folder.join(name))?;
    let remote = RemoteOptions {
        name: "team".to_owned(),
        url: url.to_owned(),
        write: true,
    };
    store.connect(&[remote], folder, Trust::load(&config)?)?;
    Ok(store)
}

fn put(folder: &Path, url: &str) -> anyhow::Result<()> {
    let store = open(folder, "ana", url)?;
    let embeddings = noise(EMBEDDINGS * NUMBERS * 4, 1);
    let rows: String = (0..EMBEDDINGS)
        .map(|i| format!("{{\"image\":\"{i}\",\"class\":\"class {}\"}}\n", i % 100))
        .collect();
    let outputs = [
        ("embeddings.safetensors", embeddings),
        ("items.jsonl", rows.into_bytes()),
    ];
    let outputs = outputs
        .into_iter()
        .map(|(name, bytes)| {
            Ok(Output {
                name: name.to_owned(),
                digest: store.put(&bytes)?,
                size: bytes.len() as u64,
            })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    store.commit(&Record {
        key: key("images"),
        artifact: outputs[0].digest,
        outputs,
        kind: "clip_encode".to_owned(),
        fingerprint: json!({}),
        recipe: None,
        provenance: json!({}),
    })?;
    let answers: Vec<usize> = (0..ANSWERS).collect();
    for pack in answers.chunks(PACK) {
        let item = |i: &usize| (key(&format!("answer {i}")), noise(900, *i as u64 + 2));
        let batch: Vec<_> = pack.iter().map(item).collect();
        store.commit_items(&space(), &batch)?;
    }
    let began = Instant::now();
    store.share(&key("images"));
    store.share_items(&space());
    let report = store.finish_uploads(&|| false, &mut |_| {});
    anyhow::ensure!(report.is_complete(), "{report:?}");
    tell("upload", &began, report.bytes, report.objects);
    Ok(())
}

/// Fetches the record of the embeddings, and its objects.
fn images(store: &Store) -> anyhow::Result<()> {
    let found = store.find(&key("images"));
    let found = found.ok_or_else(|| anyhow::anyhow!("the record is not there"))?;
    let outputs = found.record.outputs.iter();
    let objects: Vec<_> = outputs.map(|o| (o.digest, o.size)).collect();
    anyhow::ensure!(store.fetch(&objects).is_empty(), "objects are missing");
    Ok(())
}

fn get(folder: &Path, url: &str) -> anyhow::Result<()> {
    let _ = std::fs::remove_dir_all(folder.join("ben"));
    let store = open(folder, "ben", url)?;
    let began = Instant::now();
    // As in a run, in which two nodes want them.
    let (images, packs) = std::thread::scope(|scope| {
        let images = scope.spawn(|| images(&store));
        let packs = store.pull_items(&space());
        (images.join(), packs)
    });
    images.map_err(|_| anyhow::anyhow!("the thread panicked"))??;
    let items = store.items(&space())?;
    anyhow::ensure!(items.len() == ANSWERS, "{} answers", items.len());
    let stats = store.stats()?;
    let bytes = stats.objects.bytes + stats.packs.bytes;
    tell("warm start", &began, bytes, stats.objects.files + packs);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is what it is for")]
fn tell(what: &str, began: &Instant, bytes: u64, objects: u64) {
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{what}: {seconds:.2} s, {:.0} MB/s, {:.0} objects/s ({objects} objects, {} MB)",
        bytes as f64 / 1e6 / seconds,
        objects as f64 / seconds,
        bytes / 1_000_000
    );
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["put", url, folder] => put(Path::new(folder), url),
        ["get", url, folder] => get(Path::new(folder), url),
        _ => {
            let folder = tempfile::tempdir()?;
            let url = folder.path().join("shared").display().to_string();
            put(folder.path(), &url)?;
            get(folder.path(), &url)
        }
    }
}
