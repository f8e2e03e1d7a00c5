//! Parity with transformers for each family of decoders, and what mistakes would do.
//!
//! The fixtures are made by `tests/fixtures/llm/families.py`.

use std::collections::BTreeMap;

use super::*;

/// Folders that have `mistral`'s tokenizer.
const FAMILIES: [&str; 4] = ["llama2", "llama3", "mistral_v01", "mistral_head_dim"];

/// A copy of a fixture with a tokenizer and a changed configuration.
fn folder(name: &str, change: impl FnOnce(&mut Value)) -> Result<tempfile::TempDir> {
    let folder = changed(name, change)?;
    for file in [
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    ] {
        let file = fixture("mistral").join(file);
        if let Some(name) = file.file_name().filter(|_| file.exists()) {
            fs::copy(&file, folder.path().join(name))?;
        }
    }
    Ok(folder)
}

#[test]
fn logits_of_every_family_are_those_of_transformers() -> Result<()> {
    for name in FAMILIES {
        let folder = folder(name, |_| {})?;
        for host in [true, false] {
            let error = logit_error(name, folder.path(), host)?;
            assert!(error < TOLERANCE, "{name}, host {host}: {error}");
        }
    }
    Ok(())
}

#[test]
fn greedy_answers_of_every_family_are_those_of_transformers() -> Result<()> {
    for name in FAMILIES {
        let folder = folder(name, |_| {})?;
        assert_greedy(name, folder.path(), &[1, 5])?;
    }
    Ok(())
}

#[test]
fn weights_in_bf16_and_f16_are_not_turned_into_f32_on_the_cpu() -> Result<()> {
    // The same numbers whether they are rounded to their own type or left alone.
    for (name, dtype) in [("llama3", DType::BF16), ("mistral_head_dim", DType::F16)] {
        let folder = folder(name, |_| {})?;
        let text = expected(name)?.text;
        let load =
            |dtype: DType| Llm::load_with(folder.path(), dtype.into(), &Device::flex(), None);
        let (own, full) = (load(dtype)?, load(DType::F32)?);
        assert_eq!(own.logits(&text)?, full.logits(&text)?, "{name}");
        assert_eq!(own.bytes(), full.bytes(), "{name}");
    }
    Ok(())
}

#[test]
fn a_wrong_setting_is_as_far_off_here_as_in_transformers() -> Result<()> {
    // So a setting that is not obeyed would be seen.
    #[derive(Deserialize)]
    struct Mistakes {
        mistakes: BTreeMap<String, f32>,
    }
    let mut tried = 0;
    for name in FAMILIES {
        let path = fixture(name).join("expected.json");
        let known: Mistakes = serde_json::from_slice(&fs::read(path)?)?;
        for (mistake, reference) in known.mistakes {
            let theta = |config: &Value| config["rope_theta"].as_f64().unwrap_or(1e4);
            let change: Box<dyn FnOnce(&mut Value)> = match mistake.as_str() {
                "rms_norm_eps_1e-6" => Box::new(|c| c["rms_norm_eps"] = json!(1e-6)),
                "rope_theta_2_percent_off" => {
                    Box::new(move |c| c["rope_theta"] = json!(theta(c) * 1.02))
                }
                "rope_theta_1e4" => Box::new(|c| c["rope_theta"] = json!(1e4)),
                "rope_not_stretched" => Box::new(|c| c["rope_scaling"] = Value::Null),
                "rope_all_stretched" => Box::new(|c| {
                    let factor = c["rope_scaling"]["factor"].clone();
                    c["rope_scaling"] = json!({"rope_type": "linear", "factor": factor});
                }),
                "window_15" => Box::new(|c| c["sliding_window"] = json!(15)),
                "window_17" => Box::new(|c| c["sliding_window"] = json!(17)),
                "window_none" => Box::new(|c| c["sliding_window"] = Value::Null),
                // Mistakes of the code, which no configuration makes.
                _ => continue,
            };
            let folder = folder(name, change)?;
            let error = logit_error(name, folder.path(), true)?;
            assert!(
                error > 10.0 * TOLERANCE && (error / reference - 1.0).abs() < 0.01,
                "{name}, {mistake}: {error}, in transformers {reference}"
            );
            tried += 1;
        }
    }
    assert_eq!(tried, 15);
    Ok(())
}

#[test]
fn an_answer_ends_at_each_of_several_end_tokens() -> Result<()> {
    let folder = folder("llama3", |_| {})?;
    let llm = load(folder.path(), true)?;
    assert_eq!(llm.config().eos, [297, 298]);
    let expected = expected("llama3")?;
    let answers = answer(&llm, &greedy(&expected.prompts, 64), 5)?;
    let ended = answers.iter().filter(|answer| answer.finish == Finish::Eos);
    assert_eq!(ended.count(), 2);
    Ok(())
}
