//! The scales of 4-bit blocks: plain, or quantised once more.

use anyhow::{Result, bail, ensure};

use super::{
    absmax,
    dynamic_map::{dynamic_map, nearest},
};

/// One scale per block.
#[derive(Debug, Clone, PartialEq)]
pub enum Scales {
    /// As they are.
    Plain(Vec<f32>),
    /// Quantised to 8 bits ("double quantisation").
    Nested(Nested),
}

/// Scales as positions in a table of 256, in blocks, less their mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Nested {
    pub(super) codes: Vec<u8>,
    pub(super) map: Box<[f32; 256]>,
    pub(super) absmax: Vec<f32>,
    pub(super) blocksize: usize,
    pub(super) offset: f32,
}

impl Scales {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Plain(absmax) => absmax.len(),
            Self::Nested(nested) => nested.codes.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The scale of a block; none past the last.
    pub fn get(&self, block: usize) -> Option<f32> {
        match self {
            Self::Plain(absmax) => absmax.get(block).copied(),
            Self::Nested(nested) => nested.get(block),
        }
    }

    /// All of them, dequantised where they are nested.
    pub fn to_vec(&self) -> Vec<f32> {
        match self {
            Self::Plain(absmax) => absmax.clone(),
            Self::Nested(nested) => (0..nested.codes.len())
                .filter_map(|block| nested.get(block))
                .collect(),
        }
    }
}

impl Nested {
    /// Quantises scales in blocks of 256, less their mean.
    ///
    /// Refuses scales that are not finite: one would spoil the mean and with it
    /// every scale.
    pub(super) fn quantize(scales: &[f32]) -> Result<Self> {
        if let Some(at) = scales.iter().position(|x| !x.is_finite()) {
            bail!(
                "failed to quantise the scales: that of block {at} is {}\n\
                 hint: the weight holds a NaN or an infinity",
                scales[at]
            );
        }
        let mean = scales.iter().map(|&x| f64::from(x)).sum::<f64>() / scales.len() as f64;
        Ok(Self::with_offset(scales, mean as f32))
    }

    /// As [`Nested::quantize`], with the mean given.
    pub(super) fn with_offset(scales: &[f32], offset: f32) -> Self {
        const BLOCKSIZE: usize = 256;
        let mut codes = Vec::with_capacity(scales.len());
        let mut most = Vec::with_capacity(scales.len().div_ceil(BLOCKSIZE));
        for block in scales.chunks(BLOCKSIZE) {
            let shifted: Vec<f32> = block.iter().map(|&x| x - offset).collect();
            let absmax = absmax(&shifted);
            most.push(absmax);
            // Any code of a block of zeros is zero again; bitsandbytes writes 0.
            let inverse = if absmax > 0.0 { 1.0 / absmax } else { f32::NAN };
            codes.extend(shifted.iter().map(|&x| nearest(x * inverse)));
        }
        Self {
            codes,
            map: Box::new(dynamic_map()),
            absmax: most,
            blocksize: BLOCKSIZE,
            offset,
        }
    }

    /// From the parts in a file, whose lengths must fit each other.
    pub(super) fn from_parts(
        codes: Vec<u8>,
        map: Box<[f32; 256]>,
        absmax: Vec<f32>,
        blocksize: usize,
        offset: f32,
    ) -> Result<Self> {
        ensure!(
            blocksize > 0 && absmax.len() == codes.len().div_ceil(blocksize),
            "{} scales in blocks of {blocksize} do not have {} scales of their own",
            codes.len(),
            absmax.len()
        );
        Ok(Self {
            codes,
            map,
            absmax,
            blocksize,
            offset,
        })
    }

    /// `map[code]·absmax`, rounded, plus the offset, rounded.
    fn get(&self, block: usize) -> Option<f32> {
        let code = *self.codes.get(block)?;
        let absmax = self.absmax.get(block / self.blocksize)?;
        Some(self.map[usize::from(code)] * absmax + self.offset)
    }

    /// The positions in the table, one per block of weights.
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// The table.
    pub fn map(&self) -> &[f32; 256] {
        &self.map
    }

    /// One scale per [`Nested::blocksize`] scales.
    pub fn absmax(&self) -> &[f32] {
        &self.absmax
    }

    /// How many scales share one of their own.
    pub fn blocksize(&self) -> usize {
        self.blocksize
    }

    /// What is added to every scale: the mean of the originals.
    pub fn offset(&self) -> f32 {
        self.offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_scales_are_kept_exactly() {
        let nested = Nested::quantize(&[0.3; 300]).unwrap();
        assert_eq!(nested.codes, [0; 300]);
        assert_eq!(Scales::Nested(nested).to_vec(), [0.3; 300]);
    }

    #[test]
    fn a_scale_that_is_not_finite_is_refused() {
        let error = Nested::quantize(&[1.0, f32::NAN]).unwrap_err().to_string();
        assert!(error.contains("block 1 is NaN"), "{error}");
    }

    #[test]
    fn scales_come_back_within_half_a_step() {
        let scales: Vec<f32> = (0..1000u16).map(|i| (f32::from(i) * 0.37).sin()).collect();
        let nested = Nested::quantize(&scales).unwrap();
        assert_eq!(nested.absmax.len(), 4);
        for (a, b) in Scales::Nested(nested).to_vec().iter().zip(&scales) {
            assert!((a - b).abs() < 0.008, "{a} {b}");
        }
    }
}
