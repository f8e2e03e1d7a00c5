//! Python pickles as data: a tree of plain values is built, nothing is called.
//!
//! A pickle is a program for a small stack machine (`CPython`'s
//! `Lib/pickletools.py` describes every instruction). Python's own reader
//! imports and calls what the program names, which runs a stranger's code. This
//! one runs the stack machine of protocols 0 to 5 but never leaves it: a call
//! becomes an [`Object`] that names the callable and holds its arguments, and
//! whoever reads the tree decides which callables have a meaning.
//!
//! Values lie in one flat list and point to each other by position. A value used
//! a thousand times is there once, a deep tree needs no deep stack to build or
//! drop, and a list may contain itself. Whoever walks a tree must therefore bound
//! the walk, in depth and in steps.

mod literals;
mod machine;
pub mod numpy;

use std::{borrow::Cow, fmt};

/// What a pickle may cost.
///
/// A value costs at most about 120 bytes of memory, and texts and byte strings
/// are borrowed from the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest pickle, in bytes.
    pub bytes: usize,
    /// The most values, uses of remembered values included.
    pub values: usize,
}

impl Default for Limits {
    /// 1 GiB and four million values: CIFAR-100's training file has 154 MB and
    /// 0.2 million values, the state of a large model a few ten thousand.
    fn default() -> Self {
        Self {
            bytes: 1 << 30,
            values: 4 << 20,
        }
    }
}

/// A pickle is malformed, too large, or uses what this reader does not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset} of the pickle: {reason}")]
pub struct PickleError {
    /// Where the offending instruction starts, counted from the pickle's start.
    pub offset: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// A value's place in the list of all values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Id(u32);

/// One value; its parts are positions of others.
#[derive(Debug, Clone)]
enum Node<'a> {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    List(Vec<Id>),
    Tuple(Box<[Id]>),
    Dict(Vec<(Id, Id)>),
    Set(Vec<Id>),
    Global { module: Id, name: Id },
    Object(Box<Parts>),
    Persistent(Id),
}

/// What a call, had it been made, would have been made of.
#[derive(Debug, Clone)]
struct Parts {
    class: Id,
    args: Id,
    kwargs: Option<Id>,
    state: Option<Id>,
    items: Vec<Id>,
    entries: Vec<(Id, Id)>,
}

/// All values of one pickle. Texts and byte strings borrow from its bytes.
#[derive(Debug)]
pub struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
    root: Id,
}

impl<'a> Pickle<'a> {
    /// Reads `bytes`, which must be one pickle and nothing more.
    ///
    /// # Errors
    /// When it is malformed in any way, passes `limits`, or uses extension codes
    /// or out-of-band buffers.
    pub fn read(bytes: &'a [u8], limits: Limits) -> Result<Self, PickleError> {
        let (pickle, len) = Self::read_prefix(bytes, limits)?;
        if len != bytes.len() {
            return Err(PickleError {
                offset: len,
                reason: format!("{} bytes follow its end", bytes.len() - len),
            });
        }
        Ok(pickle)
    }

    /// Reads the pickle at the start of `bytes` and says how long it is.
    ///
    /// # Errors
    /// As [`Pickle::read`], except that more bytes may follow.
    pub fn read_prefix(bytes: &'a [u8], limits: Limits) -> Result<(Self, usize), PickleError> {
        machine::run(bytes, limits)
    }

    /// The value that unpickling would have returned.
    pub fn root(&self) -> Value<'_> {
        self.value(self.root)
    }

    /// All values, in the order in which they were made.
    pub fn values(&self) -> impl Iterator<Item = Value<'_>> {
        (0..self.nodes.len() as u32).map(|id| self.value(Id(id)))
    }

    fn value(&self, id: Id) -> Value<'_> {
        Value { pickle: self, id }
    }
}

/// One value of a [`Pickle`].
#[derive(Clone, Copy)]
pub struct Value<'p> {
    pickle: &'p Pickle<'p>,
    id: Id,
}

/// A call that was not made: `REDUCE`, `NEWOBJ`, `INST`, `OBJ`, and the `BUILD`
/// after it.
///
/// Items and entries given to it afterwards, as a subclass of list or dict gets
/// them, are under [`Value::items`] and [`Value::entries`].
#[derive(Debug, Clone, Copy)]
pub struct Object<'p> {
    /// The class or function, nearly always a global name.
    pub class: Value<'p>,
    /// The positional arguments, a tuple.
    pub args: Value<'p>,
    /// The named arguments, a dict.
    pub kwargs: Option<Value<'p>>,
    /// What `__setstate__` or the attributes would have been given.
    pub state: Option<Value<'p>>,
}

/// The name of a class or function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Global<'p> {
    /// The module, such as `torch._utils`.
    pub module: &'p str,
    /// The name inside it, such as `_rebuild_tensor_v2`.
    pub name: &'p str,
}

impl fmt::Display for Global<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.module, self.name)
    }
}

impl<'p> Value<'p> {
    fn node(self) -> &'p Node<'p> {
        // The machine makes no other positions than those of its own values.
        self.pickle
            .nodes
            .get(self.id.0 as usize)
            .unwrap_or(&Node::None)
    }

    fn at(self, id: Id) -> Self {
        Self { id, ..self }
    }

    /// What tells this value from all others of the pickle, for a walker that
    /// must not go in circles.
    pub fn position(self) -> usize {
        self.id.0 as usize
    }

    /// What sort of value it is, for messages: "a list", "an int".
    pub fn sort(self) -> &'static str {
        match self.node() {
            Node::None => "None",
            Node::Bool(_) => "a bool",
            Node::Int(_) => "an int",
            Node::Float(_) => "a float",
            Node::Text(_) => "a text",
            Node::Bytes(_) => "a byte string",
            Node::List(_) => "a list",
            Node::Tuple(_) => "a tuple",
            Node::Dict(_) => "a dict",
            Node::Set(_) => "a set",
            Node::Global { .. } => "a global name",
            Node::Object(_) => "an object",
            Node::Persistent(_) => "a persistent id",
        }
    }

    /// Whether it is `None`.
    pub fn is_none(self) -> bool {
        matches!(self.node(), Node::None)
    }

    /// A bool; whole numbers are none.
    pub fn as_bool(self) -> Option<bool> {
        match self.node() {
            Node::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A whole number that fits `T`, such as `usize`.
    pub fn as_int<T: TryFrom<i128>>(self) -> Option<T> {
        match self.node() {
            Node::Int(value) => T::try_from(*value).ok(),
            _ => None,
        }
    }

    /// A floating-point number; whole numbers are none.
    pub fn as_float(self) -> Option<f64> {
        match self.node() {
            Node::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// A text, or Python 2's `str` if it holds UTF-8.
    pub fn as_str(self) -> Option<&'p str> {
        match self.node() {
            Node::Text(text) => Some(text),
            Node::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// A byte string: `bytes`, `bytearray`, Python 2's `str`, or the calls that
    /// Python 3 writes for them in protocols 0 to 3.
    pub fn to_bytes(self) -> Option<Cow<'p, [u8]>> {
        let class = match self.class() {
            Some(class) if matches!(class.module, "__builtin__" | "builtins") => class,
            _ => return self.plain_bytes(),
        };
        let args: Vec<Self> = self.object()?.args.items()?.take(3).collect();
        match (class.name, args.as_slice()) {
            ("bytes" | "bytearray", []) => Some(Cow::Borrowed(&[])),
            ("bytearray", [bytes]) => bytes.plain_bytes(),
            ("bytearray", [text, encoding]) => text.encoded(*encoding),
            _ => None,
        }
    }

    /// Bytes, or a Latin-1 text that would be encoded into them.
    fn plain_bytes(self) -> Option<Cow<'p, [u8]>> {
        if let Node::Bytes(bytes) = self.node() {
            return Some(Cow::Borrowed(bytes));
        }
        let object = self.object()?;
        let class = object.class.global()?;
        let args: Vec<Self> = object.args.items()?.take(3).collect();
        match (class.module, class.name, args.as_slice()) {
            ("_codecs", "encode", [text, encoding]) => text.encoded(*encoding),
            _ => None,
        }
    }

    fn encoded(self, encoding: Self) -> Option<Cow<'p, [u8]>> {
        match (self.node(), encoding.as_str()?) {
            (Node::Text(text), "latin1" | "latin-1") => {
                text.chars().map(|c| u8::try_from(c).ok()).collect()
            }
            _ => None,
        }
    }

    /// The members of a list, tuple or set, or those appended to an object.
    pub fn items(self) -> Option<impl ExactSizeIterator<Item = Value<'p>> + use<'p>> {
        let ids: &'p [Id] = match self.node() {
            Node::List(items) | Node::Set(items) => items,
            Node::Tuple(items) => items,
            Node::Object(parts) => &parts.items,
            _ => return None,
        };
        Some(ids.iter().map(move |id| self.at(*id)))
    }

    /// The pairs of a dict, or those set on an object such as an
    /// `OrderedDict`, in the order in which they were set. A key set twice is
    /// there twice; the later one counts in Python.
    pub fn entries(
        self,
    ) -> Option<impl ExactSizeIterator<Item = (Value<'p>, Value<'p>)> + use<'p>> {
        let pairs: &'p [(Id, Id)] = match self.node() {
            Node::Dict(pairs) => pairs,
            Node::Object(parts) => &parts.entries,
            _ => return None,
        };
        Some(
            pairs
                .iter()
                .map(move |(key, value)| (self.at(*key), self.at(*value))),
        )
    }

    /// The value under a text key (Python 2's `str` or `bytes` as well), the
    /// last one if it was set twice.
    pub fn get(self, key: &str) -> Option<Value<'p>> {
        let pairs = match self.node() {
            Node::Dict(pairs) => pairs,
            Node::Object(parts) => &parts.entries,
            _ => return None,
        };
        let (_, value) = (pairs.iter().rev()).find(|(found, _)| match self.at(*found).node() {
            Node::Text(text) => text == key,
            Node::Bytes(bytes) => **bytes == *key.as_bytes(),
            _ => false,
        })?;
        Some(self.at(*value))
    }

    /// The name of a class or function.
    pub fn global(self) -> Option<Global<'p>> {
        match self.node() {
            Node::Global { module, name } => Some(Global {
                module: self.at(*module).as_str()?,
                name: self.at(*name).as_str()?,
            }),
            _ => None,
        }
    }

    /// A call that was not made.
    pub fn object(self) -> Option<Object<'p>> {
        match self.node() {
            Node::Object(parts) => Some(Object {
                class: self.at(parts.class),
                args: self.at(parts.args),
                kwargs: parts.kwargs.map(|id| self.at(id)),
                state: parts.state.map(|id| self.at(id)),
            }),
            _ => None,
        }
    }

    /// The name of an object's class or function.
    pub fn class(self) -> Option<Global<'p>> {
        self.object()?.class.global()
    }

    /// The identification of a value that is kept outside the pickle.
    pub fn persistent(self) -> Option<Value<'p>> {
        match self.node() {
            Node::Persistent(id) => Some(self.at(*id)),
            _ => None,
        }
    }
}

impl fmt::Debug for Value<'_> {
    /// Shows the value without its parts, which may contain it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node() {
            Node::Bool(value) => write!(f, "{value}"),
            Node::Int(value) => write!(f, "{value}"),
            Node::Float(value) => write!(f, "{value:?}"),
            Node::Text(text) if text.len() <= 80 => write!(f, "{text:?}"),
            Node::Global { .. } => match self.global() {
                Some(global) => write!(f, "{global}"),
                None => f.write_str("a global name"),
            },
            _ => f.write_str(self.sort()),
        }
    }
}

#[cfg(test)]
mod tests;
