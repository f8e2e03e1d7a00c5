//! Models of full size whose weights follow from a rule, for benchmarks and for
//! tests against the reference: nobody has to store or fetch them.
//!
//! `tests/fixtures/clip/full.py` states the rule and computes the same bits. The
//! scales keep activations in range through all layers.

use std::path::Path;

use anyhow::Result;

use super::{
    config::{self, CONFIG_FILE, Config},
    folder::{WEIGHTS_FILE, expected},
};
use crate::models::weights::{RawTensor, Tensor, write};

/// Writes a folder in `open_clip`'s layout with a model of the `architecture`
/// of that name, in f32.
///
/// # Errors
/// When there is no such architecture or writing fails.
pub fn write_random(dest: &Path, architecture: &str) -> Result<()> {
    let config = config::named(architecture)?;
    let names = names(&config);
    let tensors = (expected(&config).into_iter())
        .chain([("logit_scale".to_owned(), vec![])])
        .map(|(name, shape)| Tensor {
            name,
            dtype: "F32".to_owned(),
            shape,
            width: 4,
        })
        .collect();
    fs_err::create_dir_all(dest)?;
    write(&dest.join(WEIGHTS_FILE), tensors, |tensor| {
        let number = names.partition_point(|name| *name < tensor.name);
        Ok(RawTensor {
            name: tensor.name.clone(),
            dtype: tensor.dtype.clone(),
            shape: tensor.shape.clone(),
            bytes: bytes(&tensor.name, number as u64, &tensor.shape),
        })
    })?;
    let config = serde_json::to_string_pretty(&config::to_open_clip(&config)?)?;
    fs_err::write(dest.join(CONFIG_FILE), config + "\n")?;
    Ok(())
}

/// All tensors' names in the order of their numbers.
fn names(config: &Config) -> Vec<String> {
    let mut names: Vec<String> = expected(config).into_iter().map(|(name, _)| name).collect();
    names.push("logit_scale".to_owned());
    names.sort_unstable();
    names
}

/// Little-endian elements of tensor `number`.
fn bytes(name: &str, number: u64, shape: &[usize]) -> Vec<u8> {
    let (centre, scale) = spread(name, shape);
    let value = |i: u64| {
        let h = ((number << 32) + i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let h = (h ^ (h >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let unit = ((h >> 40) as i32 - (1 << 23)) as f32 / (1 << 23) as f32;
        unit * scale + centre
    };
    let count = shape.iter().product::<usize>() as u64;
    (0..count).flat_map(|i| value(i).to_le_bytes()).collect()
}

/// Centre and half the width of a tensor's values; the first rule that fits.
fn spread(name: &str, shape: &[usize]) -> (f32, f32) {
    let fan = match name {
        "text_projection" | "visual.proj" => shape[0],
        _ => shape.iter().skip(1).product(),
    };
    let preserving = |variance: f32| (0.0, (variance / fan as f32).sqrt());
    let in_layer = name.starts_with("visual.layer");
    match name {
        "logit_scale" => (4.605_170_2, 0.0),
        _ if name.ends_with("running_var") => (1.0, 0.5),
        _ if name.ends_with("running_mean") => (0.125, 0.125),
        _ if in_layer && name.ends_with("bn3.weight") => (0.5, 0.125),
        _ if shape.len() == 1 && name.ends_with(".weight") => (1.0, 0.25),
        "visual.attnpool.positional_embedding" => (0.0, 0.125),
        _ if name.ends_with("bias") => (0.0, 0.125),
        _ if name.ends_with("positional_embedding") => (0.0, 0.5),
        "token_embedding.weight" | "visual.class_embedding" => (0.0, 1.0),
        _ if name.starts_with("visual.conv") || name.ends_with("in_proj_weight") => {
            preserving(12.0)
        }
        _ if name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight") => preserving(24.0),
        _ if in_layer && name.contains("conv") => preserving(5.0),
        _ => preserving(3.0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_rule_gives_the_bits_of_the_reference() {
        let path = format!(
            "{}/tests/fixtures/clip/full.json",
            env!("CARGO_MANIFEST_DIR")
        );
        let file: Value = serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap();
        for (model, architecture) in [
            ("rn50", "RN50-quickgelu"),
            ("vit_b32", "ViT-B-32-quickgelu"),
        ] {
            let config = config::named(architecture).unwrap();
            let names = names(&config);
            let shapes = expected(&config);
            let tensors = file[model]["tensors"].as_object().unwrap();
            assert!(tensors.len() > 5);
            for (name, facts) in tensors {
                let number = names.iter().position(|n| n == name).unwrap();
                assert_eq!(facts["number"], number);
                let shape = shapes.iter().find(|(n, _)| n == name);
                let bytes = bytes(name, number as u64, shape.map_or(&[], |(_, shape)| shape));
                let mut sum = flate2::Crc::new();
                sum.update(&bytes);
                assert_eq!(facts["crc32"], sum.sum(), "{name}");
            }
        }
    }
}
