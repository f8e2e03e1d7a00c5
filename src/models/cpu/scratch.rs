//! Buffers that are used again, so that a layer costs no page faults.

/// Buffers that were given back.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    free: Vec<Vec<f32>>,
}

impl Scratch {
    /// A buffer of `len` numbers with anything in them.
    pub(crate) fn take(&mut self, len: usize) -> Vec<f32> {
        // The smallest that is large enough, else the largest, which grows.
        let best = (self.free.iter().enumerate())
            .min_by_key(|(_, buffer)| (buffer.capacity() < len, buffer.capacity().abs_diff(len)));
        let mut buffer = match best.map(|(i, _)| i) {
            Some(i) => self.free.swap_remove(i),
            None => Vec::new(),
        };
        buffer.resize(len, 0.0);
        buffer
    }

    /// Gives a buffer back.
    pub(crate) fn give(&mut self, buffer: Vec<f32>) {
        self.free.push(buffer);
    }
}
