//! What transformers saved, and files that lie.

use super::*;

/// What transformers saved, and the weight that it was made from.
fn saved(folder: &str) -> (Fixture, Fixture) {
    let open = |folder| Fixture::open(&format!("llm/quantised/{folder}/model.safetensors"));
    (open(folder), open("plain"))
}

#[test]
fn a_file_of_four_bit_weights_is_read_and_could_be_made() {
    let (file, plain) = saved("nf4");
    let mut read = 0;
    for state in file.cases("quant_state.bitsandbytes__nf4") {
        let weight = Nf4::read(&state, |name| Ok(file.raw(name))).unwrap();
        let values = plain.f32s(&state);
        let [outs, ins] = plain.shape(&state);
        assert_eq!(weight.shape(), [outs, ins]);
        assert_eq!((weight.dtype(), weight.blocksize()), (Round::F32, 64));
        let made = Nf4::from_values(&values, [outs, ins], 64, Round::F32).unwrap();
        assert_eq!(made.codes(), weight.codes(), "{state}");
        for (a, b) in made.absmax().iter().zip(weight.absmax()) {
            assert!((a - b).abs() < 0.03 * a, "{state}: {a} {b}");
        }
        let Scales::Nested(theirs) = weight.scales() else {
            panic!("{state} is not quantised twice");
        };
        let made = made.double_quantize().unwrap();
        let Scales::Nested(ours) = made.scales() else {
            panic!("{state} is not quantised twice");
        };
        assert_same(ours.map(), theirs.map(), &state);
        assert!((ours.offset() - theirs.offset()).abs() < 1e-6);
        read += 1;
    }
    assert_eq!(read, 14);
}

#[test]
fn a_file_of_eight_bit_weights_is_read_and_could_be_made() {
    let (file, plain) = saved("int8");
    let modules = file.cases("SCB");
    assert_eq!(modules.len(), 14);
    for module in modules {
        let name = format!("{module}.weight");
        let weight = Int8::read(&name, |name| Ok(file.raw(name))).unwrap();
        assert_eq!(weight, int8(&plain, &module), "{module}");
    }
}

#[test]
fn every_tensor_of_the_files_is_a_weight_or_belongs_to_one() {
    for folder in ["nf4", "int8"] {
        let (file, plain) = saved(folder);
        for name in file.0.keys() {
            let weight = weight_of(name).unwrap_or_else(|| name.clone());
            assert!(plain.has(&weight), "{name} belongs to {weight}");
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/llm/quantised")
            .join(folder)
            .join("config.json");
        let config = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let config = QuantConfig::parse(&config).unwrap().unwrap();
        let scheme = match folder {
            "nf4" => Scheme::Nf4 {
                double: true,
                compute: Round::F32,
            },
            _ => Scheme::Int8 { threshold: 6.0 },
        };
        assert_eq!(config.scheme, scheme);
        assert!(config.skips("lm_head") && !config.skips("model.layers.0.mlp.up_proj"));
    }
}

#[test]
fn weights_of_every_kind_are_read_as_bitsandbytes_reads_them() {
    let file = Fixture::open("quant/files.safetensors");
    for (case, dtype) in [
        ("fp4", Round::F16),
        ("nested", Round::Bf16),
        ("stored_as_bf16", Round::F32),
    ] {
        let name = format!("{case}.weight");
        let weight = Nf4::read(&name, |name| Ok(file.raw(name))).unwrap();
        assert_eq!(weight.dtype(), dtype);
        let expected = format!("{case}.expected");
        assert_eq!(weight.shape(), file.shape(&expected));
        let values = weight.dequantize(weight.dtype());
        assert_same(&values, &file.f32s(&expected), case);
    }
}

/// Reads a small weight after a change to its tensors.
fn read_changed(change: impl Fn(&mut HashMap<String, RawTensor>)) -> Result<Nf4> {
    let raw = |dtype: &str, shape: &[usize], bytes: Vec<u8>| RawTensor {
        name: String::new(),
        dtype: dtype.to_owned(),
        shape: shape.to_vec(),
        bytes,
    };
    let floats = |values: &[f32]| raw("F32", &[values.len()], bytes(values));
    let state = br#"{"quant_type": "nf4", "blocksize": 32, "dtype": "float32", "shape": [3, 25],
        "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.5}"#;
    let mut tensors = HashMap::from([
        ("w".to_owned(), raw("U8", &[38, 1], vec![0x7f; 38])),
        ("w.absmax".to_owned(), raw("U8", &[3], vec![0, 127, 255])),
        ("w.quant_map".to_owned(), floats(&NF4)),
        ("w.nested_quant_map".to_owned(), floats(&dynamic_map())),
        ("w.nested_absmax".to_owned(), floats(&[0.25])),
        (
            "w.quant_state.bitsandbytes__nf4".to_owned(),
            raw("U8", &[state.len()], state.to_vec()),
        ),
    ]);
    change(&mut tensors);
    Nf4::read("w", |name| Ok(tensors.get(name).cloned()))
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

#[test]
fn a_weight_is_read_by_rows_from_any_position() {
    let weight = read_changed(|_| {}).unwrap();
    let all = weight.dequantize(Round::F32);
    // Codes 7 and 15: nothing, and the scale itself.
    assert_eq!(
        all[..4],
        [0.0, 0.25f32.mul_add(-0.99296875, 0.5), 0.0, all[1]]
    );
    assert_eq!((all[33], all[65]), (0.5, 0.75));
    for rows in [0..0, 0..1, 1..2, 2..3, 1..3, 0..3] {
        let mut out = vec![0.0; rows.len() * 25];
        weight
            .dequantize_rows(rows.clone(), Round::F32, &mut out)
            .unwrap();
        assert_same(&out, &all[rows.start * 25..rows.end * 25], "rows");
    }
    #[expect(clippy::reversed_empty_ranges, reason = "a mistake is made on purpose")]
    for rows in [0..4, 3..4, 2..1] {
        let error = weight.dequantize_rows(rows, Round::F32, &mut [0.0; 25]);
        assert!(error.unwrap_err().to_string().contains("has no rows"));
    }
    assert!(
        weight
            .dequantize_rows(0..1, Round::F32, &mut [0.0; 24])
            .is_err()
    );
}

#[test]
fn codes_may_be_stored_under_another_type() {
    let weight = read_changed(|tensors| {
        let codes = tensors.get_mut("w").unwrap();
        codes.dtype = "BF16".to_owned();
        codes.shape = vec![19, 1];
    });
    assert_eq!(weight.unwrap(), read_changed(|_| {}).unwrap());
}

#[test]
fn every_lie_about_a_four_bit_weight_is_named() {
    let state = "w.quant_state.bitsandbytes__nf4";
    let with_state = |from: &'static str, to: &'static str| {
        move |tensors: &mut HashMap<String, RawTensor>| {
            let tensor = tensors.get_mut(state).unwrap();
            let text = String::from_utf8(tensor.bytes.clone()).unwrap();
            tensor.bytes = text.replace(from, to).into_bytes();
            tensor.shape = vec![tensor.bytes.len()];
        }
    };
    let cut = |name: &'static str| {
        move |tensors: &mut HashMap<String, RawTensor>| {
            tensors.get_mut(name).unwrap().bytes.pop();
        }
    };
    let refused = |what: &str, change: &dyn Fn(&mut HashMap<String, RawTensor>), says: &str| {
        let error = format!("{:#}", read_changed(change).unwrap_err());
        assert!(error.contains(says), "{what}: {error}");
    };
    for name in [
        "w",
        "w.absmax",
        "w.quant_map",
        "w.nested_quant_map",
        "w.nested_absmax",
        state,
    ] {
        let says = format!("tensor `{name}` is missing");
        refused("missing", &|tensors| drop(tensors.remove(name)), &says);
        let retype = |tensors: &mut HashMap<String, RawTensor>| {
            tensors.get_mut(name).unwrap().dtype = "I64".to_owned();
        };
        refused("type", &retype, &format!("tensor `{name}`: expected"));
    }
    for name in ["w", "w.absmax", "w.quant_map", "w.nested_absmax"] {
        refused("cut", &cut(name), &format!("tensor `{name}`: expected"));
    }
    let shapes = [
        ("[3, 26]", "tensor `w`: expected 39 bytes, found 38"),
        ("[3, 90]", "tensor `w.absmax`: expected shape [9]"),
        ("[0, 25]", "shape [0, 25] cannot be quantised"),
        ("[4294967296, 4294967296]", "cannot be quantised"),
        ("[18446744073709551615, 2]", "cannot be quantised"),
        ("[9223372036854775807, 1]", "expected shape"),
    ];
    for (shape, says) in shapes {
        refused(shape, &with_state("[3, 25]", shape), says);
    }
    refused(
        "blocks",
        &with_state("32,", "64,"),
        "tensor `w.absmax`: expected shape [2]",
    );
    refused(
        "nothing nested",
        &with_state("\"nested_blocksize\": 256,", ""),
        "field `nested_offset`",
    );
    let long = |tensors: &mut HashMap<String, RawTensor>| {
        let tensor = tensors.get_mut(state).unwrap();
        tensor.bytes = vec![b'['; 1 << 20];
        tensor.shape = vec![1 << 20];
    };
    refused("long", &long, "too many for a state");
    let deep = |tensors: &mut HashMap<String, RawTensor>| {
        let tensor = tensors.get_mut(state).unwrap();
        tensor.bytes = vec![b'['; 4000];
        tensor.shape = vec![4000];
    };
    refused("deep", &deep, "not a JSON object");
    let infinite = |tensors: &mut HashMap<String, RawTensor>| {
        tensors.get_mut("w.nested_absmax").unwrap().bytes = bytes(&[f32::INFINITY]);
    };
    refused(
        "infinite",
        &infinite,
        "tensor `w.nested_absmax`: number 0 is not finite",
    );
    let both = |tensors: &mut HashMap<String, RawTensor>| {
        let tensor = tensors[state].clone();
        tensors.insert("w.quant_state.bitsandbytes__fp4".to_owned(), tensor);
    };
    refused("both", &both, "exclude each other");
}

#[test]
fn every_lie_about_an_eight_bit_weight_is_named() {
    let read = |dtype: &str, shape: &[usize], scales: &[f32], format: u8| {
        let tensor = |dtype: &str, shape: &[usize], bytes: Vec<u8>| RawTensor {
            name: String::new(),
            dtype: dtype.to_owned(),
            shape: shape.to_vec(),
            bytes,
        };
        let tensors = HashMap::from([
            ("m.weight", tensor(dtype, shape, vec![0; 6])),
            ("m.SCB", tensor("F32", &[scales.len()], bytes(scales))),
            ("m.weight_format", tensor("U8", &[], vec![format])),
        ]);
        Int8::read("m.weight", |name| Ok(tensors.get(name).cloned())).map_err(|e| format!("{e:#}"))
    };
    let two = [1.0, 2.0];
    assert_eq!(read("I8", &[2, 3], &two, 0).unwrap().scales(), two);
    for (result, says) in [
        (
            read("U8", &[2, 3], &two, 0),
            "tensor `m.weight`: expected I8, found U8",
        ),
        (
            read("I8", &[6], &two, 0),
            "tensor `m.weight`: expected two dimensions",
        ),
        (
            read("I8", &[2, 4], &two, 0),
            "tensor `m.weight`: expected 8 bytes, found 6",
        ),
        (read("I8", &[2, 0], &two, 0), "cannot be quantised"),
        (read("I8", &[2, usize::MAX], &two, 0), "cannot be quantised"),
        (
            read("I8", &[3, 2], &two, 0),
            "tensor `m.SCB`: expected shape [3], found [2]",
        ),
        (
            read("I8", &[2, 3], &[1.0, f32::NAN], 0),
            "tensor `m.SCB`: number 1 is not finite",
        ),
        (
            read("I8", &[2, 3], &two, 2),
            "tensor `m.weight_format`: only rows",
        ),
    ] {
        let error = result.unwrap_err();
        assert!(error.contains(says), "{error}");
    }
    let error = Int8::read("m.bias", |_| Ok(None)).unwrap_err().to_string();
    assert!(error.contains("`m.bias` is no weight"), "{error}");
}

#[test]
fn no_byte_of_a_state_can_do_harm() {
    let name = "w.quant_state.bitsandbytes__nf4";
    let mut read = 0;
    for at in 0..170 {
        for byte in [0, b'0', b'9', b'-', b'e', b'"', b'[', b'}', 0xff] {
            let weight = read_changed(|tensors| {
                if let Some(place) = tensors.get_mut(name).unwrap().bytes.get_mut(at) {
                    *place = byte;
                }
            });
            if let Ok(weight) = weight {
                assert_eq!(weight.dequantize(Round::F32).len() / 2, 75 / 2);
                read += 1;
            }
        }
    }
    // Blanks, other digits of the offset, and what is not changed.
    assert!(read < 400, "{read}");
}
