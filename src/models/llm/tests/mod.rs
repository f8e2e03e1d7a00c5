//! Parity with transformers, and independence of batches.
//!
//! The fixtures are made by `tests/fixtures/llm/make.py`.

mod families;
mod folders;
mod quantised;
mod schema;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::models::{sampling::Sampling, weights};

/// Largest error of a logit, relative to the largest logit: what f32 leaves.
const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Expected {
    text: Vec<u32>,
    prompts: Vec<Vec<u32>>,
    greedy: Vec<Vec<u32>>,
    #[serde(default)]
    greedy_window_16: Vec<Vec<u32>>,
    chat: Vec<Chat>,
}

#[derive(Deserialize)]
struct Chat {
    user: String,
    system: Option<String>,
    ids: Vec<u32>,
    text: String,
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/llm")
        .join(name)
}

fn expected(name: &str) -> Result<Expected> {
    Ok(serde_json::from_slice(&fs::read(
        fixture(name).join("expected.json"),
    )?)?)
}

/// On the CPU, over our own kernels or as on a GPU.
fn load(folder: &Path, host: bool) -> Result<Llm> {
    let room = (!host).then_some(u64::MAX);
    Llm::load_with(folder, DType::F32.into(), &Device::flex(), room)
}

/// A copy of a fixture with a changed configuration.
fn changed(name: &str, change: impl FnOnce(&mut Value)) -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    for entry in fs::read_dir(fixture(name))? {
        let entry = entry?;
        fs::copy(entry.path(), folder.path().join(entry.file_name()))?;
    }
    let path = folder.path().join("config.json");
    let mut config = serde_json::from_slice(&fs::read(&path)?)?;
    change(&mut config);
    fs::write(&path, config.to_string())?;
    Ok(folder)
}

/// Rewrites one tensor of a folder's weights.
fn change_tensor(folder: &Path, name: &str, change: impl FnOnce(&mut Vec<f32>)) -> Result<()> {
    let path = folder.join("model.safetensors");
    let mut change = Some(change);
    let mut open = Weights::open(&path)?;
    let raws: Vec<_> = open
        .tensor_digest_source(|_| true)
        .collect::<Result<_, _>>()?;
    let mut raws: Vec<_> = raws;
    for raw in &mut raws {
        if raw.name == name {
            let values = raw.bytes.chunks_exact(4);
            let mut values: Vec<f32> = values
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect();
            change.take().context("two tensors of one name")?(&mut values);
            raw.bytes = values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect();
        }
    }
    ensure!(change.is_none(), "no tensor `{name}`");
    let views: Vec<(String, safetensors::tensor::TensorView)> = raws
        .iter()
        .map(|raw| {
            let view = safetensors::tensor::TensorView::new(
                safetensors::Dtype::F32,
                raw.shape.clone(),
                &raw.bytes,
            )?;
            Ok((raw.name.clone(), view))
        })
        .collect::<Result<_>>()?;
    Ok(safetensors::serialize_to_file(views, None, &path)?)
}

fn greedy(prompts: &[Vec<u32>], max_tokens: usize) -> Vec<Request> {
    let request = |prompt: &Vec<u32>| Request {
        prompt_ids: prompt.clone(),
        sampling: Sampling {
            max_tokens,
            ..Sampling::default()
        },
        key: [0; 32],
        grammar: None,
    };
    prompts.iter().map(request).collect()
}

fn answer(llm: &Llm, requests: &[Request], rows: usize) -> Result<Vec<Generation>> {
    let limits = Limits {
        rows,
        ..Limits::default()
    };
    collect(llm, requests, &limits, &|| false)
}

/// All answers in the order of their requests.
fn collect(
    llm: &Llm,
    requests: &[Request],
    limits: &Limits,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<Generation>> {
    let mut answers = vec![None; requests.len()];
    let mut on_answer = |place: usize, answer| {
        ensure!(answers[place].is_none(), "two answers to one request");
        answers[place] = Some(answer);
        Ok(())
    };
    llm.generate(requests, limits, &mut on_answer, &mut |_| {}, stop)?;
    (answers.into_iter())
        .map(|answer| answer.context("an answer was left out"))
        .collect()
}

/// The largest difference from the reference's logits, relative to the largest of them.
fn logit_error(name: &str, folder: &Path, host: bool) -> Result<f32> {
    error_against(name, "logits", &load(folder, host)?)
}

fn error_against(name: &str, tensor: &str, llm: &Llm) -> Result<f32> {
    let text = expected(name)?.text;
    let shape = [text.len(), llm.config().vocab];
    let mut file = weights::Weights::open(&fixture(name).join("expected.safetensors"))?;
    let reference = file.take_f32(tensor, &shape)?;
    let most = reference.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
    let error = (llm.logits(&text)?.iter().zip(&reference))
        .fold(0.0, |most: f32, (a, b)| most.max((a - b).abs()));
    Ok(error / most)
}

#[test]
fn logits_are_those_of_transformers() -> Result<()> {
    for name in ["mistral", "llama"] {
        for host in [true, false] {
            let error = logit_error(name, &fixture(name), host)?;
            assert!(error < TOLERANCE, "{name}, host {host}: {error}");
        }
    }
    Ok(())
}

#[test]
fn logits_in_bf16_are_near_those_of_transformers_in_bf16() -> Result<()> {
    // As on a GPU: weights and activations in bf16, sums in f32.
    let precision = DType::BF16.into();
    let llm = Llm::load_with(
        &fixture("llama"),
        precision,
        &Device::flex(),
        Some(u64::MAX),
    )?;
    let error = error_against("llama", "logits_bf16", &llm)?;
    // Rounded in the reference's order, all bits agree but for rare ties; a norm that
    // scales before it rounds is off by 4%, and f32 by 3%.
    assert!(error < 0.005, "{error}");
    let prompts = expected("llama")?.prompts;
    assert_eq!(answer(&llm, &greedy(&prompts, 20), 3)?.len(), prompts.len());
    Ok(())
}

/// Compares the greedy answers of the model in `folder` with those of fixture `name`.
fn assert_greedy(name: &str, folder: &Path, rows: &[usize]) -> Result<()> {
    let expected = expected(name)?;
    for host in [true, false] {
        let llm = load(folder, host)?;
        for &rows in rows {
            let answers = answer(&llm, &greedy(&expected.prompts, 64), rows)?;
            for (answer, reference) in answers.iter().zip(&expected.greedy) {
                assert_eq!(
                    &answer.token_ids, reference,
                    "{name}, host {host}, {rows} rows"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn greedy_answers_of_ragged_prompts_are_those_of_transformers() -> Result<()> {
    for name in ["mistral", "llama"] {
        assert_greedy(name, &fixture(name), &[1, 3, 32])?;
    }
    Ok(())
}

#[test]
fn a_sliding_window_is_honoured() -> Result<()> {
    let folder = changed("mistral", |config| config["sliding_window"] = json!(16))?;
    let expected = expected("mistral")?;
    for host in [true, false] {
        let llm = load(folder.path(), host)?;
        let answers = answer(&llm, &greedy(&expected.prompts, 64), 2)?;
        for (answer, reference) in answers.iter().zip(&expected.greedy_window_16) {
            assert_eq!(&answer.token_ids, reference, "host {host}");
        }
    }
    Ok(())
}

#[test]
fn mistakes_in_the_decoder_would_break_the_tolerance() -> Result<()> {
    let (dim, hidden) = (24, 64);
    let far = |folder: &tempfile::TempDir| -> Result<bool> {
        Ok(logit_error("mistral", folder.path(), true)? > 10.0 * TOLERANCE)
    };
    for (field, value) in [
        ("rms_norm_eps", json!(1e-3)),
        (
            "rope_parameters",
            json!({"rope_type": "default", "rope_theta": 1.02e4}),
        ),
        ("sliding_window", json!(39)),
    ] {
        let folder = changed("mistral", |config| config[field] = value)?;
        assert!(far(&folder)?, "{field}");
    }
    // Neighbours paired as in the original layout instead of the halves of a head.
    let folder = changed("mistral", |_| {})?;
    for name in ["q_proj", "k_proj"] {
        let tensor = format!("model.layers.0.self_attn.{name}.weight");
        change_tensor(folder.path(), &tensor, |values| {
            let old = values.clone();
            for (row, new) in values.chunks_exact_mut(hidden).enumerate() {
                let (head, at) = (row / dim, row % dim);
                let from = head * dim + (at % 2) * dim / 2 + at / 2;
                new.copy_from_slice(&old[from * hidden..][..hidden]);
            }
        })?;
    }
    assert!(far(&folder)?, "interleaved pairs");
    // Query heads 1 and 2 with each other's keys: heads dealt out in turn, not in groups.
    let folder = changed("mistral", |_| {})?;
    change_tensor(
        folder.path(),
        "model.layers.1.self_attn.k_proj.weight",
        |values| {
            values.rotate_left(dim * hidden);
        },
    )?;
    assert!(far(&folder)?, "grouping");
    Ok(())
}

fn sampled(count: usize, prompts: &[Vec<u32>]) -> Vec<Request> {
    (0..count)
        .map(|i| Request {
            prompt_ids: prompts[i % prompts.len()].clone(),
            sampling: Sampling {
                temperature: 0.7 + 0.1 * (i % 5) as f64,
                max_tokens: 3 + (i * 7) % 30,
                ..Sampling::default()
            },
            key: [i as u8; 32],
            grammar: None,
        })
        .collect()
}

#[test]
fn a_sampled_answer_is_the_same_alone_and_in_any_batch() -> Result<()> {
    for name in ["mistral", "llama"] {
        let llm = load(&fixture(name), true)?;
        let requests = sampled(48, &expected(name)?.prompts);
        let together = answer(&llm, &requests, 32)?;
        assert_eq!(together, answer(&llm, &requests, 5)?);
        for (request, expected) in requests.iter().zip(&together) {
            let alone = answer(&llm, std::slice::from_ref(request), 1)?;
            assert_eq!(&alone[0], expected);
        }
        let backwards: Vec<Request> = requests.iter().rev().cloned().collect();
        let mut answers = answer(&llm, &backwards, 32)?;
        answers.reverse();
        assert_eq!(together, answers);
    }
    Ok(())
}

#[test]
fn logits_are_the_same_bits_alone_and_in_a_batch() -> Result<()> {
    let llm = load(&fixture("mistral"), true)?;
    let prompts = expected("mistral")?.prompts;
    let decoder = &llm.decoder;
    let rope = rope::RopeTable::new(llm.config(), 128);
    let texts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let together = decoder.prefill(&texts, &rope)?;
    let vocab = llm.config().vocab;
    for (text, batched) in texts.iter().zip(&together) {
        let alone = decoder.prefill(&[text], &rope)?;
        assert_eq!(alone[0].logits, batched.logits);
    }
    let mut batch = decoder.memory(5, 100, 40);
    for (row, prompt) in together.iter().enumerate() {
        decoder.seat(&mut batch, row, prompt, 60)?;
    }
    let mut singles = Vec::new();
    for prompt in &together {
        let mut kv = decoder.memory(1, 100, 40);
        decoder.seat(&mut kv, 0, prompt, 60)?;
        singles.push(kv);
    }
    // Rows read one to three tokens at a time; alone they read one after the other.
    let id =
        |step: usize, row: usize, at: usize| 5 + ((step * 31 + row * 17 + at * 7) % 290) as u32;
    for step in 0..20 {
        let ids: Vec<Vec<u32>> = (0..5)
            .map(|row| (0..=(step + row) % 3).map(|at| id(step, row, at)).collect())
            .collect();
        let waiting: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let (taken, logits) = decoder.decode(&mut batch, &waiting, &[60; 5], &rope)?;
        for (row, kv) in singles.iter_mut().enumerate() {
            assert_eq!(taken[row], ids[row].len());
            let mut alone = None;
            for at in 0..ids[row].len() {
                let (_, logits) = decoder.decode(kv, &[&ids[row][at..=at]], &[60], &rope)?;
                alone = logits.of(0, vocab).map(<[f32]>::to_vec);
            }
            assert_eq!(
                alone.as_deref(),
                logits.of(row, vocab),
                "row {row}, step {step}"
            );
        }
    }
    Ok(())
}

#[test]
fn on_a_device_rows_may_read_several_tokens_at_a_time() -> Result<()> {
    let llm = load(&fixture("mistral"), false)?;
    let host = load(&fixture("mistral"), true)?;
    let prompts = expected("mistral")?.prompts;
    let texts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let rope = rope::RopeTable::new(llm.config(), 200);
    let vocab = llm.config().vocab;
    let begin = |llm: &Llm| -> Result<decoder::Kv> {
        let read = llm.decoder.prefill(&texts, &rope)?;
        let mut kv = llm.decoder.memory(texts.len(), 100, 40);
        for (row, prompt) in read.iter().enumerate() {
            llm.decoder.seat(&mut kv, row, prompt, 60)?;
        }
        Ok(kv)
    };
    let (mut batch, mut reference) = (begin(&llm)?, begin(&host)?);
    let ids: Vec<Vec<u32>> = (0..5)
        .map(|row| (0..58).map(|at| 5 + (row * 37 + at * 11) % 290).collect())
        .collect();
    // Each step one row reads many tokens and the others one, so that columns are
    // left empty, run out and are moved, until there is no room for many.
    let (mut read, mut limited) = ([0; 5], false);
    for step in 0.. {
        let waiting: Vec<&[u32]> = (ids.iter().zip(&read).enumerate())
            .map(|(row, (ids, &from))| {
                let many = if (step + row) % 5 == 0 { 20 } else { 1 };
                &ids[from..ids.len().min(from + many)]
            })
            .collect();
        if waiting.iter().all(|ids| ids.is_empty()) {
            break;
        }
        let left: Vec<usize> = read.iter().map(|read| 58 - read).collect();
        let (taken, logits) = llm.decoder.decode(&mut batch, &waiting, &left, &rope)?;
        let same: Vec<&[u32]> = (waiting.iter().zip(&taken))
            .map(|(ids, &taken)| &ids[..taken])
            .collect();
        let (_, expected) = host.decoder.decode(&mut reference, &same, &left, &rope)?;
        for row in 0..5 {
            let Some(expected) = expected.of(row, vocab) else {
                continue;
            };
            let most = expected.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
            let found = logits.of(row, vocab).context("no logits")?;
            let worst = (found.iter().zip(expected))
                .fold(0.0, |worst: f32, (a, b)| worst.max((a - b).abs()));
            assert!(worst < TOLERANCE * most, "row {row}, step {step}: {worst}");
        }
        for ((read, taken), waiting) in read.iter_mut().zip(&taken).zip(&waiting) {
            *read += taken;
            limited |= *taken < waiting.len();
        }
    }
    assert!(limited, "there was always room");
    Ok(())
}

#[test]
fn rows_on_the_device_may_come_go_and_move() -> Result<()> {
    // Many more requests than rows, so that columns run out and are moved.
    let llm = load(&fixture("mistral"), false)?;
    let prompts = expected("mistral")?.prompts;
    let mut requests = greedy(&prompts, 64);
    for round in 0..8 {
        requests.extend(greedy(&prompts, 5 + 7 * round));
    }
    let host = answer(&load(&fixture("mistral"), true)?, &requests, 32)?;
    assert_eq!(answer(&llm, &requests, 3)?, host);
    Ok(())
}

#[test]
fn stop_texts_lengths_and_prompts_out_of_range_are_handled() -> Result<()> {
    let llm = load(&fixture("mistral"), true)?;
    let prompts = expected("mistral")?.prompts;
    let whole = &answer(&llm, &greedy(&prompts[2..3], 40), 1)?[0];
    assert_eq!((whole.finish, whole.token_ids.len()), (Finish::Length, 40));
    let start = whole.text.char_indices().nth(10).context("too short")?.0;
    let end = whole.text.char_indices().nth(12).context("too short")?.0;
    let mut requests = greedy(&prompts[2..3], 40);
    requests[0].sampling.stop = vec![whole.text[start..end].to_owned()];
    let cut = &answer(&llm, &requests, 1)?[0];
    assert_eq!(cut.finish, Finish::Stop);
    assert!(whole.text.starts_with(&cut.text) && cut.text.len() <= start);

    let error = |requests: &[Request]| match answer(&llm, requests, 1) {
        Ok(_) => String::new(),
        Err(error) => format!("{error:#}"),
    };
    assert!(error(&greedy(&[vec![]], 4)).contains("no tokens"));
    assert!(error(&greedy(&[vec![300]], 4)).contains("token 300"));
    assert!(error(&greedy(&prompts[..1], 512)).contains("max_tokens"));
    let stopped = collect(&llm, &greedy(&prompts, 4), &Limits::default(), &|| true);
    assert!(stopped.is_err_and(|error| error.is::<Stopped>()));
    let limits = Limits {
        kv_bytes: 1000,
        ..Limits::default()
    };
    let refused = collect(&llm, &greedy(&prompts, 4), &limits, &|| false);
    assert!(refused.is_err_and(|error| error.to_string().contains("bytes")));
    Ok(())
}
