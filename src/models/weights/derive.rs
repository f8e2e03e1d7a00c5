//! Tensors made of others without reading them: stacked, turned over, reshaped.

use std::collections::BTreeSet;

use super::{Weights, WeightsError, view::Entry};

impl Weights {
    /// Puts the rows of `names` on top of each other and calls the result `to`;
    /// the parts are no longer there by themselves.
    ///
    /// Hugging Face's `q_proj`, `k_proj` and `v_proj` become `PyTorch`'s
    /// `in_proj_weight` so; their biases too.
    ///
    /// # Errors
    /// When a part is missing, has no rows, or differs from the first in its
    /// element type or in any dimension but the outermost, or when `to` is there
    /// already. Nothing changes then.
    pub fn stack(&mut self, to: &str, names: &[&str]) -> Result<(), WeightsError> {
        let entry = self.stacked(names).map_err(|reason| {
            self.malformed(format!("tensor `{to}` cannot be stacked: {reason}"))
        })?;
        if self.tensors.contains_key(to) && !names.contains(&to) {
            return Err(self.malformed(format!("tensor `{to}` is there already")));
        }
        for name in names {
            self.tensors.remove(*name);
        }
        self.tensors.insert(to.to_owned(), entry);
        Ok(())
    }

    fn stacked(&self, names: &[&str]) -> Result<Entry, String> {
        let mut whole: Option<Entry> = None;
        let mut seen = BTreeSet::new();
        for name in names {
            let part = self.tensors.get(*name);
            let part = part.ok_or_else(|| format!("`{name}` is missing"))?;
            if !seen.insert(name) {
                return Err(format!("`{name}` is named twice"));
            }
            let Some((rows, rest)) = part.shape.split_first() else {
                return Err(format!("`{name}` has no rows"));
            };
            let Some(whole) = &mut whole else {
                whole = Some(part.clone());
                continue;
            };
            if part.dtype != whole.dtype || whole.shape.get(1..) != Some(rest) {
                return Err(format!(
                    "`{name}` is {} of shape {:?}, what comes before it {} of shape {:?}",
                    part.dtype, part.shape, whole.dtype, whole.shape
                ));
            }
            let all = (whole.shape.first()).and_then(|above| above.checked_add(*rows));
            if let (Some(first), Some(all)) = (whole.shape.first_mut(), all) {
                *first = all;
            }
            whole.parts.extend(part.parts.iter().cloned());
        }
        whole.ok_or_else(|| "of nothing".to_owned())
    }

    /// Turns a matrix over: `[m, n]` becomes `[n, m]`.
    ///
    /// # Errors
    /// When it is missing, no matrix, or stacked of several tensors.
    pub fn transpose(&mut self, name: &str) -> Result<(), WeightsError> {
        let Some(entry) = self.tensors.get_mut(name) else {
            return Err(self.missing(name));
        };
        let turned = entry.transpose();
        turned.map_err(|reason| self.malformed(format!("tensor `{name}`: {reason}")))
    }

    /// Gives a tensor another shape of as many elements.
    ///
    /// # Errors
    /// When it is missing or the number of elements differs.
    pub fn reshape(&mut self, name: &str, shape: &[usize]) -> Result<(), WeightsError> {
        let Some(entry) = self.tensors.get_mut(name) else {
            return Err(self.missing(name));
        };
        let count = |shape: &[usize]| shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if count(shape) != count(&entry.shape) {
            let found = entry.shape.clone();
            return Err(self.malformed(format!(
                "tensor `{name}` of shape {found:?} cannot take shape {shape:?}"
            )));
        }
        entry.shape = shape.to_vec();
        Ok(())
    }
}
