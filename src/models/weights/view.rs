//! Where the elements of a tensor lie, and reading them in row-major order.

use std::io::{self, Read, Seek, SeekFrom};

use safetensors::Dtype;

/// How many bytes are handed out at a time.
pub(super) const PIECE: usize = 1 << 20;

/// A part whose bytes are strewn over more than this many times their number is
/// read in runs; otherwise the whole stretch is read and picked from.
const SPREAD: usize = 4;

/// A tensor's type, shape and place.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements of the parts, one part after another, are the tensor's.
    pub parts: Vec<Part>,
}

/// Elements in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// The position of the file.
    pub file: usize,
    /// The first element's first byte, counted from the start of the file.
    pub offset: u64,
    /// How many bytes the elements have.
    pub len: usize,
    /// The dimensions, outermost first, unless the elements lie one after
    /// another in row-major order.
    pub dims: Option<Vec<Dim>>,
}

/// One dimension of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dim {
    /// How many elements it counts.
    pub size: usize,
    /// How many elements lie between one and the next.
    pub stride: usize,
}

impl Entry {
    /// How many bytes the elements have.
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len).sum()
    }

    /// Reads the elements in row-major order, in pieces of whole elements.
    pub(super) fn read<F: Read + Seek>(
        &self,
        files: &mut [F],
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        for part in &self.parts {
            let file = (files.get_mut(part.file)).ok_or(io::ErrorKind::NotFound)?;
            match &part.dims {
                None => part.read_straight(file, &mut each)?,
                Some(dims) => {
                    let width = self.dtype.bitsize() / 8;
                    part.gather(file, &merged(dims), width, &mut each)?;
                }
            }
        }
        Ok(())
    }

    /// Turns a matrix over without reading it.
    ///
    /// The reason is a fragment.
    pub(super) fn transpose(&mut self) -> Result<(), String> {
        let (&[rows, columns], [part]) = (self.shape.as_slice(), self.parts.as_mut_slice()) else {
            return Err(format!(
                "a tensor of shape {:?} in {} parts cannot be transposed",
                self.shape,
                self.parts.len()
            ));
        };
        let dims = match part.dims.as_deref() {
            None => contiguous(&self.shape),
            Some(dims) => dims.to_vec(),
        };
        let &[outer, inner] = dims.as_slice() else {
            return Err("a tensor reshaped from strides cannot be transposed".to_owned());
        };
        if (outer.size, inner.size) != (rows, columns) || !self.dtype.bitsize().is_multiple_of(8) {
            return Err("a tensor reshaped from strides cannot be transposed".to_owned());
        }
        let turned = vec![inner, outer];
        part.dims = (!in_order(&turned)).then_some(turned);
        self.shape = vec![columns, rows];
        Ok(())
    }
}

/// The dimensions of a tensor whose elements lie in row-major order.
fn contiguous(shape: &[usize]) -> Vec<Dim> {
    let mut stride = 1;
    let mut dims: Vec<Dim> = (shape.iter().rev())
        .map(|&size| {
            let dim = Dim { size, stride };
            // No more than the number of elements, except beside a zero.
            stride = stride.saturating_mul(size);
            dim
        })
        .collect();
    dims.reverse();
    dims
}

/// Whether such elements lie one after another in row-major order.
pub(super) fn in_order(dims: &[Dim]) -> bool {
    dims.iter().any(|dim| dim.size == 0)
        || match merged(dims).as_slice() {
            [] => true,
            [dim] => dim.stride == 1,
            _ => false,
        }
}

/// The same elements in as few dimensions as will do.
fn merged(dims: &[Dim]) -> Vec<Dim> {
    let mut merged: Vec<Dim> = Vec::new();
    for dim in dims.iter().filter(|dim| dim.size != 1) {
        match merged.last_mut() {
            Some(outer) if dim.size.checked_mul(dim.stride) == Some(outer.stride) => {
                *outer = Dim {
                    size: outer.size * dim.size,
                    stride: dim.stride,
                };
            }
            _ => merged.push(*dim),
        }
    }
    merged
}

impl Part {
    fn read_straight(
        &self,
        file: &mut (impl Read + Seek),
        each: &mut impl FnMut(&[u8]),
    ) -> io::Result<()> {
        file.seek(SeekFrom::Start(self.offset))?;
        let mut piece = vec![0; PIECE.min(self.len)];
        let mut left = self.len;
        while left > 0 {
            let piece = &mut piece[..PIECE.min(left)];
            file.read_exact(piece)?;
            left -= piece.len();
            each(piece);
        }
        Ok(())
    }

    /// Reads elements of `width` bytes that do not lie one after another.
    fn gather(
        &self,
        file: &mut (impl Read + Seek),
        dims: &[Dim],
        width: usize,
        each: &mut impl FnMut(&[u8]),
    ) -> io::Result<()> {
        if self.len == 0 {
            return Ok(());
        }
        // What is next to each other is copied in one go.
        let (outer, run) = match dims.split_last() {
            Some((inner, outer)) if inner.stride == 1 => (outer, inner.size * width),
            _ => (dims, width),
        };
        let span = dims.iter().map(|d| (d.size - 1) * d.stride).sum::<usize>() * width + width;
        let mut source = Source::new(file, self.offset);
        if span <= self.len.saturating_mul(SPREAD) {
            source.keep(span)?;
        }
        let mut piece = Vec::with_capacity(PIECE.min(self.len));
        for start in Starts::new(outer) {
            let mut done = 0;
            while done < run {
                let len = (run - done).min(PIECE - piece.len());
                source.read(start * width + done, len, &mut piece)?;
                done += len;
                if piece.len() == PIECE {
                    each(&piece);
                    piece.clear();
                }
            }
        }
        if !piece.is_empty() {
            each(&piece);
        }
        Ok(())
    }
}

/// A stretch of a file, in memory or not.
struct Source<'f, F> {
    file: &'f mut F,
    offset: u64,
    kept: Vec<u8>,
}

impl<'f, F: Read + Seek> Source<'f, F> {
    fn new(file: &'f mut F, offset: u64) -> Self {
        Self {
            file,
            offset,
            kept: Vec::new(),
        }
    }

    fn keep(&mut self, len: usize) -> io::Result<()> {
        self.kept = vec![0; len];
        self.file.seek(SeekFrom::Start(self.offset))?;
        self.file.read_exact(&mut self.kept)
    }

    /// Appends `len` bytes from `at` to `to`.
    fn read(&mut self, at: usize, len: usize, to: &mut Vec<u8>) -> io::Result<()> {
        if let Some(bytes) = self.kept.get(at..at + len) {
            to.extend_from_slice(bytes);
            return Ok(());
        }
        self.file.seek(SeekFrom::Start(self.offset + at as u64))?;
        let start = to.len();
        to.resize(start + len, 0);
        self.file.read_exact(&mut to[start..])
    }
}

/// Where the runs start, in elements, in row-major order.
struct Starts<'d> {
    dims: &'d [Dim],
    index: Vec<usize>,
    next: Option<usize>,
}

impl<'d> Starts<'d> {
    fn new(dims: &'d [Dim]) -> Self {
        Self {
            dims,
            index: vec![0; dims.len()],
            next: Some(0),
        }
    }
}

impl Iterator for Starts<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let start = self.next?;
        let mut after = start;
        self.next = None;
        for (index, dim) in self.index.iter_mut().zip(self.dims).rev() {
            *index += 1;
            if *index < dim.size {
                self.next = Some(after + dim.stride);
                break;
            }
            *index = 0;
            after -= (dim.size - 1) * dim.stride;
        }
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// The elements of a view into the bytes 0, 1, 2, …, the slow way.
    fn expected(dims: &[Dim], offset: usize) -> Vec<u8> {
        match dims.split_first() {
            None => vec![offset as u8],
            Some((dim, rest)) => (0..dim.size)
                .flat_map(|i| expected(rest, offset + i * dim.stride))
                .collect(),
        }
    }

    fn dims(pairs: &[(usize, usize)]) -> Vec<Dim> {
        let dim = |&(size, stride)| Dim { size, stride };
        pairs.iter().map(dim).collect()
    }

    fn read(dims: Vec<Dim>, offset: usize) -> Vec<u8> {
        let entry = Entry {
            dtype: Dtype::U8,
            shape: dims.iter().map(|d| d.size).collect(),
            parts: vec![Part {
                file: 0,
                offset: offset as u64,
                len: dims.iter().map(|d| d.size).product(),
                dims: Some(dims),
            }],
        };
        let mut bytes = Vec::new();
        let mut files = [Cursor::new((0..=255).collect::<Vec<u8>>())];
        (entry.read(&mut files, |piece| bytes.extend_from_slice(piece))).unwrap();
        bytes
    }

    #[test]
    fn any_strides_are_read_in_row_major_order() {
        for (pairs, offset) in [
            (&[][..], 3),
            (&[(5, 1)], 2),
            (&[(5, 7)], 0),
            (&[(4, 1), (6, 4)], 0),
            (&[(3, 20), (5, 1)], 9),
            (&[(3, 2), (4, 30), (2, 1)], 1),
            (&[(2, 60), (1, 99), (3, 20), (4, 5), (2, 2)], 4),
            (&[(2, 100), (2, 50)], 5),
            // The same elements again and again.
            (&[(3, 0), (4, 1)], 8),
            (&[(2, 2), (3, 1)], 0),
            (&[(3, 4), (0, 1)], 0),
        ] {
            let view = dims(pairs);
            assert_eq!(
                read(view.clone(), offset),
                expected(&view, offset),
                "{pairs:?}"
            );
        }
    }

    #[test]
    fn order_is_recognized() {
        for (pairs, order) in [
            (&[][..], true),
            (&[(4, 1)], true),
            (&[(2, 4), (4, 1)], true),
            (&[(1, 77), (4, 1)], true),
            (&[(2, 4), (1, 9), (4, 1)], true),
            (&[(4, 9), (0, 3), (2, 5)], true),
            (&[(4, 2)], false),
            (&[(4, 1), (2, 4)], false),
            (&[(2, 5), (4, 1)], false),
            (&[(2, 0), (4, 1)], false),
        ] {
            assert_eq!(in_order(&dims(pairs)), order, "{pairs:?}");
        }
    }

    #[test]
    fn runs_longer_than_a_piece_are_read_whole() {
        let run = PIECE + 10;
        let rows = dims(&[(2, run + 6), (run, 1)]);
        let entry = |dims: Vec<Dim>| Entry {
            dtype: Dtype::U8,
            shape: vec![2, run],
            parts: vec![Part {
                file: 0,
                offset: 1,
                len: 2 * run,
                dims: Some(dims),
            }],
        };
        let data: Vec<u8> = (0..2 * run + 7).map(|i| (i % 251) as u8).collect();
        let mut bytes = Vec::new();
        (entry(rows).read(&mut [Cursor::new(&data)], |p| bytes.extend_from_slice(p))).unwrap();
        assert_eq!(bytes[..run], data[1..=run]);
        assert_eq!(bytes[run..], data[run + 7..]);
    }

    #[test]
    fn a_matrix_turned_over_twice_is_itself() {
        let mut entry = Entry {
            dtype: Dtype::U8,
            shape: vec![2, 3],
            parts: vec![Part {
                file: 0,
                offset: 0,
                len: 6,
                dims: None,
            }],
        };
        let before = entry.clone();
        entry.transpose().unwrap();
        assert_eq!(entry.shape, [3, 2]);
        let mut bytes = Vec::new();
        let mut files = [Cursor::new([0, 1, 2, 3, 4, 5])];
        (entry.read(&mut files, |piece| bytes.extend_from_slice(piece))).unwrap();
        assert_eq!(bytes, [0, 3, 1, 4, 2, 5]);
        entry.transpose().unwrap();
        assert_eq!((entry.shape, entry.parts), (before.shape, before.parts));
    }
}
