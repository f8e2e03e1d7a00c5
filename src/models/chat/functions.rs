//! What chat templates call, as transformers and Jinja define it.

use std::io;

use jiff::{civil::Date, tz::TimeZone};
use minijinja::{
    Environment, Error, ErrorKind, State, Value,
    value::{Kwargs, ValueKind, from_args},
};
use minijinja_contrib::pycompat;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};

/// The widest indent of JSON.
const WIDEST: usize = 16;
/// The longest document, in bytes.
const LONGEST_JSON: usize = 8 << 20;
/// What the engine lets a unit of fuel pay for.
const BYTES_OF_FUEL: usize = 64;

/// Adds the functions and filters that the engine lacks.
pub(super) fn add(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(method);
    environment.add_function("raise_exception", raise_exception);
    environment.add_filter("tojson", tojson);
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_test("sequence", |value: &Value| {
        matches!(
            value.kind(),
            ValueKind::Seq | ValueKind::String | ValueKind::Map
        )
    });
}

/// Sets the day that `strftime_now` tells.
pub(super) fn set_date(environment: &mut Environment<'static>, date: Date) {
    environment.add_function("strftime_now", move |format: &str| {
        date.to_zoned_datetime(TimeZone::UTC)
            .and_then(|time| jiff::fmt::strtime::format(in_c_locale(format), &time))
            .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
    });
}

/// Writes out what depends on a language, as C and Python do without one.
fn in_c_locale(format: &str) -> String {
    let mut out = String::with_capacity(format.len());
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        match (character, characters.clone().next()) {
            ('%', Some(directive)) => {
                characters.next();
                match directive {
                    'x' => out.push_str("%m/%d/%y"),
                    'X' => out.push_str("%H:%M:%S"),
                    'c' => out.push_str("%a %b %e %H:%M:%S %Y"),
                    other => out.extend(['%', other]),
                }
            }
            _ => out.push(character),
        }
    }
    out
}

fn raise_exception(message: &str) -> Result<String, Error> {
    Err(Error::new(
        ErrorKind::InvalidOperation,
        format!("the template refuses: {message}"),
    ))
}

/// Jinja's `default`, whose options may be named.
#[expect(clippy::needless_pass_by_value, reason = "the signature of a filter")]
fn default(
    value: Value,
    other: Option<Value>,
    boolean: Option<bool>,
    options: Kwargs,
) -> Result<Value, Error> {
    let other = match other {
        Some(other) => other,
        None => options
            .get::<Option<Value>>("default_value")?
            .unwrap_or(Value::from("")),
    };
    let boolean = match boolean {
        Some(boolean) => boolean,
        None => options.get::<Option<bool>>("boolean")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    let absent = value.is_undefined() || boolean && !value.is_true();
    Ok(if absent { other } else { value })
}

/// Methods of Python's values.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        match name {
            "title" => {
                from_args::<()>(args)?;
                return Ok(Value::from(title(text)));
            }
            "removeprefix" => {
                let (part,): (&str,) = from_args(args)?;
                return Ok(Value::from(text.strip_prefix(part).unwrap_or(text)));
            }
            "removesuffix" => {
                let (part,): (&str,) = from_args(args)?;
                return Ok(Value::from(text.strip_suffix(part).unwrap_or(text)));
            }
            // The one method whose result nothing else bounds.
            "format" if has_long_number(text) => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    "`format` is asked for a field that is too wide",
                ));
            }
            _ => {}
        }
    }
    pycompat::unknown_method_callback(state, value, name, args)
}

/// Whether a number in `text` has more than three digits.
fn has_long_number(text: &str) -> bool {
    let mut numbers = text.split(|character: char| !character.is_ascii_digit());
    numbers.any(|digits| digits.len() > 3)
}

/// Capitals where letters begin, as in Python.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for character in text.chars() {
        if inside {
            out.extend(character.to_lowercase());
        } else {
            out.extend(character.to_uppercase());
        }
        inside = character.is_lowercase() || character.is_uppercase();
    }
    out
}

/// `json.dumps` of Python: without HTML escapes, with a space after `,` and `:`.
#[expect(clippy::needless_pass_by_value, reason = "the signature of a filter")]
fn tojson(state: &State, value: &Value, options: Kwargs) -> Result<Value, Error> {
    let wrong = |text: &str| Error::new(ErrorKind::InvalidOperation, format!("`tojson`: {text}"));
    let indent: Option<Value> = options.get("indent")?;
    let indent = match indent.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) if indent.kind() == ValueKind::String => Some(indent.to_string()),
        Some(indent) => {
            let spaces = usize::try_from(indent).map_err(|_| wrong("`indent` is a number"))?;
            Some(" ".repeat(spaces.min(WIDEST + 1)))
        }
    };
    if indent.as_ref().is_some_and(|indent| indent.len() > WIDEST) {
        return Err(wrong("its `indent` is too wide"));
    }
    let separators: Option<Vec<String>> = options.get("separators")?;
    let (item, key) = match separators.as_deref() {
        // With lines of their own, items need no space between them.
        None if indent.is_some() => (",", ": "),
        None => (", ", ": "),
        Some([item, key]) => (item.as_str(), key.as_str()),
        Some(_) => return Err(wrong("`separators` are two texts")),
    };
    let format = Python {
        item,
        key,
        indent: indent.as_deref(),
        ascii: options
            .get::<Option<bool>>("ensure_ascii")?
            .unwrap_or(false),
        depth: 0,
        empty: true,
    };
    let sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let text = if sorted {
        let plain = written(state, value, CompactFormatter)?;
        let mut value: serde_json::Value = serde_json::from_slice(&plain).map_err(failed)?;
        value.sort_all_objects();
        written(state, &value, format)?
    } else {
        written(state, value, format)?
    };
    Ok(Value::from(String::from_utf8_lossy(&text).into_owned()))
}

fn written(
    state: &State,
    value: &impl Serialize,
    format: impl Formatter,
) -> Result<Vec<u8>, Error> {
    let fuel = state.fuel_levels().map_or(0, |(_, remaining)| remaining);
    let mut out = Bounded {
        bytes: Vec::new(),
        most: (fuel as usize)
            .saturating_mul(BYTES_OF_FUEL)
            .min(LONGEST_JSON),
    };
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, format);
    value.serialize(&mut serializer).map_err(failed)?;
    Ok(out.bytes)
}

#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn failed(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::BadSerialization, error.to_string())
}

/// Takes as many bytes as the rest of the fuel pays for: a small value can be a
/// large document.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.most.saturating_sub(self.bytes.len()) {
            return Err(io::Error::other("the text is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How Python's `json` module puts a document together.
struct Python<'a> {
    item: &'a str,
    key: &'a str,
    indent: Option<&'a str>,
    ascii: bool,
    depth: usize,
    empty: bool,
}

impl Python<'_> {
    fn line<W: ?Sized + io::Write>(&self, out: &mut W) -> io::Result<()> {
        if let Some(indent) = self.indent {
            out.write_all(b"\n")?;
            for _ in 0..self.depth {
                out.write_all(indent.as_bytes())?;
            }
        }
        Ok(())
    }

    fn open<W: ?Sized + io::Write>(&mut self, out: &mut W, b: u8) -> io::Result<()> {
        self.depth += 1;
        self.empty = true;
        out.write_all(&[b])
    }

    fn close<W: ?Sized + io::Write>(&mut self, out: &mut W, b: u8) -> io::Result<()> {
        self.depth -= 1;
        if !self.empty {
            self.line(out)?;
        }
        self.empty = false;
        out.write_all(&[b])
    }

    fn next<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.empty = false;
        if !first {
            out.write_all(self.item.as_bytes())?;
        }
        self.line(out)
    }
}

impl Formatter for Python<'_> {
    fn begin_array<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b'[')
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b']')
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.next(out, first)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b'{')
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b'}')
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.next(out, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(self.key.as_bytes())
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if !self.ascii {
            return out.write_all(fragment.as_bytes());
        }
        let mut units = [0; 2];
        for character in fragment.chars() {
            if character.is_ascii() && character != '\u{7F}' {
                out.write_all(&[character as u8])?;
                continue;
            }
            for unit in character.encode_utf16(&mut units) {
                write!(out, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}
