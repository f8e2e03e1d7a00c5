//! Answers of a language model: tokens a second, and the time to the first one.
//!
//! Prints one line a figure, `name value unit`. `benches/llm_model.py` makes a
//! model, and `benches/llm_reference.py` runs this in turn with transformers and
//! compares.
//!
//! ```sh
//! python3 benches/llm_model.py FOLDER
//! cargo bench --bench llm -- FOLDER 1,8,32,128 64
//! cargo bench --bench llm -- FOLDER 1,8 64 nf4
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark stops at what it does not expect, and prints"
)]

use std::{path::Path, time::Instant};

use burn::tensor::{DType, Device};
use runner::models::{
    llm::{Limits, Llm, Precision, Quantize, Request},
    sampling::Sampling,
};

/// Seconds that a figure is measured for, at least.
const SECONDS: f64 = 2.0;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    // `cargo test --benches` and the like run this without a model.
    let Some(folder) = arguments.first() else {
        println!("no model: see the first lines of benches/llm.rs");
        return;
    };
    let batches = arguments.get(1).map_or("1,8,32,128", String::as_str);
    let tokens = arguments.get(2).map_or(64, |text| text.parse().unwrap());
    let (name, quantize) = match arguments.get(3).map(String::as_str) {
        None => ("f32", None),
        Some("nf4") => ("nf4", Some(Quantize::Nf4)),
        Some("int8") => ("int8", Some(Quantize::Int8)),
        Some(other) => panic!("`{other}` is neither nf4 nor int8"),
    };
    let precision = Precision {
        dtype: DType::F32,
        quantize,
    };
    let llm = Llm::load(Path::new(folder), precision, &Device::flex(), u64::MAX).unwrap();
    let prompts = prompts(folder);
    let first = time(|| assert_eq!(run(&llm, &prompts, 1, &sampling(0.0, 1)), 1));
    println!("first.{name}.1 {:.1} ms", first * 1e3);
    for batch in batches.split(',').map(|n| n.parse::<usize>().unwrap()) {
        for (kind, temperature) in [("greedy", 0.0), ("sampled", 0.7)] {
            let sampling = sampling(temperature, tokens);
            let seconds = time(|| {
                let drawn = run(&llm, &prompts, batch, &sampling);
                assert_eq!(drawn, batch * tokens, "an answer ended early");
            });
            let rate = (batch * tokens) as f64 / seconds;
            println!("{kind}.{name}.{batch} {rate:.2} tokens/s");
        }
    }
}

fn sampling(temperature: f64, max_tokens: usize) -> Sampling {
    Sampling {
        temperature,
        top_k: 50,
        max_tokens,
        ..Sampling::default()
    }
}

/// Answers `batch` prompts at once; the number of tokens written.
fn run(llm: &Llm, prompts: &[Vec<u32>], batch: usize, sampling: &Sampling) -> usize {
    let requests: Vec<Request> = (0..batch)
        .map(|row| Request {
            prompt_ids: prompts[row % prompts.len()].clone(),
            sampling: sampling.clone(),
            key: [row as u8; 32],
            grammar: None,
        })
        .collect();
    let limits = Limits {
        rows: batch,
        ..Limits::default()
    };
    let mut tokens = 0;
    llm.generate(
        &requests,
        &limits,
        &mut |_, answer| {
            tokens += answer.token_ids.len();
            Ok(())
        },
        &mut |_| {},
        &|| false,
    )
    .unwrap();
    tokens
}

/// The token ids of `prompts.json`.
fn prompts(folder: &str) -> Vec<Vec<u32>> {
    let text = std::fs::read_to_string(Path::new(folder).join("prompts.json")).unwrap();
    let prompts: serde_json::Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(prompts["ids"].clone()).unwrap()
}

/// Seconds of one call, the best of as many as take [`SECONDS`], three at least.
fn time(mut call: impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut best = f64::MAX;
    let mut calls = 0;
    while calls < 3 || begun.elapsed().as_secs_f64() < SECONDS {
        let start = Instant::now();
        call();
        best = best.min(start.elapsed().as_secs_f64());
        calls += 1;
    }
    best
}
