//! AdamW over a module's parameters, with a state that can be written down and
//! taken up again on any device.
//!
//! The arithmetic is burn's. Its own optimizer record names parameters by random
//! ids and loads onto the default device, so a stopped training could neither be
//! compared byte by byte nor go on where that device is missing; here the state
//! is a list of plain numbers by parameter path.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use burn::{
    module::{Module, ModuleMapper, Param},
    optim::{AdamW as Arithmetic, AdamWConfig, AdamWState, AdaptiveMomentumState, Optimizer},
    tensor::{Device, Gradients, Tensor, TensorData},
};

/// First and second moments of one parameter, flattened.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Path of the parameter in its module, with dots.
    pub name: String,
    /// Mean of the gradients.
    pub first: Vec<f32>,
    /// Mean of their squares.
    pub second: Vec<f32>,
}

/// AdamW (Loshchilov and Hutter 2019) with β = (0.9, 0.999) and ε = 1e-8, as PyTorch has it.
pub struct Adamw {
    arithmetic: Arithmetic,
    steps: usize,
    states: BTreeMap<String, (Tensor<1>, Tensor<1>)>,
}

impl Adamw {
    /// No step taken yet.
    pub fn new(weight_decay: f32) -> Self {
        Self {
            arithmetic: AdamWConfig::new()
                .with_epsilon(1e-8)
                .with_weight_decay(weight_decay)
                .build(),
            steps: 0,
            states: BTreeMap::new(),
        }
    }

    /// Steps taken.
    pub const fn steps(&self) -> usize {
        self.steps
    }

    /// One step on every parameter of `module` that has a gradient.
    pub fn step<M: Module>(&mut self, rate: f64, module: M, gradients: &Gradients) -> M {
        let module = module.map(&mut Step {
            adamw: self,
            rate,
            gradients,
            path: Vec::new(),
        });
        self.steps += 1;
        module
    }

    /// The moments of all parameters, by name.
    ///
    /// # Errors
    /// When they cannot be read from the device.
    pub fn moments(&self) -> Result<Vec<Moments>> {
        self.states
            .iter()
            .map(|(name, (first, second))| {
                Ok(Moments {
                    name: name.clone(),
                    first: numbers(first)?,
                    second: numbers(second)?,
                })
            })
            .collect()
    }

    /// Takes up a state of [`Self::moments`] after `steps` steps.
    ///
    /// # Errors
    /// When the two moments of a parameter differ in length.
    pub fn restore(&mut self, steps: usize, moments: Vec<Moments>, device: &Device) -> Result<()> {
        self.steps = steps;
        self.states.clear();
        for state in moments {
            ensure!(
                state.first.len() == state.second.len(),
                "the moments of `{}` differ in length",
                state.name
            );
            let n = state.first.len();
            let tensor =
                |list: Vec<f32>| Tensor::<1>::from_data(TensorData::new(list, [n]), device);
            self.states
                .insert(state.name, (tensor(state.first), tensor(state.second)));
        }
        Ok(())
    }
}

fn numbers(tensor: &Tensor<1>) -> Result<Vec<f32>> {
    tensor
        .to_data()
        .try_to_vec::<f32>()
        .map_err(|error| anyhow::anyhow!("{error:?}"))
        .context("failed to read the optimizer's state")
}

/// One walk over the module.
struct Step<'a> {
    adamw: &'a mut Adamw,
    rate: f64,
    gradients: &'a Gradients,
    path: Vec<String>,
}

impl ModuleMapper for Step<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let Some(gradient) = tensor.grad(self.gradients) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let shape = tensor.dims();
        let n = shape.iter().product::<usize>();
        let name = self.path.join(".");
        let steps = self.adamw.steps;
        let state = self.adamw.states.remove(&name).map(|(first, second)| {
            AdamWState::new(AdaptiveMomentumState::new(steps, first, second))
        });
        let (updated, state) = self.adamw.arithmetic.step(
            self.rate,
            tensor.inner().reshape([n]),
            gradient.inner().reshape([n]),
            state,
        );
        if let Some(AdamWState { momentum }) = state {
            self.adamw
                .states
                .insert(name, (momentum.moment_1, momentum.moment_2));
        }
        let tensor = updated.reshape(shape).autodiff().require_grad();
        Param::from_mapped_value(id, tensor, mapper)
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};

    use super::*;

    fn gradients(layer: &Linear, device: &Device) -> Gradients {
        let input = Tensor::<2>::from_data([[1.0, -2.0], [0.5, 3.0]], device).autodiff();
        layer.forward(input).square().sum().backward()
    }

    fn layer(device: &Device) -> Linear {
        let mut layer = LinearConfig::new(2, 2).with_bias(false).init(device);
        let weight = Tensor::<2>::from_data([[0.1, 0.2], [0.3, -0.4]], device);
        layer.weight = Param::from_tensor(weight.autodiff().require_grad());
        layer
    }

    fn weights(layer: &Linear) -> Vec<f32> {
        layer.weight.val().inner().to_data().to_vec().unwrap()
    }

    /// torch 2.15: `AdamW([w], lr=0.1, weight_decay=0.0)`, loss `(x @ w).square().sum()`, three steps.
    #[test]
    fn three_steps_equal_pytorch() {
        let device = Device::flex();
        let mut layer = layer(&device);
        let mut adamw = Adamw::new(0.0);
        for _ in 0..3 {
            let gradients = gradients(&layer, &device);
            layer = adamw.step(0.1, layer, &gradients);
        }
        let expected = PYTORCH;
        for (ours, theirs) in weights(&layer).iter().zip(expected) {
            assert!(
                (ours - theirs).abs() < 1e-6,
                "{:?} {expected:?}",
                weights(&layer)
            );
        }
    }

    const PYTORCH: [f32; 4] = [0.06013898, -0.08131467, 0.01413187, -0.10766472];

    #[test]
    fn a_restored_state_goes_on_bit_by_bit() {
        let device = Device::flex();
        let mut through = layer(&device);
        let mut adamw = Adamw::new(0.01);
        let mut parted = None;
        for step in 0..6 {
            if step == 3 {
                parted = Some((through.clone(), adamw.steps(), adamw.moments().unwrap()));
            }
            let gradients = gradients(&through, &device);
            through = adamw.step(0.05, through, &gradients);
        }
        let (mut again, steps, moments) = parted.unwrap();
        let mut adamw = Adamw::new(0.01);
        adamw.restore(steps, moments, &device).unwrap();
        for _ in 3..6 {
            let gradients = gradients(&again, &device);
            again = adamw.step(0.05, again, &gradients);
        }
        assert_eq!(weights(&again), weights(&through));
    }
}
