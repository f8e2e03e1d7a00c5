//! Quantised models against transformers with bitsandbytes.
//!
//! The fixtures are made by `tests/fixtures/llm/quantised/make_quantised.py`.

use super::*;

/// A quantised fixture with a tokenizer.
fn folder(name: &str) -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    for file in ["config.json", "model.safetensors"] {
        let from = fixture("quantised").join(name).join(file);
        fs::copy(from, folder.path().join(file))?;
    }
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(fixture("mistral").join(file), folder.path().join(file))?;
    }
    Ok(folder)
}

fn load_as(name: &str, quantize: Option<Quantize>, room: Option<u64>) -> Result<Llm> {
    let precision = Precision {
        dtype: DType::F32,
        quantize,
    };
    Llm::load_with(folder(name)?.path(), precision, &Device::flex(), room)
}

fn logits(llm: &Llm) -> Result<Vec<f32>> {
    llm.logits(&expected("mistral")?.text)
}

/// Largest errors of each token's logits, relative to the largest logit.
fn errors(llm: &Llm, name: &str, tensor: &str) -> Result<Vec<f32>> {
    let path = fixture("quantised").join(name).join("expected.safetensors");
    let vocab = llm.config().vocab;
    let found = logits(llm)?;
    let shape = [found.len() / vocab, vocab];
    let reference = weights::Weights::open(&path)?.take_f32(tensor, &shape)?;
    let most = reference.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
    let rows = found.chunks(vocab).zip(reference.chunks(vocab));
    Ok(rows
        .map(|(a, b)| {
            let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs());
            worst.fold(0.0, f32::max) / most
        })
        .collect())
}

#[test]
fn nf4_files_give_the_logits_of_transformers() -> Result<()> {
    // On a device expanded once, at each use, and half and half.
    let half = 2 * 300 * 64 * 4 + 30_000;
    for room in [None, Some(u64::MAX), Some(0), Some(half)] {
        let llm = load_as("nf4", None, room)?;
        let worst = errors(&llm, "nf4", "logits")?
            .into_iter()
            .fold(0.0, f32::max);
        assert!(worst < TOLERANCE, "room {room:?}: {worst}");
    }
    // What the weights were before they were quantised is far off.
    let plain = load_as("plain", None, None)?;
    let worst = errors(&plain, "nf4", "logits")?
        .into_iter()
        .fold(0.0, f32::max);
    assert!(worst > 100.0 * TOLERANCE, "{worst}");
    Ok(())
}

#[test]
fn int8_files_give_the_logits_of_transformers_token_by_token() -> Result<()> {
    let llm = load_as("int8", None, None)?;
    let mut errors = errors(&llm, "int8", "logits_one_by_one")?;
    errors.sort_by(f32::total_cmp);
    // Where an activation is half-way between two integers, f32 noise moves it by one.
    assert!(errors[37] < TOLERANCE, "{:?}", &errors[36..]);
    assert!(errors[39] < 0.02, "{:?}", &errors[36..]);
    // On a device activations are not rounded, which is less than the weights' own error.
    for room in [u64::MAX, 0] {
        let device = load_as("int8", None, Some(room))?;
        let worst = super::quantised::errors(&device, "int8", "logits_one_by_one")?;
        let worst = worst.into_iter().fold(0.0, f32::max);
        assert!(worst < 0.07, "room {room}: {worst}");
    }
    Ok(())
}

#[test]
fn quantising_while_reading_gives_what_the_files_hold() -> Result<()> {
    for (name, quantize) in [("nf4", Quantize::Nf4Double), ("int8", Quantize::Int8)] {
        let read = logits(&load_as(name, None, None)?)?;
        let made = logits(&load_as("plain", Some(quantize), None)?)?;
        assert_eq!(read, made, "{name}");
    }
    let single = logits(&load_as("plain", Some(Quantize::Nf4), None)?)?;
    let double = logits(&load_as("plain", Some(Quantize::Nf4Double), None)?)?;
    assert_ne!(single, double);
    Ok(())
}

#[test]
fn quantised_answers_do_not_depend_on_the_batch() -> Result<()> {
    let prompts = expected("mistral")?.prompts;
    for name in ["nf4", "int8"] {
        let llm = load_as(name, None, None)?;
        let requests = sampled(32, &prompts);
        let together = answer(&llm, &requests, 32)?;
        for (request, expected) in requests.iter().zip(&together) {
            let alone = answer(&llm, std::slice::from_ref(request), 1)?;
            assert_eq!(&alone[0], expected, "{name}");
        }
    }
    Ok(())
}

#[test]
fn quantised_weights_take_less_memory() -> Result<()> {
    let bytes = |quantize| -> Result<usize> { Ok(load_as("plain", quantize, None)?.bytes()) };
    let (plain, eight, four) = (
        bytes(None)?,
        bytes(Some(Quantize::Int8))?,
        bytes(Some(Quantize::Nf4))?,
    );
    // Two bytes a number, one, and 4.5 bits; tables and head stay.
    let rest = 2 * 300 * 64 * 2;
    let numbers = (plain - rest) / 2;
    assert!((eight - rest) * 100 < numbers * 110, "{eight}");
    assert!((four - rest) * 100 < numbers * 65, "{four}");
    Ok(())
}

#[test]
fn a_quantised_folder_is_not_quantised_again_and_what_it_lacks_is_named() -> Result<()> {
    let error = |result: Result<Llm>| match result {
        Ok(_) => String::new(),
        Err(error) => format!("{error:#}"),
    };
    let again = error(load_as("nf4", Some(Quantize::Int8), None));
    assert!(again.contains("quantised already"), "{again}");
    let folder = folder("nf4")?;
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
    config["quantization_config"]["quant_method"] = json!("gptq");
    fs::write(&path, config.to_string())?;
    let method = error(load(folder.path(), true));
    assert!(
        method.contains("gptq") && method.contains("config.json"),
        "{method}"
    );
    // Full-precision weights under a configuration that says otherwise.
    fs::copy(fixture("quantised").join("nf4/config.json"), &path)?;
    let plain = fixture("quantised").join("plain/model.safetensors");
    fs::copy(plain, folder.path().join("model.safetensors"))?;
    let mixed = error(load(folder.path(), true));
    assert!(
        mixed.contains("model.layers.0.self_attn.q_proj.weight"),
        "{mixed}"
    );
    Ok(())
}
