//! The stack machine: one instruction after the other, each checked.

use std::{borrow::Cow, collections::HashMap};

use super::{Id, Limits, Node, Parts, Pickle, PickleError};

/// Runs the pickle at the start of `input`; gives its values and its length.
pub(super) fn run(input: &[u8], limits: Limits) -> Result<(Pickle<'_>, usize), PickleError> {
    let mut machine = Machine {
        input,
        at: 0,
        start: 0,
        framed: 0,
        left: limits.values.min(u32::MAX as usize),
        limits,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    if input.len() > limits.bytes {
        return machine.fail(format!(
            "{} bytes are more than the {} allowed",
            input.len(),
            limits.bytes
        ));
    }
    loop {
        machine.start = machine.at;
        let code = machine.byte()?;
        if code == b'.' {
            break;
        }
        machine.step(code)?;
    }
    let root = machine.pop()?;
    // Python takes the next pickle to start behind the frame, not here.
    if machine.framed > machine.at {
        return machine.fail("it ends before its frame does");
    }
    if !machine.stack.is_empty() || !machine.marks.is_empty() {
        return machine.fail("it ends with values left over");
    }
    let nodes = machine.nodes;
    Ok((Pickle { nodes, root }, machine.at))
}

pub(super) struct Machine<'a> {
    input: &'a [u8],
    /// The next byte to read.
    at: usize,
    /// Where the current instruction starts.
    start: usize,
    /// The furthest end of a frame.
    framed: usize,
    /// How many more values may be made or used again.
    left: usize,
    limits: Limits,
    nodes: Vec<Node<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack; what lies below the last one is out of reach.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

pub(super) type Step<T = ()> = Result<T, PickleError>;

impl<'a> Machine<'a> {
    fn step(&mut self, code: u8) -> Step {
        match code {
            b'N' => self.push(Node::None),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            b'I' | b'L' | b'J' | b'K' | b'M' | 0x8a | 0x8b => self.int(code),
            b'F' | b'G' => self.float(code),
            b'V' | b'X' | 0x8c | 0x8d => self.text(code),
            b'S' | b'T' | b'U' | b'B' | b'C' | 0x8e | 0x96 => self.byte_string(code),
            b'(' => {
                self.spend()?;
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' | b'1' | b'2' => self.discard_or_repeat(code),
            b'p' | b'q' | b'r' | 0x94 => self.remember(code),
            b'g' | b'h' | b'j' => self.recall(code),
            b')' | b't' | 0x85..=0x87 => self.tuple(code),
            b']' | b'l' | b'}' | b'd' | 0x8f | 0x91 => self.collection(code),
            b'a' | b'e' | b's' | b'u' | 0x90 => self.extend(code),
            b'c' | 0x93 => self.global(code),
            b'R' | b'i' | b'o' | 0x81 | 0x92 => self.call(code),
            b'b' => self.build(),
            b'P' | b'Q' => self.persistent(code),
            0x80 => match self.byte()? {
                0..=5 => Ok(()),
                version => self.fail(format!("protocol {version} is not known")),
            },
            0x95 => match self.length(8)? {
                frame if frame <= self.input.len() - self.at => {
                    self.framed = self.framed.max(self.at + frame);
                    Ok(())
                }
                frame => self.fail(format!("a frame of {frame} bytes passes its end")),
            },
            0x82..=0x84 => self.fail("it uses extension codes, which mean nothing here"),
            0x97 | 0x98 => self.fail("it uses buffers outside the pickle"),
            code => self.fail(format!("there is no instruction {code:#04x}")),
        }
    }

    pub(super) fn fail<T>(&self, reason: impl Into<String>) -> Step<T> {
        Err(PickleError {
            offset: self.start,
            reason: reason.into(),
        })
    }

    // The input.

    pub(super) fn take(&mut self, len: usize) -> Step<&'a [u8]> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        match rest.get(..len) {
            Some(bytes) => {
                self.at += len;
                Ok(bytes)
            }
            None => self.fail("it ends too early; it may be truncated"),
        }
    }

    pub(super) fn byte(&mut self) -> Step<u8> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }

    /// A little-endian length of `width` bytes.
    pub(super) fn length(&mut self, width: usize) -> Step<usize> {
        let mut bytes = [0; 8];
        for (to, from) in bytes.iter_mut().zip(self.take(width)?) {
            *to = *from;
        }
        match usize::try_from(u64::from_le_bytes(bytes)) {
            Ok(length) => Ok(length),
            Err(_) => self.fail("a length passes the machine's words"),
        }
    }

    pub(super) fn index(&mut self, width: usize) -> Step<u32> {
        // `width` is at most four.
        Ok(self.length(width)? as u32)
    }

    /// Bytes up to a line feed, without it.
    pub(super) fn line(&mut self) -> Step<&'a [u8]> {
        let rest = self.input.get(self.at..).unwrap_or_default();
        match rest.iter().position(|&byte| byte == b'\n') {
            Some(len) => {
                let line = self.take(len)?;
                self.at += 1;
                Ok(line)
            }
            None => self.fail("a line has no end; it may be truncated"),
        }
    }

    pub(super) fn ascii_line(&mut self) -> Step<&'a str> {
        let line = self.line()?;
        match std::str::from_utf8(line) {
            Ok(text) if text.is_ascii() => Ok(text),
            _ => self.fail("a line is not ASCII"),
        }
    }

    pub(super) fn utf8(&self, bytes: &'a [u8]) -> Step<Cow<'a, str>> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Cow::Borrowed(text)),
            Err(_) => self.fail("a text is not UTF-8"),
        }
    }

    // The stack.

    fn spend(&mut self) -> Step {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => self.fail(format!(
                "it has more values than the {} allowed",
                self.limits.values
            )),
        }
    }

    fn make(&mut self, node: Node<'a>) -> Step<Id> {
        self.spend()?;
        let id = Id(self.nodes.len() as u32);
        self.nodes.push(node);
        Ok(id)
    }

    pub(super) fn push(&mut self, node: Node<'a>) -> Step {
        let id = self.make(node)?;
        self.stack.push(id);
        Ok(())
    }

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or_default()
    }

    fn pop(&mut self) -> Step<Id> {
        if self.stack.len() > self.floor()
            && let Some(id) = self.stack.pop()
        {
            return Ok(id);
        }
        self.fail("it takes a value that is not there")
    }

    fn top(&self) -> Step<Id> {
        match self.stack.last() {
            Some(id) if self.stack.len() > self.floor() => Ok(*id),
            _ => self.fail("it uses a value that is not there"),
        }
    }

    /// Everything above the last mark, which goes too.
    fn since_mark(&mut self) -> Step<Vec<Id>> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.split_off(height.min(self.stack.len()))),
            None => self.fail("it goes back to a mark that is not there"),
        }
    }

    fn since_mark_in_pairs(&mut self) -> Step<Vec<(Id, Id)>> {
        let ids = self.since_mark()?;
        let (pairs, rest) = ids.as_chunks();
        if !rest.is_empty() {
            return self.fail("a key has no value");
        }
        Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
    }

    fn node(&mut self, id: Id) -> Step<&mut Node<'a>> {
        let start = self.start;
        self.nodes.get_mut(id.0 as usize).ok_or(PickleError {
            offset: start,
            reason: "it uses a value that is not there".to_owned(),
        })
    }

    fn must_be_tuple(&mut self, id: Id) -> Step<Id> {
        match self.node(id)? {
            Node::Tuple(_) => Ok(id),
            _ => self.fail("arguments are not a tuple"),
        }
    }

    // The instructions.

    fn discard_or_repeat(&mut self, code: u8) -> Step {
        if code == b'2' {
            self.spend()?;
            let id = self.top()?;
            self.stack.push(id);
        } else if code == b'1' || self.stack.len() == self.floor() {
            self.since_mark()?;
        } else {
            self.pop()?;
        }
        Ok(())
    }

    fn memo_index(&mut self, code: u8) -> Step<u32> {
        match code {
            b'q' | b'h' => self.index(1),
            b'r' | b'j' => self.index(4),
            0x94 => Ok(self.memo.len() as u32),
            _ => match self.ascii_line()?.parse() {
                Ok(index) => Ok(index),
                Err(_) => self.fail("a line is not a place in the memo"),
            },
        }
    }

    fn remember(&mut self, code: u8) -> Step {
        self.spend()?;
        let index = self.memo_index(code)?;
        let id = self.top()?;
        self.memo.insert(index, id);
        Ok(())
    }

    fn recall(&mut self, code: u8) -> Step {
        self.spend()?;
        let index = self.memo_index(code)?;
        match self.memo.get(&index) {
            Some(&id) => {
                self.stack.push(id);
                Ok(())
            }
            None => self.fail(format!("nothing is remembered as {index}")),
        }
    }

    fn tuple(&mut self, code: u8) -> Step {
        let mut items = Vec::new();
        match code {
            b')' => {}
            b't' => items = self.since_mark()?,
            code => {
                for _ in 0x84..code {
                    items.push(self.pop()?);
                }
                items.reverse();
            }
        }
        self.push(Node::Tuple(items.into()))
    }

    fn collection(&mut self, code: u8) -> Step {
        let node = match code {
            b']' => Node::List(Vec::new()),
            b'l' => Node::List(self.since_mark()?),
            b'}' => Node::Dict(Vec::new()),
            b'd' => Node::Dict(self.since_mark_in_pairs()?),
            0x8f => Node::Set(Vec::new()),
            _ => Node::Set(self.since_mark()?),
        };
        self.push(node)
    }

    /// Puts members into the list, set, dict or object on the top.
    fn extend(&mut self, code: u8) -> Step {
        let (mut items, mut pairs) = (Vec::new(), Vec::new());
        match code {
            b'a' => items.push(self.pop()?),
            b's' => {
                let value = self.pop()?;
                pairs.push((self.pop()?, value));
            }
            b'u' => pairs = self.since_mark_in_pairs()?,
            _ => items = self.since_mark()?,
        }
        let whole = self.top()?;
        match (code, self.node(whole)?) {
            (b'a' | b'e', Node::List(list)) | (0x90, Node::Set(list)) => list.append(&mut items),
            (b'a' | b'e' | 0x90, Node::Object(parts)) => parts.items.append(&mut items),
            (b's' | b'u', Node::Dict(dict)) => dict.append(&mut pairs),
            (b's' | b'u', Node::Object(parts)) => parts.entries.append(&mut pairs),
            _ => return self.fail("members are put into what cannot hold them"),
        }
        Ok(())
    }

    fn global(&mut self, code: u8) -> Step {
        let (module, name) = if code == 0x93 {
            let name = self.pop()?;
            let module = self.pop()?;
            for id in [module, name] {
                if !matches!(self.node(id)?, Node::Text(_)) {
                    return self.fail("a global's name is not a text");
                }
            }
            (module, name)
        } else {
            self.global_lines()?
        };
        self.push(Node::Global { module, name })
    }

    fn global_lines(&mut self) -> Step<(Id, Id)> {
        let (module, name) = (self.line()?, self.line()?);
        let (module, name) = (self.utf8(module)?, self.utf8(name)?);
        Ok((self.make(Node::Text(module))?, self.make(Node::Text(name))?))
    }

    fn call(&mut self, code: u8) -> Step {
        let mut kwargs = None;
        let (class, args) = match code {
            b'i' => {
                let (module, name) = self.global_lines()?;
                let items = self.since_mark()?;
                let class = self.make(Node::Global { module, name })?;
                (class, self.make(Node::Tuple(items.into()))?)
            }
            b'o' => {
                let mut items = self.since_mark()?;
                if items.is_empty() {
                    return self.fail("an object has no class");
                }
                let class = items.remove(0);
                (class, self.make(Node::Tuple(items.into()))?)
            }
            code => {
                if code == 0x92 {
                    let id = self.pop()?;
                    if !matches!(self.node(id)?, Node::Dict(_)) {
                        return self.fail("named arguments are not a dict");
                    }
                    kwargs = Some(id);
                }
                let args = self.pop()?;
                let args = self.must_be_tuple(args)?;
                (self.pop()?, args)
            }
        };
        self.push(Node::Object(Box::new(Parts {
            class,
            args,
            kwargs,
            state: None,
            items: Vec::new(),
            entries: Vec::new(),
        })))
    }

    fn build(&mut self) -> Step {
        let state = self.pop()?;
        let object = self.top()?;
        match self.node(object)? {
            Node::Object(parts) if parts.state.is_none() => {
                parts.state = Some(state);
                Ok(())
            }
            Node::Object(_) => self.fail("an object gets a second state"),
            _ => self.fail("what is no object gets a state"),
        }
    }

    fn persistent(&mut self, code: u8) -> Step {
        let id = if code == b'Q' {
            self.pop()?
        } else {
            let line = self.line()?;
            let text = self.utf8(line)?;
            self.make(Node::Text(text))?
        };
        self.push(Node::Persistent(id))
    }
}
