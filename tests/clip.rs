//! CLIP as its users meet it: models in every format, image folders, template
//! sets, and the mistakes that a newcomer makes.

use std::{io::Read, path::Path};

use flate2::read::GzDecoder;

use crate::space::{Ran, Space, of};

/// Copies a fixture's files into `to`, unpacked.
fn unpack(name: &str, to: &Path) {
    let root = format!("{}/tests/fixtures/clip/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() || file.starts_with("expected") || file == "gradients.json" {
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        let plain = file.strip_suffix(".gz");
        if plain.is_some() {
            bytes.clear();
            let packed = std::fs::File::open(&path).unwrap();
            GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
        }
        std::fs::write(to.join(plain.unwrap_or(file)), bytes).unwrap();
    }
}

/// A pipeline that encodes texts with the model `path`.
fn texts(path: &str, more: &str) -> String {
    format!(
        r#"
version = 1
name = "formats"
[models.clip]
path = "{path}"
{more}
[nodes.texts]
kind = "clip_encode"
model = "clip"
classes = ["cat", "dog"]
prompts = "a photo of a {{{{ class }}}}"
"#
    )
}

/// The embeddings of a node as f32 numbers.
fn embeddings(space: &Space, node: &str) -> Vec<f32> {
    let shown = space.run(&["show", "p.toml", node, "--to", "out"]);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    let bytes = std::fs::read(space.path().join("out/embeddings.safetensors")).unwrap();
    std::fs::remove_dir_all(space.path().join("out")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let data = tensors.tensor("embeddings").unwrap().data().to_vec();
    (data.as_chunks::<4>().0.iter())
        .map(|b| f32::from_le_bytes(*b))
        .collect()
}

#[test]
fn the_same_weights_give_the_same_items_in_every_format() {
    let space = Space::new();
    unpack("quick", &space.path().join("quick"));
    unpack("bin", &space.path().join("bin"));
    let config = "open_clip_config.json";
    std::fs::copy(
        space.path().join("quick").join(config),
        space.path().join("bin").join(config),
    )
    .unwrap();
    space.write("p.toml", &texts("quick", ""));
    let (ran, happened) = space.exec(&["p.toml"]);
    assert_eq!((ran.code, of(&happened, "texts")), (0, "ran"));
    let first = embeddings(&space, "texts");
    // A folder with PyTorch's file, that file alone, a checkpoint of training.
    for path in [
        "bin/open_clip_pytorch_model.bin",
        "bin/epoch_3.pt",
        "quick/open_clip_model.safetensors",
    ] {
        space.write("p.toml", &texts(path, ""));
        let (ran, happened) = space.exec(&["p.toml"]);
        assert_eq!(ran.code, 0, "{path}: {}", ran.stderr);
        assert_eq!(of(&happened, "texts"), "hit", "{path}: {}", ran.stderr);
    }
    // Another activation is another model, though no tensor differs.
    space.write("p.toml", &texts("quick", ""));
    let file = space.path().join("quick").join(config);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        text.replace("\"quick_gelu\": true", "\"quick_gelu\": false"),
    )
    .unwrap();
    let (ran, happened) = space.exec(&["p.toml"]);
    assert_eq!(
        (ran.code, of(&happened, "texts")),
        (0, "ran"),
        "{}",
        ran.stderr
    );
    assert_ne!(embeddings(&space, "texts"), first);
}

#[test]
fn archives_of_openai_and_folders_of_transformers_run() {
    let space = Space::new();
    for (name, path) in [
        ("openai/resnet", "openai/resnet/model.pt"),
        ("openai/vit", "openai/vit/model.pt"),
        ("hf", "hf"),
        ("hf_gelu", "hf_gelu"),
    ] {
        unpack(name, &space.path().join(name));
        space.write("p.toml", &texts(path, ""));
        let ran = space.run(&["exec", "p.toml"]);
        assert_eq!(ran.code, 0, "{path}: {}", ran.stderr);
        let check = space.run(&["check", "p.toml"]);
        assert_eq!(check.code, 0, "{path}: {}", check.stderr);
    }
}

fn fails(space: &Space, code: i32, parts: &[&str]) -> Ran {
    let ran = space.run(&["exec", "p.toml"]);
    assert_eq!(ran.code, code, "{}", ran.stderr);
    for part in parts {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    ran
}

#[test]
fn mistakes_with_models_are_told_with_their_fix() {
    let space = Space::new();
    unpack("quick", &space.path().join("quick"));
    unpack("hf", &space.path().join("hf"));
    let weights = space.path().join("quick/open_clip_model.safetensors");
    // Weights alone, a name that does not exist, a name that does not fit.
    std::fs::create_dir(space.path().join("alone")).unwrap();
    std::fs::copy(&weights, space.path().join("alone/w.safetensors")).unwrap();
    space.write("p.toml", &texts("alone/w.safetensors", ""));
    fails(
        &space,
        1,
        &["open_clip_config.json", "architecture = \"RN50-quickgelu\""],
    );
    space.write("p.toml", &texts("alone", "architecture = \"RN51\""));
    fails(
        &space,
        3,
        &["there is no architecture `RN51`", "did you mean `RN50`?"],
    );
    space.write("p.toml", &texts("alone", "architecture = \"RN50\""));
    fails(
        &space,
        1,
        &["w.safetensors", "`visual.layer1.1.conv1.weight`", "missing"],
    );
    // A folder of neither kind.
    space.write("p.toml", &texts("alone", ""));
    fails(
        &space,
        3,
        &["is not a model folder", "open_clip_config.json"],
    );
    // Another model of transformers.
    let config = space.path().join("hf/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replacen("\"quick_gelu\"", "\"gelu_new\"", 1)).unwrap();
    space.write("p.toml", &texts("hf", ""));
    fails(
        &space,
        1,
        &[
            "config.json",
            "hidden_act",
            "only \"quick_gelu\" and \"gelu\"",
        ],
    );
    // A file that is no weights.
    space.write("notes.pt", "hello");
    space.write("p.toml", &texts("notes.pt", "architecture = \"RN50\""));
    fails(&space, 1, &["notes.pt"]);
}

/// A small picture in a binary form that every decoder reads: the demo's.
fn picture(space: &Space, path: &str, seed: u8) {
    let path = space.path().join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 40, 30);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    let pixels: Vec<u8> = (0..40 * 30 * 3)
        .map(|i| (i as u8).wrapping_mul(seed).wrapping_add(seed))
        .collect();
    writer.write_image_data(&pixels).unwrap();
    writer.finish().unwrap();
    std::fs::write(path, bytes).unwrap();
}

const FOLDER: &str = r#"
version = 1
name = "folder"
[data.pets]
format = "folder"
path = "pets"
class_names = { n01 = "cat", n02 = "dog" }
[models.clip]
path = "quick"
[nodes.images]
kind = "clip_encode"
model = "clip"
images = "pets"
[nodes.texts]
kind = "clip_encode"
model = "clip"
classes = "pets"
prompt_set = "cifar18"
[nodes.eval]
kind = "zeroshot_eval"
images = "images"
classifier = "texts"
model = "clip"
scale = "model"
"#;

fn pets() -> Space {
    let space = Space::new();
    unpack("quick", &space.path().join("quick"));
    for i in 1..4 {
        picture(&space, &format!("pets/n01/{i}.png"), i);
        picture(&space, &format!("pets/n02/{i}.PNG"), 10 * i);
    }
    space.write("p.toml", FOLDER);
    space
}

#[test]
fn an_image_folder_is_encoded_once_and_only_what_is_new() {
    let space = pets();
    space.write("pets/n01/notes.txt", "not an image");
    let (ran, _) = space.exec(&["p.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("notes.txt"), "{}", ran.stderr);
    let computed = |space: &Space| -> u64 {
        let events = space.events();
        let batches = events
            .iter()
            .filter(|e| e["event"] == "batch" && e["node"] == "images");
        batches.filter_map(|e| e["items"].as_u64()).sum()
    };
    assert_eq!(computed(&space), 6);
    picture(&space, "pets/n02/4.png", 77);
    let (ran, _) = space.exec(&["p.toml"]);
    assert_eq!((ran.code, computed(&space)), (0, 1), "{}", ran.stderr);
    // Eighteen texts for each of two classes, under the names that were given.
    let shown = space.run(&["show", "p.toml", "texts", "--to", "out"]);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    let items = std::fs::read_to_string(space.path().join("out/items.jsonl")).unwrap();
    assert_eq!(items.lines().count(), 36);
    assert!(items.contains("a blurry photo of the dog."), "{items}");
}

#[test]
fn images_that_cannot_be_read_are_all_named_and_the_others_kept() {
    let space = pets();
    for name in ["pets/n01/2.png", "pets/n02/3.PNG"] {
        let path = space.path().join(name);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }
    // Equal bytes, but two files to mend.
    let empty = ["pets/n01/8.png", "pets/n01/9.png"];
    for name in empty {
        space.write(name, "");
    }
    fails(
        &space,
        1,
        &[
            "4 of 8 images cannot be read",
            "n01/8.png",
            "n01/9.png",
            "n01/2.png",
            "n02/3.PNG",
            "hint:",
        ],
    );
    picture(&space, "pets/n01/2.png", 2);
    picture(&space, "pets/n02/3.PNG", 30);
    for name in empty {
        std::fs::remove_file(space.path().join(name)).unwrap();
    }
    let (ran, _) = space.exec(&["p.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let items = space.events();
    let computed: u64 = (items.iter())
        .filter(|e| e["event"] == "batch" && e["node"] == "images")
        .filter_map(|e| e["items"].as_u64())
        .sum();
    assert_eq!(computed, 2, "four were kept");
}

#[test]
fn long_texts_are_cut_with_a_warning_or_refused() {
    let space = Space::new();
    unpack("quick", &space.path().join("quick"));
    let long = |more: &str| {
        let text = texts("quick", "").replace(
            "{{ class }}",
            &format!("{{{{ class }}}}{}", " cat".repeat(90)),
        );
        format!("{text}{more}")
    };
    space.write("p.toml", &long(""));
    let ran = space.run(&["exec", "p.toml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stderr
            .contains("2 of the texts have more than 77 tokens"),
        "{}",
        ran.stderr
    );
    space.write("p.toml", &long("too_long = \"refuse\"\n"));
    fails(&space, 1, &["it has 97 tokens", "the model takes 77"]);
}

#[test]
fn pictures_in_every_mode_are_resized_and_cropped_as_pillow_does() {
    use runner::{
        data::{DataSet, DataSpec, Format},
        digest::FileMemo,
        models::image::{Rgb8, resize_and_crop},
    };
    let fixtures = format!("{}/tests/fixtures", env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let class = folder.path().join("all");
    std::fs::create_dir(&class).unwrap();
    for entry in std::fs::read_dir(format!("{fixtures}/data")).unwrap() {
        let path = entry.unwrap().path();
        let ending = path.extension().and_then(|e| e.to_str());
        if matches!(ending, Some("png" | "jpg" | "webp")) {
            std::fs::copy(&path, class.join(path.file_name().unwrap())).unwrap();
        }
    }
    let spec = DataSpec::new(Format::Folder, folder.path());
    let set = DataSet::open(&spec, &FileMemo::in_memory()).unwrap();
    let split = set.split("").unwrap();
    let rows = std::fs::read(format!("{fixtures}/clip/resize_modes.json")).unwrap();
    let rows: Vec<(String, usize, u32)> = serde_json::from_slice(&rows).unwrap();
    assert!(rows.len() > 200);
    for (name, size, crc) in rows {
        let i = (0..split.len()).find(|i| split.image_name(*i) == format!("all/{name}"));
        let pixels = split.image(i.unwrap()).unwrap();
        let image = Rgb8::new(pixels.width, pixels.height, pixels.rgb).unwrap();
        let mut sum = flate2::Crc::new();
        sum.update(resize_and_crop(&image, size).pixels());
        assert_eq!(sum.sum(), crc, "{name} to {size}");
    }
}

#[test]
fn what_is_remembered_of_weights_depends_on_how_they_were_read() {
    use runner::{
        digest::FileMemo,
        node::{Family, ModelFolder},
    };
    let folder = tempfile::tempdir().unwrap();
    unpack("hf", folder.path());
    // The memory keeps nothing of files that were changed a moment ago.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let parts = |architecture, memo: &FileMemo| {
        let path = folder.path().to_owned();
        let model = ModelFolder::open(path, Family::Clip, architecture, "f32", memo).unwrap();
        model.parts().clone()
    };
    let expected = parts(None, &FileMemo::in_memory());
    // First with a name that does not fit, as a user may, then without it.
    let memo = FileMemo::in_memory();
    assert_ne!(parts(Some("ViT-B-32"), &memo), expected);
    assert_eq!(parts(None, &memo), expected);
}
