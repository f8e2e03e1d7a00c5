//! Parity with bitsandbytes, bit for bit, and files that lie.
//!
//! The fixtures are made by `tests/fixtures/quant/make.py`.

use std::{collections::HashMap, fs, path::Path};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

use super::*;

mod double;
mod eight_bit;
mod files;
mod four_bit;

const TYPES: [(&str, Round); 3] = [
    ("f32", Round::F32),
    ("bf16", Round::Bf16),
    ("f16", Round::F16),
];

/// The tensors of a fixture.
struct Fixture(HashMap<String, (Dtype, Vec<usize>, Vec<u8>)>);

impl Fixture {
    fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(name);
        let bytes = fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.iter().map(|(name, view)| {
            let tensor = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            (name.to_owned(), tensor)
        });
        Self(tensors.collect())
    }

    /// The cases that have a tensor of this name.
    fn cases(&self, tensor: &str) -> Vec<String> {
        let suffix = format!(".{tensor}");
        let mut cases: Vec<String> = (self.0.keys())
            .filter_map(|name| Some(name.strip_suffix(&suffix)?.to_owned()))
            .collect();
        cases.sort();
        assert!(!cases.is_empty());
        cases
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn shape(&self, name: &str) -> [usize; 2] {
        self.0[name].1.clone().try_into().unwrap()
    }

    fn bytes(&self, name: &str) -> &[u8] {
        &self.0[name].2
    }

    fn f32s(&self, name: &str) -> Vec<f32> {
        let (dtype, _, bytes) = &self.0[name];
        let halves = || (bytes.as_chunks::<2>().0.iter()).map(|&bytes| u16::from_le_bytes(bytes));
        match dtype {
            Dtype::F32 => (bytes.as_chunks::<4>().0.iter())
                .map(|&bytes| f32::from_le_bytes(bytes))
                .collect(),
            Dtype::BF16 => halves().map(|x| bf16::from_bits(x).to_f32()).collect(),
            Dtype::F16 => halves().map(|x| f16::from_bits(x).to_f32()).collect(),
            other => panic!("{name} is {other:?}"),
        }
    }

    /// A tensor as a file of weights has it.
    fn raw(&self, name: &str) -> Option<RawTensor> {
        let (dtype, shape, bytes) = self.0.get(name)?;
        Some(RawTensor {
            name: name.to_owned(),
            dtype: format!("{dtype:?}"),
            shape: shape.clone(),
            bytes: bytes.clone(),
        })
    }
}

/// Bits, with one for all NaNs.
fn bits(values: &[f32]) -> Vec<u32> {
    (values.iter())
        .map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() })
        .collect()
}

/// Where two lists differ in bits.
fn differing(a: &[f32], b: &[f32]) -> Vec<usize> {
    let (a, b) = (bits(a), bits(b));
    assert_eq!(a.len(), b.len());
    (0..a.len()).filter(|&i| a[i] != b[i]).collect()
}

fn assert_same(a: &[f32], b: &[f32], what: &str) {
    if let Some(&i) = differing(a, b).first() {
        panic!("{what}: number {i} is {:e} instead of {:e}", a[i], b[i]);
    }
}

fn int8(fixture: &Fixture, case: &str) -> Int8 {
    let name = format!("{case}.weight");
    let shape = fixture.shape(&name);
    let values = fixture.f32s(&name);
    let ins = shape[1];
    Int8::quantize(shape, |r, out| {
        out.copy_from_slice(&values[r * ins..(r + 1) * ins]);
    })
    .unwrap()
}
