//! A decoder's tensors: their names and shapes, and the matrices as files hold them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::DType;
use half::{bf16, f16};

use super::{config::Config, quantize::Quantize};
use crate::models::{
    quant::{Int8, Nf4, Round, Scheme, weight_of},
    weights::{Expected, RawTensor, Weights},
};

/// The table of tokens' vectors.
pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";
/// The last normalisation.
pub(super) const NORM: &str = "model.norm.weight";
/// The map from hidden states to logits, unless the table serves for it.
pub(super) const HEAD: &str = "lm_head.weight";

/// The matrices of a block, in the order of [`Block`].
const MATRICES: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

/// A matrix [outs, ins] as it is held.
pub(super) enum Matrix {
    /// Numbers in full.
    Dense(Dense),
    /// `bitsandbytes`' four bits a number, rounded to a type when they are used.
    Nf4(Nf4, Round),
    /// `bitsandbytes`' `LLM.int8()`, with the magnitude from which an activation is
    /// not rounded.
    Int8(Int8, f32),
}

/// Numbers of one floating type.
#[derive(Debug)]
pub(super) struct Dense {
    /// F32, F16 or BF16.
    pub(super) dtype: DType,
    /// [outs, ins].
    pub(super) shape: [usize; 2],
    bytes: Vec<u8>,
}

/// A block's tensors as they are read.
pub(super) struct Block {
    pub(super) attention_norm: Vec<f32>,
    pub(super) mlp_norm: Vec<f32>,
    pub(super) q: Matrix,
    pub(super) k: Matrix,
    pub(super) v: Matrix,
    pub(super) out: Matrix,
    pub(super) gate: Matrix,
    pub(super) up: Matrix,
    pub(super) down: Matrix,
}

/// Names and shapes of all tensors of a decoder in full precision.
pub(super) fn expected(config: &Config) -> Vec<Expected> {
    let table = vec![config.vocab, config.hidden];
    let mut tensors = vec![
        (EMBEDDING.to_owned(), table.clone()),
        (NORM.to_owned(), vec![config.hidden]),
    ];
    if !config.tied {
        tensors.push((HEAD.to_owned(), table));
    }
    for layer in 0..config.layers {
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            tensors.push((name(layer, norm), vec![config.hidden]));
        }
        for (matrix, shape) in MATRICES.iter().zip(shapes(config)) {
            tensors.push((name(layer, matrix), shape.to_vec()));
        }
    }
    tensors
}

fn name(layer: usize, part: &str) -> String {
    format!("model.layers.{layer}.{part}.weight")
}

/// The shapes of [`MATRICES`].
fn shapes(config: &Config) -> [[usize; 2]; 7] {
    let (hidden, inner) = (config.hidden, config.intermediate);
    let (q, kv) = (
        config.heads * config.head_dim,
        config.kv_heads * config.head_dim,
    );
    [
        [q, hidden],
        [kv, hidden],
        [kv, hidden],
        [hidden, q],
        [inner, hidden],
        [inner, hidden],
        [hidden, inner],
    ]
}

/// Reads a decoder's tensors, each once.
pub(super) struct Reader<'a> {
    config: &'a Config,
    weights: Weights,
    /// Numbers are rounded to this type; F32 leaves them as they are.
    dtype: DType,
    /// What matrices of blocks become when they are read in full.
    quantize: Option<Quantize>,
    /// Matrices that the file holds quantised.
    packed: BTreeSet<String>,
}

impl<'a> Reader<'a> {
    /// Checks that the file holds what the configuration promises, and nothing else.
    pub(super) fn new(
        config: &'a Config,
        mut weights: Weights,
        dtype: DType,
        quantize: Option<Quantize>,
    ) -> Result<Self> {
        if config.tied {
            // Some writers repeat the shared tensor.
            weights.ignore(|name| name == HEAD);
        }
        // Old files hold the frequencies, which follow from the configuration.
        weights.ignore(|name| name.ends_with("rotary_emb.inv_freq"));
        let mut expected = expected(config);
        let mut packed = BTreeSet::new();
        if let Some(quantization) = &config.quantization {
            ensure!(
                quantize.is_none(),
                "the weights are quantised already, as `config.json` says\nhint: leave `quantize` out"
            );
            let skipped = |name: &str| {
                let module = name.strip_suffix(".weight");
                module.is_none_or(|module| quantization.skips(module))
            };
            let is_matrix = |name: &str| name.contains("_proj.");
            let names = expected.iter().map(|(name, _)| name);
            packed.extend(
                names
                    .filter(|name| is_matrix(name) && !skipped(name))
                    .cloned(),
            );
            expected.retain(|(name, _)| !packed.contains(name));
        }
        let absent = packed.iter().find(|name| weights.shape(name).is_none());
        if let Some(name) = absent {
            bail!("the quantised weight `{name}` is missing");
        }
        // Scales and tables stand beside their weight.
        let beside = |found: &str| {
            packed.contains(found) || weight_of(found).is_some_and(|name| packed.contains(&name))
        };
        weights.check_apart(&expected, beside)?;
        Ok(Self {
            config,
            weights,
            dtype,
            quantize,
            packed,
        })
    }

    /// A normalisation's weights, in f32.
    fn vector(&mut self, name: &str) -> Result<Vec<f32>> {
        let dense = self.dense(name, [1, self.config.hidden], &[self.config.hidden])?;
        let mut values = vec![0.0; self.config.hidden];
        dense.row(0, &mut values);
        Ok(values)
    }

    /// A matrix that is never quantised.
    pub(super) fn table(&mut self, name: &str) -> Result<Dense> {
        let shape = [self.config.vocab, self.config.hidden];
        self.dense(name, shape, &shape)
    }

    /// The last normalisation's weights.
    pub(super) fn norm(&mut self) -> Result<Vec<f32>> {
        self.vector(NORM)
    }

    fn dense(&mut self, name: &str, shape: [usize; 2], stored: &[usize]) -> Result<Dense> {
        let raw = self.weights.take_raw(name)?;
        let dtype = match raw.dtype.as_str() {
            "F32" => DType::F32,
            "F16" => DType::F16,
            "BF16" => DType::BF16,
            other => bail!("tensor `{name}` holds {other}, not floating-point numbers"),
        };
        ensure!(raw.shape == stored, "tensor `{name}` changed its shape");
        let dense = Dense {
            dtype,
            shape,
            bytes: raw.bytes,
        };
        Ok(dense.rounded(self.dtype))
    }

    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Matrix> {
        if self.packed.contains(name) {
            return self
                .quantised(name, shape)
                .with_context(|| format!("failed to read the quantised weight `{name}`"));
        }
        let dense = self.dense(name, shape, &shape)?;
        Ok(match self.quantize {
            None => Matrix::Dense(dense),
            Some(how) => how.apply(&dense, self.dtype)?,
        })
    }

    fn quantised(&mut self, name: &str, shape: [usize; 2]) -> Result<Matrix> {
        let quantization = (self.config.quantization.as_ref()).context("nothing is quantised")?;
        let weights = &mut self.weights;
        let mut take = |name: &str| -> Result<Option<RawTensor>> {
            if weights.shape(name).is_none() {
                return Ok(None);
            }
            Ok(Some(weights.take_raw(name)?))
        };
        let (matrix, found) = match quantization.scheme {
            Scheme::Nf4 { compute, .. } | Scheme::Fp4 { compute, .. } => {
                let matrix = Nf4::read(name, &mut take)?;
                let found = matrix.shape();
                // What the user says goes before what the file says.
                let round = match self.dtype {
                    DType::F32 => compute,
                    other => round(other),
                };
                (Matrix::Nf4(matrix, round), found)
            }
            Scheme::Int8 { threshold } => {
                let matrix = Int8::read(name, &mut take)?;
                let found = matrix.shape();
                (Matrix::Int8(matrix, threshold), found)
            }
        };
        ensure!(
            found == shape,
            "its shape is {found:?}, but {shape:?} is expected"
        );
        Ok(matrix)
    }

    /// The tensors of one block.
    pub(super) fn block(&mut self, layer: usize) -> Result<Block> {
        let [q, k, v, out, gate, up, down] = shapes(self.config);
        let names = MATRICES.map(|matrix| name(layer, matrix));
        Ok(Block {
            attention_norm: self.vector(&name(layer, "input_layernorm"))?,
            mlp_norm: self.vector(&name(layer, "post_attention_layernorm"))?,
            q: self.matrix(&names[0], q)?,
            k: self.matrix(&names[1], k)?,
            v: self.matrix(&names[2], v)?,
            out: self.matrix(&names[3], out)?,
            gate: self.matrix(&names[4], gate)?,
            up: self.matrix(&names[5], up)?,
            down: self.matrix(&names[6], down)?,
        })
    }

    /// Ends a strict load.
    pub(super) fn finish(self) -> Result<()> {
        Ok(self.weights.finish()?)
    }
}

/// The type that quantised numbers are rounded to.
pub(super) fn round(dtype: DType) -> Round {
    match dtype {
        DType::F16 => Round::F16,
        DType::BF16 => Round::Bf16,
        _ => Round::F32,
    }
}

impl Dense {
    /// Numbers of one row in f32, which is exact for all three types.
    pub(super) fn row(&self, row: usize, out: &mut [f32]) {
        let ins = self.shape[1];
        let width = self.dtype.size();
        let bytes = &self.bytes[row * ins * width..][..ins * width];
        match self.dtype {
            DType::F16 => (out.iter_mut().zip(bytes.as_chunks().0))
                .for_each(|(out, b)| *out = f16::from_le_bytes(*b).to_f32()),
            DType::BF16 => (out.iter_mut().zip(bytes.as_chunks().0))
                .for_each(|(out, b)| *out = bf16::from_le_bytes(*b).to_f32()),
            _ => (out.iter_mut().zip(bytes.as_chunks().0))
                .for_each(|(out, b)| *out = f32::from_le_bytes(*b)),
        }
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The numbers, little-endian.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The numbers rounded to `dtype`; F32 loses nothing and so changes nothing.
    fn rounded(self, dtype: DType) -> Self {
        if dtype == DType::F32 || dtype == self.dtype {
            return self;
        }
        let (outs, ins) = (self.shape[0], self.shape[1]);
        let mut bytes = Vec::with_capacity(outs * ins * dtype.size());
        let mut row = vec![0.0; ins];
        for i in 0..outs {
            self.row(i, &mut row);
            match dtype {
                DType::F16 => {
                    bytes.extend(row.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()));
                }
                _ => bytes.extend(row.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes())),
            }
        }
        Self {
            dtype,
            shape: self.shape,
            bytes,
        }
    }
}
