//! The text tower: a causal transformer.
//!
//! Radford et al. 2021, section 2.4; `open_clip` `transformer.py`. No mask hides
//! the padding: causality does, so texts run only to their last needed token.

use anyhow::Result;
use burn::tensor::{Int, Tensor, TensorData};

use super::{
    config::{Config, TextConfig},
    runner::Runner,
    tensors::Source,
    tokenizer::Tokens,
    transformer::{Block, BlockNames, Norm, causal_mask},
};
use crate::models::weights::Expected;

/// Tokens to hidden states: embedding, positions, some of the blocks.
#[derive(Clone, Debug)]
pub(super) struct TextTrunk {
    /// [vocabulary, width].
    embedding: Tensor<2>,
    /// [context, width].
    position: Tensor<2>,
    blocks: Vec<Block>,
}

impl TextTrunk {
    /// The first `blocks` blocks and what is below them.
    pub(super) fn load(source: &mut Source<'_>, config: &Config, blocks: usize) -> Result<Self> {
        let TextConfig {
            vocabulary,
            context,
            ref transformer,
        } = config.text;
        let width = transformer.width;
        Ok(Self {
            embedding: source.tensor("token_embedding.weight", [vocabulary, width])?,
            position: source.tensor("positional_embedding", [context, width])?,
            blocks: Block::load_all(source, BlockNames::TEXT, transformer, 0..blocks)?,
        })
    }

    /// The most places that a text can have.
    pub(super) fn context(&self) -> usize {
        self.position.dims()[0]
    }

    /// The first `t` tokens of each text → hidden states [n, t, width].
    ///
    /// `trace` is called with the embeddings and after each block.
    pub(super) fn trace(
        &self,
        texts: &[&Tokens],
        t: usize,
        trace: impl FnMut(&Tensor<3>),
    ) -> Tensor<3> {
        let ids: Vec<i32> = (texts.iter())
            .flat_map(|text| {
                let padded = text.ids.iter().copied().chain(std::iter::repeat(0));
                padded.take(t).map(|id| id as i32)
            })
            .collect();
        let n = texts.len();
        let embedded = self.embed(ids);
        let width = embedded.dims()[1];
        self.trace_embedded(embedded.reshape([n, t, width]), trace)
    }

    /// Ids of tokens → their embeddings, [ids, width].
    pub(super) fn embed(&self, ids: Vec<i32>) -> Tensor<2> {
        let n = ids.len();
        let ids = TensorData::new(ids, [n]);
        let ids = Tensor::<1, Int>::from_data(ids, &self.embedding.device());
        self.embedding.clone().select(0, ids)
    }

    /// Embeddings without positions → hidden states, both [n, t, width]; `trace`
    /// is that of [`TextTrunk::trace`].
    pub(super) fn trace_embedded(
        &self,
        x: Tensor<3>,
        mut trace: impl FnMut(&Tensor<3>),
    ) -> Tensor<3> {
        let t = x.dims()[1];
        let mut x = x + self.position.clone().narrow(0, 0, t).unsqueeze();
        trace(&x);
        let mask = causal_mask(t, &self.position.device());
        for block in &self.blocks {
            x = block.forward(x, Some(&mask));
            trace(&x);
        }
        x
    }

    /// As [`TextTrunk::trace`].
    pub(super) fn forward(&self, texts: &[&Tokens], t: usize) -> Tensor<3> {
        self.trace(texts, t, |_| {})
    }
}

/// Hidden states to features: the end's place, normalization, projection.
#[derive(Clone, Debug)]
pub(super) struct TextHead {
    norm: Norm,
    /// [width, embed], multiplied from the right.
    projection: Tensor<2>,
}

impl TextHead {
    pub(super) fn load(source: &mut Source<'_>, config: &Config) -> Result<Self> {
        let width = config.text.transformer.width;
        Ok(Self {
            norm: Norm::load(source, "ln_final", width)?,
            projection: source.tensor("text_projection", [width, config.embed_dim])?,
        })
    }

    /// [n, t, width] and each text's end → [n, embed].
    pub(super) fn forward(&self, x: Tensor<3>, ends: &[usize]) -> Tensor<2> {
        let [n, t, width] = x.dims();
        let rows: Vec<i32> = ends
            .iter()
            .enumerate()
            .map(|(i, end)| (i * t + end) as i32)
            .collect();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [n]), &x.device());
        let x: Tensor<2> = x.reshape([n * t, width]).select(0, rows);
        self.norm.forward(x).matmul(self.projection.clone())
    }
}

/// The whole text tower.
#[derive(Clone, Debug)]
pub(super) struct TextTower {
    pub(super) trunk: TextTrunk,
    pub(super) head: TextHead,
}

impl TextTower {
    pub(super) fn load(source: &mut Source<'_>, config: &Config) -> Result<Self> {
        Ok(Self {
            trunk: TextTrunk::load(source, config, config.text.transformer.layers)?,
            head: TextHead::load(source, config)?,
        })
    }

    /// Texts → features [n, embed], computed to the last text's end, or a little
    /// further where `runner` wants it.
    pub(super) fn forward(&self, texts: &[&Tokens], runner: &Runner) -> Tensor<2> {
        let ends: Vec<usize> = texts.iter().map(|text| text.end()).collect();
        let t = ends.iter().max().map_or(1, |end| end + 1);
        let t = runner.text_places(t, self.trunk.context());
        self.head.forward(self.trunk.forward(texts, t), &ends)
    }
}

/// Every tensor of the text tower.
pub(super) fn expected(config: &Config) -> Vec<Expected> {
    let TextConfig {
        vocabulary,
        context,
        ref transformer,
    } = config.text;
    let width = transformer.width;
    let mut all = vec![
        ("token_embedding.weight".to_owned(), vec![vocabulary, width]),
        ("positional_embedding".to_owned(), vec![context, width]),
        ("ln_final.weight".to_owned(), vec![width]),
        ("ln_final.bias".to_owned(), vec![width]),
        ("text_projection".to_owned(), vec![width, config.embed_dim]),
    ];
    all.extend((0..transformer.layers).flat_map(|i| BlockNames::TEXT.expected(transformer, i)));
    all
}
