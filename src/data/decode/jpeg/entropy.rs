//! The Huffman-coded data of JPEG scans: bits, code tables, and the blocks of
//! sequential and progressive scans (ITU-T T.81, annexes F and G).
//!
//! Where data end early at a marker, or hold a code that no table has, zeros
//! are read on, as libjpeg does; only the end of the file is an error.

use anyhow::{Result, bail, ensure};

/// Bits that one look into a table decides.
const LOOK: u32 = 9;

/// Natural position of the k-th coefficient in zigzag order.
pub(super) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// The natural position, where damaged data that run over the block land on its last place.
fn natural(k: usize) -> usize {
    ZIGZAG.get(k).map_or(63, |at| usize::from(*at))
}

/// A Huffman code.
pub(super) struct Codes {
    /// For the next `LOOK` bits: the code's length, and its symbol; length 0 for longer codes.
    look: Vec<(u8, u8)>,
    /// For each length: the first code beyond those of this length, left-aligned in 16 bits.
    end: [u32; 17],
    /// For each length: what to add to a code to get its symbol's index.
    offset: [i32; 17],
    symbols: Vec<u8>,
}

impl Codes {
    /// A table from the number of codes of each length 1 to 16 and their symbols in order.
    ///
    /// # Errors
    /// When there are more codes than bits can tell apart.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Result<Self> {
        let mut table = Self {
            look: vec![(0, 0); 1 << LOOK],
            end: [0; 17],
            offset: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut index) = (0_u32, 0_usize);
        for (length, count) in (1_u32..).zip(counts) {
            table.offset[length as usize] = index as i32 - code as i32;
            for _ in 0..*count {
                ensure!(code < 1 << length, "a Huffman table has too many codes");
                let Some(symbol) = symbols.get(index) else {
                    bail!("a Huffman table lacks symbols");
                };
                if length <= LOOK {
                    let first = (code << (LOOK - length)) as usize;
                    table.look[first..first + (1 << (LOOK - length))].fill((length as u8, *symbol));
                }
                code += 1;
                index += 1;
            }
            table.end[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Ok(table)
    }
}

/// The bits of a scan.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    buffer: u64,
    count: u32,
    /// A marker was met: no byte is read beyond it.
    marker: bool,
    /// More bits were asked for than there were before the marker.
    dry: bool,
}

impl<'a> Bits<'a> {
    /// Reads from `bytes[at..]`.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self {
            bytes,
            at,
            buffer: 0,
            count: 0,
            marker: false,
            dry: false,
        }
    }

    /// Where the next marker is to be looked for.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Whether the data ended before their blocks did.
    pub(super) fn is_dry(&self) -> bool {
        self.dry
    }

    fn fill(&mut self) {
        while self.count <= 56 && !self.marker {
            let Some(byte) = self.bytes.get(self.at) else {
                return;
            };
            let mut next = self.at + 1;
            if *byte == 0xff {
                while self.bytes.get(next) == Some(&0xff) {
                    next += 1;
                }
                match self.bytes.get(next) {
                    Some(0) => next += 1,
                    Some(_) => {
                        self.marker = true;
                        return;
                    }
                    None => return,
                }
            }
            self.at = next;
            self.buffer |= u64::from(*byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// Sees to it that `n` bits (at most 17) are there.
    fn need(&mut self, n: u32) -> Result<()> {
        if self.count < n {
            self.fill();
        }
        if self.count < n {
            ensure!(self.marker, "the file is truncated");
            self.dry = true;
            self.count = 32;
        }
        Ok(())
    }

    fn take(&mut self, n: u32) -> u32 {
        if n == 0 {
            return 0;
        }
        let bits = (self.buffer >> (64 - n)) as u32;
        self.buffer <<= n;
        self.count -= n;
        bits
    }

    fn bits(&mut self, n: u32) -> Result<u32> {
        self.need(n)?;
        Ok(self.take(n))
    }

    fn bit(&mut self) -> Result<bool> {
        Ok(self.bits(1)? == 1)
    }

    /// A number of `n` bits whose lower half is negative (figure F.12).
    fn signed(&mut self, n: u32) -> Result<i32> {
        let bits = self.bits(n)? as i32;
        let negative = n > 0 && bits < 1 << (n - 1);
        Ok(if negative { bits - (1 << n) + 1 } else { bits })
    }

    fn symbol(&mut self, codes: &Codes) -> Result<u8> {
        if self.count < 16 {
            self.fill();
        }
        let (length, symbol) = codes.look[(self.buffer >> (64 - LOOK)) as usize];
        if length > 0 && u32::from(length) <= self.count {
            self.take(u32::from(length));
            return Ok(symbol);
        }
        let head = (self.buffer >> 48) as u32;
        let mut length = 1;
        while length <= 16 && head >= codes.end[length] {
            length += 1;
        }
        if length > 16 {
            self.bits(17)?;
            return Ok(0);
        }
        self.need(length as u32)?;
        let code = self.take(length as u32) as i32;
        let index = usize::try_from(code + codes.offset[length]).unwrap_or(usize::MAX);
        Ok(codes.symbols.get(index).copied().unwrap_or(0))
    }

    /// Passes the restart marker with the number `next`; where another marker stands, what
    /// libjpeg does: a near later one is left to stand, a near earlier one is passed over.
    pub(super) fn restart(&mut self, next: u8) -> Result<()> {
        (self.buffer, self.count, self.marker) = (0, 0, false);
        loop {
            let (marker, after) = next_marker(self.bytes, self.at)?;
            let ahead = match marker {
                0xd0..=0xd7 => (marker - 0xd0).wrapping_sub(next) & 7,
                0..0xc0 => 7,
                _ => 1,
            };
            match ahead {
                1 | 2 => {
                    // The data up to that marker are lost.
                    self.marker = true;
                    return Ok(());
                }
                6 | 7 => self.at = after,
                _ => {
                    (self.at, self.dry) = (after, false);
                    return Ok(());
                }
            }
        }
    }
}

/// The first marker at or behind `at`, and the position behind it.
///
/// # Errors
/// When the file ends before one.
pub(super) fn next_marker(bytes: &[u8], mut at: usize) -> Result<(u8, usize)> {
    while let Some(byte) = bytes.get(at) {
        at += 1;
        if *byte == 0xff {
            match bytes.get(at) {
                Some(0xff | 0) => {}
                Some(marker) => return Ok((*marker, at + 1)),
                None => break,
            }
        }
    }
    bail!("the file is truncated")
}

/// What a scan codes of each block.
#[derive(Clone, Copy)]
pub(super) struct Band {
    /// Whether the file is progressive.
    pub(super) progressive: bool,
    /// First coefficient in zigzag order.
    pub(super) first: usize,
    /// Last coefficient.
    pub(super) last: usize,
    /// Whether it refines coefficients sent before.
    pub(super) refines: bool,
    /// The bit that it brings them to.
    pub(super) low: u32,
}

/// The tables of one component in a scan.
#[derive(Clone, Copy)]
pub(super) struct Tables<'t> {
    /// For the mean.
    pub(super) dc: Option<&'t Codes>,
    /// For the rest.
    pub(super) ac: Option<&'t Codes>,
}

/// Reads blocks; keeps how many of them are known to end at once.
pub(super) struct Reader<'a> {
    pub(super) bits: Bits<'a>,
    band: Band,
    /// Blocks that still end without a code of their own.
    ended: u32,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bits: Bits<'a>, band: Band) -> Self {
        Self {
            bits,
            band,
            ended: 0,
        }
    }

    /// After a restart marker.
    pub(super) fn reset(&mut self) {
        self.ended = 0;
    }

    /// Reads one block into `block` (natural order); `mean` is the component's last mean.
    pub(super) fn block(
        &mut self,
        tables: Tables<'_>,
        mean: &mut i32,
        block: &mut [i16; 64],
    ) -> Result<()> {
        let band = self.band;
        if !band.progressive {
            block[0] = self.mean(tables, mean)? as i16;
            return self.sequential(tables, block);
        }
        match (band.first, band.refines) {
            (0, false) => block[0] = (self.mean(tables, mean)? << band.low) as i16,
            (0, true) => {
                if self.bits.bit()? {
                    block[0] |= 1 << band.low;
                }
            }
            (_, false) => self.spectral(tables, block)?,
            (_, true) => self.refined(tables, block)?,
        }
        Ok(())
    }

    fn mean(&mut self, tables: Tables<'_>, mean: &mut i32) -> Result<i32> {
        let size = self.bits.symbol(present(tables.dc)?)?;
        ensure!(
            size < 16,
            "a Huffman table has symbols that means cannot have"
        );
        *mean = mean.wrapping_add(self.bits.signed(u32::from(size))?);
        Ok(*mean)
    }

    fn sequential(&mut self, tables: Tables<'_>, block: &mut [i16; 64]) -> Result<()> {
        let codes = present(tables.ac)?;
        let mut k = 1;
        while k < 64 {
            let symbol = self.bits.symbol(codes)?;
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if size > 0 {
                k += run;
                block[natural(k)] = self.bits.signed(size)? as i16;
            } else if run == 15 {
                k += 15;
            } else {
                break;
            }
            k += 1;
        }
        Ok(())
    }

    /// How many blocks end with this one: 2^`size` and as many more as the next bits say.
    fn run_of_ends(&mut self, size: u32) -> Result<u32> {
        Ok((1 << size) + self.bits.bits(size)?)
    }

    fn spectral(&mut self, tables: Tables<'_>, block: &mut [i16; 64]) -> Result<()> {
        if self.ended > 0 {
            self.ended -= 1;
            return Ok(());
        }
        let codes = present(tables.ac)?;
        let mut k = self.band.first;
        while k <= self.band.last {
            let symbol = self.bits.symbol(codes)?;
            let (run, size) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if size > 0 {
                k += run;
                block[natural(k)] = (self.bits.signed(size)? << self.band.low) as i16;
            } else if run == 15 {
                k += 15;
            } else {
                self.ended = self.run_of_ends(run as u32)? - 1;
                break;
            }
            k += 1;
        }
        Ok(())
    }

    fn refined(&mut self, tables: Tables<'_>, block: &mut [i16; 64]) -> Result<()> {
        let codes = present(tables.ac)?;
        let step = 1_i16 << self.band.low;
        let mut k = self.band.first;
        while self.ended == 0 && k <= self.band.last {
            let symbol = self.bits.symbol(codes)?;
            let (mut run, size) = (symbol >> 4, symbol & 15);
            let mut fresh = 0;
            if size > 0 {
                fresh = if self.bits.bit()? { step } else { -step };
            } else if run < 15 {
                self.ended = self.run_of_ends(u32::from(run))?;
                break;
            }
            while k <= self.band.last {
                let at = natural(k);
                if block[at] != 0 {
                    self.refine(&mut block[at], step)?;
                } else if run == 0 {
                    break;
                } else {
                    run -= 1;
                }
                k += 1;
            }
            if fresh != 0 {
                block[natural(k)] = fresh;
            }
            k += 1;
        }
        if self.ended > 0 {
            for k in k..=self.band.last {
                let at = natural(k);
                if block[at] != 0 {
                    self.refine(&mut block[at], step)?;
                }
            }
            self.ended -= 1;
        }
        Ok(())
    }

    fn refine(&mut self, coefficient: &mut i16, step: i16) -> Result<()> {
        if self.bits.bit()? && *coefficient & step == 0 {
            let away = if *coefficient >= 0 { step } else { -step };
            *coefficient = coefficient.wrapping_add(away);
        }
        Ok(())
    }
}

fn present(codes: Option<&Codes>) -> Result<&Codes> {
    match codes {
        Some(codes) => Ok(codes),
        None => bail!("a Huffman table is missing"),
    }
}
