//! What can be wrong with a file of weights, said with the file and the tensor.

use std::{fmt, io, path::PathBuf};

/// A file of weights could not be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// Opening or reading failed; the message names the file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file breaks the format: truncated, lying or hostile.
    #[error("read `{}`: {reason}", path.display())]
    Malformed {
        /// The offending file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file is sound, but its tensors are not those that the model needs.
    #[error("load `{}`: {}", path.display(), Listed(problems))]
    Mismatch {
        /// The file, or the index of a sharded one.
        path: PathBuf,
        /// Every difference found.
        problems: Vec<Problem>,
    },
}

/// One difference between the tensors expected and those found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A tensor is not in the file.
    #[error("tensor `{name}` of shape {shape:?} is missing")]
    Missing {
        /// The tensor's name.
        name: String,
        /// The shape that was expected.
        shape: Vec<usize>,
    },
    /// A tensor has another shape.
    #[error("tensor `{name}`: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// The tensor's name.
        name: String,
        /// The shape that was expected.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor's elements are no floating-point numbers that we read.
    #[error("tensor `{name}`: expected F32, F16 or BF16, found {found}")]
    Dtype {
        /// The tensor's name.
        name: String,
        /// The element type in the file.
        found: String,
    },
    /// The model has no place for a tensor of the file.
    #[error("tensor `{name}` of shape {shape:?} is not part of the model")]
    Extra {
        /// The tensor's name.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
}

/// Writes up to [`Listed::MOST`] problems, then how many more there are.
struct Listed<'a>(&'a [Problem]);

impl Listed<'_> {
    /// More lines than this help nobody.
    const MOST: usize = 40;
}

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0 {
            return write!(f, "{only}");
        }
        write!(f, "{} tensors do not fit the model", self.0.len())?;
        for problem in self.0.iter().take(Self::MOST) {
            write!(f, "\n  {problem}")?;
        }
        match self.0.len().checked_sub(Self::MOST) {
            Some(more) if more > 0 => write!(f, "\n  and {more} more"),
            _ => Ok(()),
        }
    }
}
