//! The attention pool: one query, the mean, over all places of the last map.
//!
//! With a single query the keys and values need not be projected at all. For
//! head h, `q·(W_k` x + `b_k`) = (`W_kᵀ` q)·x + const, and the constant falls out of
//! the softmax; the weighted sum of `W_v` x + `b_v` is `W_v` (Σ a x) + `b_v`. This
//! costs three products per image instead of one and two per place.

use anyhow::Result;
use burn::tensor::{Tensor, activation::softmax};

use super::{
    config::ResnetConfig,
    tensors::Source,
    transformer::{Linear, in_f32},
};
use crate::models::weights::Expected;

const PREFIX: &str = "visual.attnpool";

/// The name of one of the pool's tensors.
pub(super) fn name(part: &str) -> String {
    format!("{PREFIX}.{part}")
}

/// `AttentionPool2d` of `open_clip`.
#[derive(Clone, Debug)]
pub(super) struct AttentionPool {
    /// [side² + 1, c].
    pub(super) position: Tensor<2>,
    pub(super) q: Linear,
    /// [c, c]; its bias cancels.
    pub(super) k: Tensor<2>,
    pub(super) v: Linear,
    pub(super) out: Linear,
    pub(super) heads: usize,
}

impl AttentionPool {
    pub(super) fn load(
        source: &mut Source<'_>,
        config: &ResnetConfig,
        embed: usize,
    ) -> Result<Self> {
        let c = config.features();
        let places = config.side() * config.side() + 1;
        let pool = Self {
            position: source.tensor(&name("positional_embedding"), [places, c])?,
            q: Linear::load(source, &name("q_proj"), c, c)?,
            k: source.tensor(&name("k_proj.weight"), [c, c])?,
            v: Linear::load(source, &name("v_proj"), c, c)?,
            out: Linear::load(source, &name("c_proj"), c, embed)?,
            heads: config.heads,
        };
        Ok(pool)
    }

    /// The places of the last map, [n, h · w, c] → [n, embed].
    pub(super) fn forward(&self, places: Tensor<3>) -> Tensor<2> {
        let [n, _, c] = places.dims();
        let (heads, width) = (self.heads, c / self.heads);
        let mean = places.clone().mean_dim(1);
        let x = Tensor::cat(vec![mean, places], 1) + self.position.clone().unsqueeze();

        let first = x.clone().narrow(1, 0, 1).reshape([n, c]);
        let scale = 1.0 / (width as f64).sqrt();
        let q = (self.q.forward(first) * scale)
            .reshape([n, heads, width])
            .swap_dims(0, 1);
        // [heads, n, width] · [heads, width, c] → [heads, n, c].
        let q = q
            .matmul(self.k.clone().reshape([heads, width, c]))
            .swap_dims(0, 1);
        let attention = softmax_f32(q.matmul(x.clone().swap_dims(1, 2)));
        // [n, heads, c] → [heads, n, c] · [heads, c, width].
        let sums = attention.matmul(x).swap_dims(0, 1);
        let values = sums.matmul(
            self.v
                .weight
                .clone()
                .reshape([heads, width, c])
                .swap_dims(1, 2),
        );
        let values = values.swap_dims(0, 1).reshape([n, c]);
        self.out.forward(values + self.v.bias.clone().unsqueeze())
    }
}

fn softmax_f32(scores: Tensor<3>) -> Tensor<3> {
    in_f32(scores, |scores| softmax(scores, 2))
}

/// Every tensor of the pool.
pub(super) fn expected(config: &ResnetConfig, embed: usize) -> Vec<Expected> {
    let c = config.features();
    let places = config.side() * config.side() + 1;
    let mut all = vec![(format!("{PREFIX}.positional_embedding"), vec![places, c])];
    for (name, out) in [
        ("q_proj", c),
        ("k_proj", c),
        ("v_proj", c),
        ("c_proj", embed),
    ] {
        all.push((format!("{PREFIX}.{name}.weight"), vec![out, c]));
        all.push((format!("{PREFIX}.{name}.bias"), vec![out]));
    }
    all
}
