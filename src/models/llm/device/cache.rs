//! Keys and values on the device, and attention over them, for CUDA.
//!
//! All rows write their next tokens to the same columns, so a step is one
//! assignment a layer whatever the rows' lengths. A row sees the columns that
//! hold its own tokens, and a mask hides the others: what came before it, and
//! columns that were filled up where another row had more tokens to read. Query
//! heads that share a key head are laid along the sequence instead of repeating
//! keys, which the device's attention kernels need and which costs nothing.

use burn::tensor::{Bool, DType, Device, Tensor, TensorData, activation::softmax};

use crate::models::llm::{config::Config, rope};

/// Columns beyond what the longest row needs, so that moving is rare and rows
/// may be filled up.
const SLACK: usize = 256;

/// Keys and values of one prompt, [1, `kv_heads`, len, dim] in every layer.
#[derive(Clone, Debug)]
pub(in crate::models::llm) struct Prompt {
    layers: Vec<(Tensor<4>, Tensor<4>)>,
    pub(super) len: usize,
}

/// Keys and values of a batch of rows, [rows, `kv_heads`, columns, dim].
#[derive(Debug)]
pub(in crate::models::llm) struct Kv {
    layers: Vec<(Tensor<4>, Tensor<4>)>,
    rows: Vec<Columns>,
    /// The column after the last token, of all rows alike.
    end: usize,
    /// Length of the longest prompt that may come.
    longest_prompt: usize,
    columns: usize,
    window: usize,
}

/// The columns that hold one row's tokens.
#[derive(Clone, Debug, Default)]
struct Columns(Vec<usize>);

impl Columns {
    fn first(&self) -> Option<usize> {
        self.0.first().copied()
    }
}

/// One step's tokens of all rows, filled up on the left to the same number.
#[derive(Debug)]
pub(super) struct Step {
    /// Tokens of each row.
    pub(super) width: usize,
    /// How many of them are the row's own.
    pub(super) taken: Vec<usize>,
    /// [rows * width].
    pub(super) ids: Vec<u32>,
    /// [rows * width].
    pub(super) positions: Vec<usize>,
    /// The first column that any row sees.
    first: usize,
    /// Whether a column is hidden from each token: [rows, 1, width, columns seen].
    mask: Tensor<4, Bool>,
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
            rows: vec![Columns::default(); rows],
            end: longest_prompt,
            longest_prompt,
            columns,
            window: config.window.unwrap_or(usize::MAX),
        }
    }

    /// Bytes that one row of at most `longest` tokens takes, given those of one token.
    pub(super) fn row_bytes(longest: usize, token_bytes: usize) -> usize {
        (longest.saturating_add(SLACK.min(longest))).saturating_mul(token_bytes)
    }

    /// Gives a row to a prompt.
    pub(in crate::models::llm) fn seat(&mut self, row: usize, prompt: &Prompt) {
        let columns = self.end - prompt.len..self.end;
        for ((keys, values), (new_keys, new_values)) in self.layers.iter_mut().zip(&prompt.layers) {
            for (store, new) in [(keys, new_keys), (values, new_values)] {
                let [_, heads, _, dim] = store.dims();
                let place = [row..row + 1, 0..heads, columns.clone(), 0..dim];
                store.inplace(|store| store.slice_assign(place, new.clone()));
            }
        }
        self.rows[row] = Columns(columns.collect());
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
        self.rows = rows.iter().map(|&row| self.rows[row].clone()).collect();
    }

    /// Plans a step in which every row reads as many of its `waiting` tokens as
    /// there is room for, at least one. `left` says how many tokens a row may
    /// still get, those waiting included; rows without waiting tokens are empty.
    pub(super) fn plan(&mut self, waiting: &[&[u32]], left: &[usize], device: &Device) -> Step {
        for (row, waiting) in self.rows.iter_mut().zip(waiting) {
            if waiting.is_empty() {
                row.0.clear();
            }
        }
        let width = self.width(waiting, left);
        self.make_room(width);
        let taken: Vec<usize> = waiting.iter().map(|ids| ids.len().min(width)).collect();
        let (mut ids, mut positions) = (Vec::new(), Vec::new());
        for ((row, waiting), &own) in self.rows.iter_mut().zip(waiting).zip(&taken) {
            let len = row.0.len();
            // Any token does where there is none; nobody sees it.
            ids.extend(std::iter::repeat_n(0, width - own).chain(waiting[..own].iter().copied()));
            positions.extend(std::iter::repeat_n(0, width - own).chain(len..len + own));
            row.0.extend(self.end + width - own..self.end + width);
        }
        let (first, mask) = self.mask(width, device);
        Step {
            width,
            taken,
            ids,
            positions,
            first,
            mask,
        }
    }

    /// The most tokens at a time for which every row still fits to its end: each
    /// column that a row does not use is one less of its slack.
    fn width(&self, waiting: &[&[u32]], left: &[usize]) -> usize {
        let most = waiting.iter().map(|ids| ids.len()).max().unwrap_or(1);
        let most = most.min(self.columns - self.longest_prompt);
        let rows = self.rows.iter().zip(waiting).zip(left);
        rows.filter(|((_, waiting), _)| !waiting.is_empty())
            .map(|((row, waiting), &left)| {
                let span = self.end - row.first().unwrap_or(self.end);
                self.columns.saturating_sub(span + left) + waiting.len()
            })
            .fold(most, usize::min)
            .max(1)
    }

    /// Makes room for `width` more columns by moving the others to the left if need be.
    fn make_room(&mut self, width: usize) {
        if self.end + width <= self.columns {
            return;
        }
        let first = (self.rows.iter().filter_map(Columns::first)).fold(self.end, usize::min);
        let shift = first.min(self.end - self.longest_prompt);
        for (keys, values) in &mut self.layers {
            for store in [keys, values] {
                let [rows, heads, _, dim] = store.dims();
                let kept = (store.clone()).slice([0..rows, 0..heads, shift..self.end, 0..dim]);
                let place = [0..rows, 0..heads, 0..self.end - shift, 0..dim];
                store.inplace(|store| store.slice_assign(place, kept));
            }
        }
        for column in self.rows.iter_mut().flat_map(|row| &mut row.0) {
            *column -= shift;
        }
        self.end -= shift;
    }

    /// The first column that is seen, and the mask from there on.
    fn mask(&self, width: usize, device: &Device) -> (usize, Tensor<4, Bool>) {
        let first = (self.rows.iter().filter_map(Columns::first)).fold(self.end, usize::min);
        let seen = self.end + width - first;
        let mut hidden = vec![true; self.rows.len() * width * seen];
        for (row, hidden) in self.rows.iter().zip(hidden.chunks_exact_mut(width * seen)) {
            for (token, hidden) in hidden.chunks_exact_mut(seen).enumerate() {
                let own = self.end + token;
                // A row that sees nothing has no softmax.
                hidden[own - first] = false;
                let end = row.0.partition_point(|&column| column <= own);
                let start = end.saturating_sub(self.window);
                for column in &row.0[start..end] {
                    hidden[column - first] = false;
                }
            }
        }
        let data = TensorData::new(hidden, [self.rows.len(), 1, width, seen]);
        (first, Tensor::from_data(data, device))
    }

    /// Attention of a step's tokens: `q` [rows * width, heads, dim] and `k`, `v`
    /// [rows * width, `kv_heads`, dim], both already turned, to
    /// [rows * width, heads * dim].
    pub(super) fn decode(
        &mut self,
        layer: usize,
        [q, k, v]: [Tensor<3>; 3],
        step: &Step,
    ) -> Tensor<2> {
        let [tokens, heads, dim] = q.dims();
        let kv_heads = k.dims()[1];
        let (rows, width, group) = (tokens / step.width, step.width, heads / kv_heads);
        let (end, first) = (self.end + width, step.first);
        let (keys, values) = &mut self.layers[layer];
        let place = [0..rows, 0..kv_heads, self.end..end, 0..dim];
        for (store, new) in [(&mut *keys, k), (&mut *values, v)] {
            let new = new.reshape([rows, width, kv_heads, dim]).swap_dims(1, 2);
            store.inplace(|store| store.slice_assign(place.clone(), new));
        }
        let seen = [0..rows, 0..kv_heads, first..end, 0..dim];
        let keys = keys.clone().slice(seen.clone());
        let values = values.clone().slice(seen);
        let mask = (step.mask.clone().repeat_dim(2, group)).expand([
            rows,
            kv_heads,
            group * width,
            end - first,
        ]);
        grouped(q, keys, values, mask, [rows, width])
    }

    /// Counts the step's tokens in, after the last layer.
    pub(super) fn advance(&mut self, step: &Step) {
        self.end += step.width;
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
        let [_, heads, dim] = q.dims();
        let kv_heads = k.dims()[1];
        let (prompts, width) = (self.lengths.len(), self.width);
        let split = |x: Tensor<3>| x.reshape([prompts, width, kv_heads, dim]).swap_dims(1, 2);
        let (keys, values) = (split(k), split(v));
        let along = heads / kv_heads * width;
        let mask = (self.mask.clone()).expand([prompts, kv_heads, along, width]);
        let out = grouped(q, keys.clone(), values.clone(), mask, [prompts, width]);
        self.layers.push((keys, values));
        out
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

/// Attention of queries [rows * width, heads, dim] over keys and values
/// [rows, `kv_heads`, seen, dim]; the mask is [rows, `kv_heads`, group * width, seen].
fn grouped(
    q: Tensor<3>,
    keys: Tensor<4>,
    values: Tensor<4>,
    hidden: Tensor<4, Bool>,
    [rows, width]: [usize; 2],
) -> Tensor<2> {
    let [tokens, heads, dim] = q.dims();
    let kv_heads = keys.dims()[1];
    let group = heads / kv_heads;
    let q = (q.reshape([rows, width, kv_heads, group, dim]))
        .permute([0, 2, 3, 1, 4])
        .reshape([rows, kv_heads, group * width, dim]);
    let out = attend(q, keys, values, hidden);
    (out.reshape([rows, kv_heads, group, width, dim]))
        .permute([0, 3, 1, 2, 4])
        .reshape([tokens, heads * dim])
}

/// Softmax attention in the rounding order of the reference's plain path.
fn attend(q: Tensor<4>, keys: Tensor<4>, values: Tensor<4>, hidden: Tensor<4, Bool>) -> Tensor<4> {
    let dtype = q.dtype();
    let scale = 1.0 / (q.dims()[3] as f64).sqrt();
    let scores = q.matmul(keys.swap_dims(2, 3)).mul_scalar(scale);
    let scores = (scores.cast(DType::F32)).mask_fill(hidden, f32::NEG_INFINITY);
    softmax(scores, 3).cast(dtype).matmul(values)
}
