//! A language model of full size, as sparse files: what loading it takes, and what
//! is said where something is wrong with it.

use std::{path::Path, process::Command};

use burn::tensor::{DType, Device};
use runner::models::llm::{Llm, Precision, Quantize};

use crate::full_size::{Change, mistral_7b};

/// Set for the process that loads: the folder, and how.
const FOLDER: &str = "RUNNER_LOAD_FOLDER";
const QUANTIZE: &str = "RUNNER_LOAD_QUANTIZE";

/// A line of `/proc/self/status` in bytes.
fn status(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    1024 * kilobytes
}

/// Loads a model in a process of its own; its peak of memory and its weights.
fn load(folder: &Path, quantize: &str) -> Result<(u64, u64), String> {
    let out = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "memory::in_a_process_of_its_own", "--nocapture"])
        .env(FOLDER, folder)
        .env(QUANTIZE, quantize)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let found = text.split_once("LOADED ").ok_or_else(|| text.clone())?.1;
    let mut numbers = found.split_whitespace().map(|n| n.parse().unwrap());
    Ok((numbers.next().unwrap(), numbers.next().unwrap()))
}

#[test]
#[expect(
    clippy::print_stdout,
    reason = "read by the process that started this one"
)]
fn in_a_process_of_its_own() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let quantize = match std::env::var(QUANTIZE).unwrap().as_str() {
        "nf4" => Some(Quantize::Nf4),
        "int8" => Some(Quantize::Int8),
        _ => None,
    };
    let precision = Precision {
        dtype: DType::F32,
        quantize,
    };
    match Llm::load(Path::new(&folder), precision, &Device::flex(), u64::MAX) {
        Ok(llm) => {
            // Weights are read, not mapped, so that all of it is anonymous memory.
            let text = std::fs::read_to_string("/proc/self/status").unwrap();
            println!("LOADED {} {}", status(&text, "VmHWM"), llm.bytes());
        }
        Err(error) => println!("{error:#}"),
    }
}

/// Memory that is free without driving anything out.
fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    status(&text, "MemAvailable")
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
fn a_model_of_full_size_loads_within_a_tenth_of_its_weights() {
    let folder = tempfile::tempdir().unwrap();
    mistral_7b(folder.path(), Change::None).unwrap();
    // 7.25 billion numbers, of which NF4 leaves 6.98 in 4.5 bits each.
    for (quantize, expected) in [("nf4", 4_463_000_000), ("bf16", 14_496_000_000_u64)] {
        if available() < expected / 10 * 11 + 2_000_000_000 {
            eprintln!("LEFT OUT: loading {quantize} needs {expected} bytes of memory");
            continue;
        }
        let (peak, weights) = load(folder.path(), quantize).unwrap();
        assert!(
            weights.abs_diff(expected) < expected / 50,
            "{quantize}: {weights}"
        );
        assert!(
            peak < weights + weights / 10,
            "{quantize}: a peak of {peak} bytes for {weights}"
        );
        eprintln!("{quantize}: a peak of {peak} bytes for weights of {weights}");
    }
}

#[test]
fn what_is_wrong_with_a_folder_of_full_size_is_named_at_once() {
    for (change, words) in [
        (
            Change::Missing("model.layers.31.mlp.up_proj.weight"),
            "model.layers.31.mlp.up_proj.weight",
        ),
        (
            Change::MissingInShard("model.norm.weight"),
            "model.norm.weight",
        ),
        (
            Change::Extra("model.layers.32.mlp.up_proj.weight"),
            "model.layers.32.mlp.up_proj.weight",
        ),
        (
            Change::Renamed("lm_head.weight", "output.weight"),
            "output.weight",
        ),
        (
            Change::Reshaped("model.layers.0.self_attn.k_proj.weight", vec![4096, 4096]),
            "[4096, 4096]",
        ),
        (
            Change::Retyped("model.layers.7.input_layernorm.weight", "I64"),
            "I64",
        ),
        (Change::CutShort, "model-00003-of-00003.safetensors"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        mistral_7b(folder.path(), change.clone()).unwrap();
        let begun = std::time::Instant::now();
        let error = load(folder.path(), "bf16").unwrap_err();
        assert!(error.contains(words), "{change:?}: {error}");
        assert!(begun.elapsed().as_secs() < 10, "{change:?}");
    }
}
