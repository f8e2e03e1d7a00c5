//! A linear map without bias on a device.
//!
//! Weights lie as [out, in], as in the file, which is what vector-matrix kernels
//! read best. Quantised ones are expanded once where memory allows; where it
//! does not, they stay as they are and are expanded for each use.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::models::{
    llm::tensors::{Dense, Matrix},
    quant::{Int8, Nf4, Round},
};

/// Maps rows [rows, in] to [rows, out].
#[derive(Debug)]
pub(super) struct Linear(Vec<Part>);

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are of that variant")]
enum Part {
    /// [in, out], a view of the weights as they lie.
    Dense(Tensor<2>),
    Nf4(Box<PackedNf4>),
    Int8(Box<PackedInt8>),
}

/// A matrix on a device.
enum Held {
    /// [out, in].
    Full(Tensor<2>),
    Packed(Part),
}

/// How the weights of one model go to a device.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) device: Device,
    /// The type of weights and activations.
    pub(super) dtype: DType,
    /// Bytes left for weights that are expanded.
    pub(super) room: u64,
}

impl Place {
    /// A tensor of `bytes` in `stored`, turned to this place's type.
    pub(super) fn tensor(&self, dense: Dense) -> Tensor<2> {
        let (stored, shape) = (dense.dtype, dense.shape);
        let data = TensorData::from_bytes_vec(dense.into_bytes(), shape, stored);
        let tensor = Tensor::<2>::from_data(data, (&self.device, stored));
        if stored == self.dtype {
            tensor
        } else {
            tensor.cast(self.dtype)
        }
    }

    /// A matrix as it is held here: in full where there is room.
    fn part(&mut self, matrix: Matrix) -> Held {
        match matrix {
            Matrix::Dense(matrix) => {
                self.fits(matrix.shape.iter().product());
                Held::Full(self.tensor(matrix))
            }
            Matrix::Nf4(matrix, round) => {
                let fits = self.fits(matrix.shape().iter().product());
                match PackedNf4::new(&matrix, round, self) {
                    Some(packed) if fits => Held::Full(packed.expand()),
                    Some(packed) => Held::Packed(Part::Nf4(Box::new(packed))),
                    None => Held::Full(self.expanded(matrix.dequantize(round), matrix.shape())),
                }
            }
            Matrix::Int8(matrix, _) => {
                let fits = self.fits(matrix.shape().iter().product());
                match PackedInt8::new(&matrix, self) {
                    Some(packed) if fits => Held::Full(packed.expand()),
                    Some(packed) => Held::Packed(Part::Int8(Box::new(packed))),
                    None => {
                        let numbers = matrix.dequantize(Round::F32);
                        Held::Full(self.expanded(numbers, matrix.shape()))
                    }
                }
            }
        }
    }

    /// Numbers in f32, turned to this place's type.
    fn expanded(&self, numbers: Vec<f32>, shape: [usize; 2]) -> Tensor<2> {
        let data = TensorData::new(numbers, shape);
        Tensor::<2>::from_data(data, (&self.device, DType::F32)).cast(self.dtype)
    }

    /// Whether `numbers` more numbers may be held in full; counts them in.
    fn fits(&mut self, numbers: usize) -> bool {
        let bytes = (numbers * self.dtype.size()) as u64;
        let fits = bytes <= self.room;
        if fits {
            self.room -= bytes;
        }
        fits
    }
}

impl Linear {
    /// From weights [out, in] that lie one below the other; neighbours in full
    /// become one matrix.
    pub(super) fn new(matrices: Vec<Matrix>, place: &mut Place) -> Self {
        let mut parts: Vec<Part> = Vec::new();
        let mut dense: Vec<Tensor<2>> = Vec::new();
        for matrix in matrices {
            match place.part(matrix) {
                Held::Full(weight) => dense.push(weight),
                Held::Packed(part) => {
                    flush(&mut dense, &mut parts);
                    parts.push(part);
                }
            }
        }
        flush(&mut dense, &mut parts);
        Self(parts)
    }

    /// From a table that something else holds too.
    pub(super) fn over(table: Tensor<2>) -> Self {
        Self(vec![Part::of(table)])
    }

    /// Maps rows [rows, in] to [rows, out].
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let one = |part: &Part, x: Tensor<2>| match part {
            Part::Dense(weight) => x.matmul(weight.clone()),
            Part::Nf4(packed) => x.matmul(packed.expand().transpose()),
            Part::Int8(packed) => x.matmul(packed.expand().transpose()),
        };
        match self.0.as_slice() {
            [part] => one(part, x),
            parts => Tensor::cat(parts.iter().map(|part| one(part, x.clone())).collect(), 1),
        }
    }
}

/// Makes one part of all matrices in full that wait.
fn flush(dense: &mut Vec<Tensor<2>>, parts: &mut Vec<Part>) {
    if !dense.is_empty() {
        parts.push(Part::of(Tensor::cat(std::mem::take(dense), 0)));
    }
}

impl Part {
    /// From weights [out, in].
    fn of(weight: Tensor<2>) -> Self {
        Self::Dense(weight.transpose())
    }
}

/// NF4 codes, eight to a word.
#[derive(Debug)]
struct PackedNf4 {
    /// [words].
    words: Tensor<1, Int>,
    /// [blocks, 1].
    absmax: Tensor<2>,
    /// [16].
    code: Tensor<1>,
    shape: [usize; 2],
    round: DType,
    dtype: DType,
}

/// Where the numbers of a word of four bytes lie: in each byte the high half first.
const NIBBLES: [i32; 8] = [4, 0, 12, 8, 20, 16, 28, 24];

impl PackedNf4 {
    /// Nothing for a matrix that does not fill words and blocks evenly.
    fn new(matrix: &Nf4, round: Round, place: &Place) -> Option<Self> {
        let shape = matrix.shape();
        let numbers: usize = shape.iter().product();
        let block = matrix.blocksize();
        if !numbers.is_multiple_of(8) || !numbers.is_multiple_of(block) {
            return None;
        }
        let words = words(matrix.codes());
        let count = words.len();
        let absmax = matrix.absmax();
        let blocks = absmax.len();
        let float = |values: Vec<f32>, shape: [usize; 2]| {
            let data = TensorData::new(values, shape);
            Tensor::<2>::from_data(data, (&place.device, DType::F32))
        };
        Some(Self {
            words: Tensor::from_data(TensorData::new(words, [count]), (&place.device, DType::I32)),
            absmax: float(absmax, [blocks, 1]),
            code: float(matrix.table().to_vec(), [1, 16]).reshape([16]),
            shape,
            round: dtype_of(round),
            dtype: place.dtype,
        })
    }

    /// The weights [out, in]: code · absmax in f32, rounded to the type that the
    /// weights had before they were quantised.
    fn expand(&self) -> Tensor<2> {
        let numbers = NIBBLES.map(|shift| {
            let codes = (self.words.clone())
                .bitwise_right_shift_scalar(shift)
                .bitwise_and_scalar(15);
            self.code.clone().select(0, codes)
        });
        let numbers = Tensor::stack::<2>(numbers.to_vec(), 1);
        let [blocks, _] = self.absmax.dims();
        let total: usize = self.shape.iter().product();
        let numbers = numbers.reshape([blocks, total / blocks]) * self.absmax.clone();
        numbers
            .cast(self.round)
            .cast(self.dtype)
            .reshape(self.shape)
    }
}

/// `LLM.int8()` weights, four to a word.
///
/// Activations are not rounded here: the reference rounds them to eight bits to
/// use integer units, and doing so with floating-point products would only cost.
#[derive(Debug)]
struct PackedInt8 {
    words: Tensor<1, Int>,
    /// [out, 1].
    scales: Tensor<2>,
    shape: [usize; 2],
    dtype: DType,
}

impl PackedInt8 {
    fn new(matrix: &Int8, place: &Place) -> Option<Self> {
        let shape = matrix.shape();
        if !shape.iter().product::<usize>().is_multiple_of(4) {
            return None;
        }
        let bytes: Vec<u8> = matrix.codes().iter().map(|x| x.cast_unsigned()).collect();
        let words = words(&bytes);
        let count = words.len();
        let scales: Vec<f32> = matrix.scales().to_vec();
        let data = TensorData::new(scales, [shape[0], 1]);
        Some(Self {
            words: Tensor::from_data(TensorData::new(words, [count]), (&place.device, DType::I32)),
            scales: Tensor::from_data(data, (&place.device, DType::F32)),
            shape,
            dtype: place.dtype,
        })
    }

    /// The weights [out, in]: integer · scale / 127.
    fn expand(&self) -> Tensor<2> {
        let numbers = [24, 16, 8, 0].map(|shift| {
            // To the top and back, which carries the sign.
            (self.words.clone())
                .bitwise_left_shift_scalar(shift)
                .bitwise_right_shift_scalar(24)
        });
        let numbers = Tensor::stack::<2>(numbers.to_vec(), 1);
        let numbers = numbers.float().cast(DType::F32).reshape(self.shape);
        (numbers * (self.scales.clone().mul_scalar(1.0 / 127.0))).cast(self.dtype)
    }
}

/// Bytes as little-endian words.
fn words(bytes: &[u8]) -> Vec<i32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|b| i32::from_le_bytes(*b))
        .collect()
}

fn dtype_of(round: Round) -> DType {
    match round {
        Round::F32 => DType::F32,
        Round::F16 => DType::F16,
        Round::Bf16 => DType::BF16,
    }
}
