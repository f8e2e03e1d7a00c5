//! The published lists of tensors: complete files load, and every tensor that is
//! missing, renamed or of another shape is named.
//!
//! The files have real headers and no bytes on the disk behind them.

use std::io::Write;

use serde_json::json;

use super::*;

/// Names and shapes.
type Manifest = Vec<(String, Vec<usize>)>;

/// Names and shapes of a manifest.
fn manifest(file: &str) -> Manifest {
    let path = root_of(file);
    let text = fs_err::read_to_string(path).unwrap();
    (text.lines())
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, shape)| {
            let sides = shape.split('x').filter(|side| !side.is_empty());
            let sides = sides.map(|side| side.parse().unwrap()).collect();
            (name.to_owned(), sides)
        })
        .collect()
}

/// A sparse safetensors file of zeros.
fn write(path: &Path, tensors: &[(String, Vec<usize>)]) {
    let (mut table, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let (dtype, width) = match name {
            n if n.ends_with("num_batches_tracked") || n.ends_with("position_ids") => ("I64", 8),
            _ => ("F16", 2),
        };
        let start = end;
        end += shape.iter().product::<usize>() * width;
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
        table.insert(name.clone(), entry);
    }
    let header = serde_json::to_vec(&table).unwrap();
    let mut file = fs_err::File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes())
        .unwrap();
    file.write_all(&header).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
}

const HF: &str = r#"{"model_type": "clip", "projection_dim": 512, "text_config": {"eos_token_id": 2}, "vision_config": {}}"#;

/// Every manifest with how to open a file of it.
fn families() -> [(&'static str, usize, Option<&'static str>); 3] {
    [
        ("rn50.tsv", 489, Some("RN50-quickgelu")),
        ("vit_b32.tsv", 302, Some("ViT-B-32-quickgelu")),
        ("hf_vit_b32.tsv", 400, None),
    ]
}

/// What checking a file of these tensors says.
fn checked(tensors: &[(String, Vec<usize>)], architecture: Option<&str>) -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("config.json"), HF).unwrap();
    let path = folder.path().join("model.safetensors");
    write(&path, tensors);
    let target = if architecture.is_some() {
        &path
    } else {
        folder.path()
    };
    Checkpoint::open(target, architecture)?.checked().map(drop)
}

#[test]
fn complete_files_of_full_size_fit() {
    for (file, count, architecture) in families() {
        let tensors = manifest(file);
        assert_eq!(tensors.len(), count, "{file}");
        checked(&tensors, architecture).unwrap();
    }
}

#[test]
fn one_wrong_tensor_among_hundreds_is_named() {
    for (file, _, architecture) in families() {
        let good = manifest(file);
        let needed = |name: &str| !name.ends_with("tracked") && !name.ends_with("position_ids");
        for (i, (name, shape)) in good.iter().enumerate() {
            // Some of each kind: a full turn would only repeat itself.
            if !needed(name) || (i % 7 != 0 && name != "logit_scale") {
                continue;
            }
            let wrong = |change: &dyn Fn(&mut Manifest)| {
                let mut tensors = good.clone();
                change(&mut tensors);
                format!("{:#}", checked(&tensors, architecture).unwrap_err())
            };
            let message = wrong(&|tensors| drop(tensors.remove(i)));
            assert!(message.contains(&format!("`{name}`")), "{message}");
            assert!(message.contains("missing"), "{message}");
            let message = wrong(&|tensors| tensors[i].0 = "another".to_owned());
            assert!(message.contains(&format!("`{name}`")), "{message}");
            assert!(message.contains("`another`"), "{message}");
            let message = wrong(&|tensors| tensors[i].1.push(2));
            let mut longer = shape.clone();
            longer.push(2);
            assert!(message.contains(&format!("found {longer:?}")), "{message}");
        }
    }
}

#[test]
fn the_three_scalars_of_openai_and_counters_are_no_obstacle() {
    let mut tensors = manifest("rn50.tsv");
    for name in ["input_resolution", "context_length", "vocab_size"] {
        // Named like a counter so that the file says it is a whole number.
        tensors.push((format!("{name}.num_batches_tracked"), vec![]));
    }
    tensors.push(("attn_mask".to_owned(), vec![77, 77]));
    checked(&tensors, Some("RN50-quickgelu")).unwrap();
}
