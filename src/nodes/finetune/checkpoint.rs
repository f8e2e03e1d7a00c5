//! The state after an epoch as bytes: what the store keeps of it.

use anyhow::{Context, Result, ensure};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use crate::models::{adamw::Moments, clip::TrainState};

/// What was measured in one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Epoch {
    /// Mean loss over its images.
    pub(super) loss: f64,
    /// Share of its images that were right, in percent, while it trained.
    pub(super) accuracy: f64,
}

/// Everything that the next epoch needs.
pub(super) struct Checkpoint {
    pub(super) state: TrainState,
    pub(super) epoch: Epoch,
}

#[derive(Serialize, Deserialize)]
struct Head {
    steps: usize,
    epoch: Epoch,
}

impl Checkpoint {
    /// Canonical bytes: one safetensors file of f32, and a line of JSON before it.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let head = Head {
            steps: self.state.steps,
            epoch: self.epoch,
        };
        let mut out = serde_json::to_vec(&head)?;
        out.push(b'\n');
        let bytes =
            |list: &[f32]| -> Vec<u8> { list.iter().flat_map(|x| x.to_le_bytes()).collect() };
        let mut parts: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        for (name, data) in &self.state.tensors {
            let values = data
                .try_to_vec::<f32>()
                .map_err(|e| anyhow::anyhow!("{e:?}"))?;
            parts.push((
                format!("weight/{name}"),
                data.shape().as_slice().to_vec(),
                bytes(&values),
            ));
        }
        for moments in &self.state.moments {
            let n = vec![moments.first.len()];
            parts.push((
                format!("first/{}", moments.name),
                n.clone(),
                bytes(&moments.first),
            ));
            parts.push((
                format!("second/{}", moments.name),
                n,
                bytes(&moments.second),
            ));
        }
        let views = parts
            .iter()
            .map(|(name, shape, data)| {
                Ok((
                    name.as_str(),
                    TensorView::new(Dtype::F32, shape.clone(), data)?,
                ))
            })
            .collect::<Result<Vec<_>>>()?;
        out.extend(safetensors::serialize(views, None)?);
        Ok(out)
    }

    /// Reads [`Self::encode`]'s bytes.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let end = bytes
            .iter()
            .position(|b| *b == b'\n')
            .context("a checkpoint has no head")?;
        let head: Head = serde_json::from_slice(&bytes[..end])?;
        let file = SafeTensors::deserialize(&bytes[end + 1..])?;
        let mut state = TrainState {
            steps: head.steps,
            tensors: Vec::new(),
            moments: Vec::new(),
        };
        let mut names: Vec<&str> = file.names().into_iter().collect();
        names.sort_unstable();
        let floats = |name: &str| -> Result<Vec<f32>> {
            let tensor = file.tensor(name)?;
            ensure!(tensor.dtype() == Dtype::F32, "`{name}` is not f32");
            Ok(tensor
                .data()
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect())
        };
        for name in names {
            if let Some(tensor) = name.strip_prefix("weight/") {
                let shape = file.tensor(name)?.shape().to_vec();
                let data = burn::tensor::TensorData::new(floats(name)?, shape);
                state.tensors.push((tensor.to_owned(), data));
            } else if let Some(parameter) = name.strip_prefix("first/") {
                state.moments.push(Moments {
                    name: parameter.to_owned(),
                    first: floats(name)?,
                    second: floats(&format!("second/{parameter}"))?,
                });
            }
        }
        Ok(Self {
            state,
            epoch: head.epoch,
        })
    }
}
