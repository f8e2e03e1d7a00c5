//! Keys and values on the device, and attention over them, for CUDA.
//!
//! All rows write their next token to the same column, so a step is one
//! assignment a layer whatever the rows' lengths; a row's own tokens are the
//! columns from its start to the end, and a mask hides the others. Query heads
//! that share a key head are laid along the sequence instead of repeating keys,
//! which the device's attention kernels need and which costs nothing.

use anyhow::Result;
use burn::tensor::{Bool, DType, Device, Tensor, TensorData, activation::softmax};

use super::{config::Config, rope};

/// Columns beyond what the longest row needs, so that moving is rare.
const SLACK: usize = 256;

/// Keys and values of one prompt, [1, `kv_heads`, len, dim] in every layer.
#[derive(Clone, Debug)]
pub(super) struct Prompt {
    layers: Vec<(Tensor<4>, Tensor<4>)>,
    pub(super) len: usize,
}

/// Keys and values of a batch of rows, [rows, `kv_heads`, columns, dim].
#[derive(Debug)]
pub(super) struct Kv {
    layers: Vec<(Tensor<4>, Tensor<4>)>,
    /// The first column of each row.
    starts: Vec<usize>,
    /// The column after the last token, of all rows alike.
    end: usize,
    /// Length of the longest prompt that may come.
    longest_prompt: usize,
    columns: usize,
    window: usize,
}

impl Kv {
    /// Room for `rows` rows of at most `longest` tokens.
    pub(super) fn new(
        config: &Config,
        rows: usize,
        longest: usize,
        longest_prompt: usize,
        dtype: DType,
        device: &Device,
    ) -> Self {
        let columns = longest + SLACK.min(longest);
        let shape = [rows, config.kv_heads, columns, config.head_dim];
        // Zeros, because hidden columns still enter products, and NaN would stay.
        let zeros = || Tensor::zeros(shape, (device, dtype));
        Self {
            layers: (0..config.layers).map(|_| (zeros(), zeros())).collect(),
            starts: vec![longest_prompt; rows],
            end: longest_prompt,
            longest_prompt,
            columns,
            window: config.window.unwrap_or(usize::MAX),
        }
    }

    /// How many tokens a row holds.
    pub(super) fn len(&self, row: usize) -> usize {
        self.end - self.starts[row]
    }

    /// Gives a row to a prompt.
    pub(super) fn seat(&mut self, row: usize, prompt: &Prompt) {
        let columns = self.end - prompt.len..self.end;
        for ((keys, values), (new_keys, new_values)) in self.layers.iter_mut().zip(&prompt.layers) {
            for (store, new) in [(keys, new_keys), (values, new_values)] {
                let [_, heads, _, dim] = store.dims();
                let place = [row..row + 1, 0..heads, columns.clone(), 0..dim];
                store.inplace(|store| store.slice_assign(place, new.clone()));
            }
        }
        self.starts[row] = columns.start;
    }

    /// Keeps these rows only, in this order.
    pub(super) fn retain(&mut self, rows: &[usize], device: &Device) {
        let values: Vec<i32> = rows.iter().map(|&row| row as i32).collect();
        let index = Tensor::<1, burn::tensor::Int>::from_data(
            TensorData::new(values, [rows.len()]),
            (device, DType::I32),
        );
        for (keys, values) in &mut self.layers {
            for store in [keys, values] {
                store.inplace(|store| store.select(0, index.clone()));
            }
        }
        self.starts = rows.iter().map(|&row| self.starts[row]).collect();
    }

    /// Empties the rows that are not `live`, and makes room for one more column
    /// by moving the others to the left if need be.
    pub(super) fn make_room(&mut self, live: &[usize]) {
        for (row, start) in self.starts.iter_mut().enumerate() {
            if live.binary_search(&row).is_err() {
                *start = self.end;
            }
        }
        if self.end < self.columns {
            return;
        }
        let first = self.starts.iter().copied().min().unwrap_or(self.end);
        let shift = first.min(self.end - self.longest_prompt);
        for (keys, values) in &mut self.layers {
            for store in [keys, values] {
                let [rows, heads, _, dim] = store.dims();
                let kept = (store.clone()).slice([0..rows, 0..heads, shift..self.end, 0..dim]);
                let place = [0..rows, 0..heads, 0..self.end - shift, 0..dim];
                store.inplace(|store| store.slice_assign(place, kept));
            }
        }
        for start in &mut self.starts {
            *start -= shift;
        }
        self.end -= shift;
    }

    /// Whether a column is hidden from each row's next token: [rows, 1, 1, columns seen].
    pub(super) fn mask(&self, device: &Device) -> (usize, Tensor<4, Bool>) {
        let first = self.starts.iter().copied().min().unwrap_or(0);
        let seen = self.end + 1 - first;
        let hidden: Vec<bool> = (self.starts.iter())
            .flat_map(|&start| {
                (first..=self.end)
                    .map(move |column| column < start || self.end - column >= self.window)
            })
            .collect();
        let data = TensorData::new(hidden, [self.starts.len(), 1, 1, seen]);
        (first, Tensor::from_data(data, device))
    }

    /// Attention of one new token for each row: `q` [rows, heads, dim] and `k`, `v`
    /// [rows, `kv_heads`, dim], both already turned, to [rows, heads * dim].
    pub(super) fn decode(
        &mut self,
        layer: usize,
        [q, k, v]: [Tensor<3>; 3],
        (first, mask): &(usize, Tensor<4, Bool>),
    ) -> Tensor<2> {
        let [rows, heads, dim] = q.dims();
        let kv_heads = k.dims()[1];
        let group = heads / kv_heads;
        let (end, first) = (self.end, *first);
        let (keys, values) = &mut self.layers[layer];
        let place = [0..rows, 0..kv_heads, end..end + 1, 0..dim];
        for (store, new) in [(&mut *keys, k), (&mut *values, v)] {
            let new = new.reshape([rows, kv_heads, 1, dim]);
            store.inplace(|store| store.slice_assign(place.clone(), new));
        }
        let seen = [0..rows, 0..kv_heads, first..end + 1, 0..dim];
        let keys = keys.clone().slice(seen.clone());
        let values = values.clone().slice(seen);
        let q = q.reshape([rows, kv_heads, group, dim]);
        let mask = (mask.clone()).expand([rows, kv_heads, group, end + 1 - first]);
        attend(q, keys, values, mask).reshape([rows, heads * dim])
    }

    /// Counts the step's token in, after the last layer.
    pub(super) fn advance(&mut self) {
        self.end += 1;
    }
}

/// Prompts in one batch, filled up on the left to the longest.
#[derive(Debug)]
pub(super) struct Prefill {
    lengths: Vec<usize>,
    width: usize,
    mask: Tensor<4, Bool>,
    layers: Vec<(Tensor<4>, Tensor<4>)>,
}

impl Prefill {
    pub(super) fn new(config: &Config, lengths: &[usize], device: &Device) -> Self {
        let width = lengths.iter().copied().max().unwrap_or(0);
        let window = config.window.unwrap_or(usize::MAX);
        let group = config.heads / config.kv_heads;
        let mut hidden = Vec::with_capacity(lengths.len() * width * width);
        for &len in lengths {
            let start = width - len;
            for row in 0..width {
                // Filling sees filling, since a row that sees nothing has no softmax.
                hidden.extend((0..width).map(|column| {
                    column > row || row - column >= window || (column < start && row >= start)
                }));
            }
        }
        let data = TensorData::new(hidden, [lengths.len(), 1, width, width]);
        let mask = Tensor::<4, Bool>::from_data(data, device).repeat_dim(2, group);
        Self {
            lengths: lengths.to_vec(),
            width,
            mask,
            layers: Vec::new(),
        }
    }

    /// The number of a prompt's token `at` in the batch, as of [prompts, width].
    pub(super) fn index(&self, prompt: usize, at: usize) -> usize {
        prompt * self.width + self.width - self.lengths[prompt] + at
    }

    /// All tokens of the batch as positions, and as ids with `filler` on the left.
    pub(super) fn tokens(&self, prompts: &[&[u32]], filler: u32) -> (Vec<u32>, Vec<usize>) {
        let mut ids = Vec::new();
        let mut positions = Vec::new();
        for prompt in prompts {
            let pad = self.width - prompt.len();
            ids.extend((0..pad).map(|_| filler).chain(prompt.iter().copied()));
            positions.extend((0..pad).map(|_| 0).chain(0..prompt.len()));
        }
        (ids, positions)
    }

    /// Attention of the next layer: as [`Kv::decode`] over [prompts * width] tokens.
    pub(super) fn attend(&mut self, [q, k, v]: [Tensor<3>; 3]) -> Tensor<2> {
        let [tokens, heads, dim] = q.dims();
        let kv_heads = k.dims()[1];
        let (prompts, width) = (self.lengths.len(), self.width);
        let group = heads / kv_heads;
        let split = |x: Tensor<3>| x.reshape([prompts, width, kv_heads, dim]).swap_dims(1, 2);
        let (keys, values) = (split(k), split(v));
        let q = (q.reshape([prompts, width, kv_heads, group, dim]))
            .permute([0, 2, 3, 1, 4])
            .reshape([prompts, kv_heads, group * width, dim]);
        let mask = (self.mask.clone()).expand([prompts, kv_heads, group * width, width]);
        let out = attend(q, keys.clone(), values.clone(), mask);
        self.layers.push((keys, values));
        (out.reshape([prompts, kv_heads, group, width, dim]))
            .permute([0, 3, 1, 2, 4])
            .reshape([tokens, heads * dim])
    }

    /// Each prompt's keys and values.
    pub(super) fn finish(self) -> Vec<Prompt> {
        let width = self.width;
        (self.lengths.iter().enumerate())
            .map(|(index, &len)| {
                let own = |x: &Tensor<4>| {
                    let [_, heads, _, dim] = x.dims();
                    (x.clone()).slice([index..index + 1, 0..heads, width - len..width, 0..dim])
                };
                let layers = (self.layers.iter())
                    .map(|(keys, values)| (own(keys), own(values)))
                    .collect();
                Prompt { layers, len }
            })
            .collect()
    }
}

/// Queries, keys and values of [tokens, width], queries and keys turned.
pub(super) fn split(
    qkv: Tensor<2>,
    config: &Config,
    (cos, sin): &(Tensor<3>, Tensor<3>),
) -> [Tensor<3>; 3] {
    let tokens = qkv.dims()[0];
    let heads = config.heads + 2 * config.kv_heads;
    let qkv = qkv.reshape([tokens, heads, config.head_dim]);
    let turning = config.heads + config.kv_heads;
    let turned = rope::turn(qkv.clone().narrow(1, 0, turning), cos, sin);
    [
        turned.clone().narrow(1, 0, config.heads),
        turned.narrow(1, config.heads, config.kv_heads),
        qkv.narrow(1, turning, config.kv_heads),
    ]
}

/// Softmax attention in the rounding order of the reference's plain path.
fn attend(q: Tensor<4>, keys: Tensor<4>, values: Tensor<4>, hidden: Tensor<4, Bool>) -> Tensor<4> {
    let dtype = q.dtype();
    let scale = 1.0 / (q.dims()[3] as f64).sqrt();
    let scores = q.matmul(keys.swap_dims(2, 3)).mul_scalar(scale);
    let scores = (scores.cast(DType::F32)).mask_fill(hidden, f32::NEG_INFINITY);
    softmax(scores, 3).cast(dtype).matmul(values)
}

/// Reads a tensor of any floating type as f32.
pub(super) fn read(tensor: Tensor<2>) -> Result<Vec<f32>> {
    (tensor.cast(DType::F32).try_into_vec_as::<f32>()).map_err(anyhow::Error::msg)
}
