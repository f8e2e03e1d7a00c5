//! Instructions that push one number, text or byte string.

use std::borrow::Cow;

use super::{
    Node,
    machine::{Machine, Step},
};

/// The longest whole number, in bytes; `PyTorch`'s magic number has ten.
const LONGEST_INT: usize = 16;

/// The most digits of a whole number in text.
const MOST_DIGITS: usize = 40;

impl Machine<'_> {
    pub(super) fn int(&mut self, code: u8) -> Step {
        let value = match code {
            b'K' => self.byte()?.into(),
            b'M' => self.length(2)? as i128,
            b'J' => i128::from(self.index(4)? as i32),
            0x8a | 0x8b => {
                let len = self.length(if code == 0x8a { 1 } else { 4 })?;
                self.long(len)?
            }
            code => {
                let line = self.ascii_line()?;
                match (code, line) {
                    (b'I', "00") => return self.push(Node::Bool(false)),
                    (b'I', "01") => return self.push(Node::Bool(true)),
                    (b'L', line) => self.decimal(line.strip_suffix('L').unwrap_or(line))?,
                    (_, line) => self.decimal(line)?,
                }
            }
        };
        self.push(Node::Int(value))
    }

    /// Two's complement, little-endian, `len` bytes.
    fn long(&mut self, len: usize) -> Step<i128> {
        if len > LONGEST_INT {
            return self.fail(format!(
                "a whole number has {len} bytes, more than the {LONGEST_INT} read"
            ));
        }
        let bytes = self.take(len)?;
        let negative = bytes.last().is_some_and(|top| top & 0x80 != 0);
        let mut all = [if negative { 0xff } else { 0 }; LONGEST_INT];
        for (to, from) in all.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(i128::from_le_bytes(all))
    }

    fn decimal(&self, text: &str) -> Step<i128> {
        match text.parse() {
            Ok(value) if text.len() <= MOST_DIGITS => Ok(value),
            _ => self.fail("a line is not a whole number of at most 128 bits"),
        }
    }

    pub(super) fn float(&mut self, code: u8) -> Step {
        let value = if code == b'G' {
            let bytes = self.take(8)?.first_chunk().copied().unwrap_or_default();
            f64::from_be_bytes(bytes)
        } else {
            match self.ascii_line()?.parse() {
                Ok(value) => value,
                Err(_) => return self.fail("a line is not a number"),
            }
        };
        self.push(Node::Float(value))
    }

    pub(super) fn text(&mut self, code: u8) -> Step {
        let text = if code == b'V' {
            let line = self.line()?;
            match unescape_unicode(line) {
                Some(text) => Cow::Owned(text),
                None => return self.fail("a text has a wrong escape"),
            }
        } else {
            let len = self.length(match code {
                b'X' => 4,
                0x8c => 1,
                _ => 8,
            })?;
            let bytes = self.take(len)?;
            self.utf8(bytes)?
        };
        self.push(Node::Text(text))
    }

    pub(super) fn byte_string(&mut self, code: u8) -> Step {
        let bytes = if code == b'S' {
            match unquote(self.line()?) {
                Some(bytes) => Cow::Owned(bytes),
                None => return self.fail("a string is not quoted as Python does"),
            }
        } else {
            let len = self.length(match code {
                b'U' | b'C' => 1,
                b'T' | b'B' => 4,
                _ => 8,
            })?;
            Cow::Borrowed(self.take(len)?)
        };
        self.push(Node::Bytes(bytes))
    }
}

/// Python's `raw-unicode-escape`: Latin-1 with `\uXXXX` and `\UXXXXXXXX`.
fn unescape_unicode(line: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((&first, tail)) = rest.split_first() {
        let digits = match (first, tail.first()) {
            (b'\\', Some(b'u')) => 4,
            (b'\\', Some(b'U')) => 8,
            _ => {
                text.push(first.into());
                rest = tail;
                continue;
            }
        };
        let code = tail.get(1..=digits)?;
        text.push(char::from_u32(hexadecimal(code)?)?);
        rest = tail.get(1 + digits..)?;
    }
    Some(text)
}

/// A Python 2 string literal: quotes, and escapes as `repr` writes them.
fn unquote(line: &[u8]) -> Option<Vec<u8>> {
    let quote = *line.first().filter(|byte| matches!(byte, b'\'' | b'"'))?;
    let inner = line.get(1..line.len().checked_sub(1)?)?;
    if line.len() < 2 || line.last() != Some(&quote) {
        return None;
    }
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((&first, tail)) = rest.split_first() {
        if first == quote {
            return None;
        }
        if first != b'\\' {
            bytes.push(first);
            rest = tail;
            continue;
        }
        let (&escape, tail) = tail.split_first()?;
        let (byte, used) = match escape {
            b'\\' | b'\'' | b'"' => (escape, 0),
            b'n' => (b'\n', 0),
            b'r' => (b'\r', 0),
            b't' => (b'\t', 0),
            b'x' => (hexadecimal(tail.get(..2)?)? as u8, 2),
            _ => return None,
        };
        bytes.push(byte);
        rest = tail.get(used..)?;
    }
    Some(bytes)
}

/// Hexadecimal digits and nothing else, at most eight.
fn hexadecimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |value, &digit| {
        Some(value << 4 | char::from(digit).to_digit(16)?)
    })
}
