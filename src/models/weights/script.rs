//! `TorchScript` modules: the tensors in a tree of objects, under the names that
//! `state_dict()` gives them.
//!
//! A module is an object of a class under `__torch__`, its state a dict of its
//! attributes. Which of its tensors are parameters or buffers, and which are
//! mere attributes that no state dict lists, stands in the class's source under
//! `code/` (`torch/csrc/jit/serialization/python_print.cpp`). That source is
//! looked at for these lists and for nothing else.

use std::{
    collections::{HashMap, HashSet},
    io::{Read, Seek},
};

use super::{
    archive::Archive,
    torch::{Found, Rebuild, is_tensor},
};
use crate::pickle::{Global, Value};

/// How deep modules may be nested.
const DEEPEST: usize = 64;

/// How many attributes may be visited; a module used twice counts twice.
const MOST_ATTRIBUTES: usize = 1 << 20;

/// How much source is looked at, in bytes, inflated.
const MOST_CODE: u64 = 64 << 20;

/// What a class's source says of its attributes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Class {
    is_module: bool,
    parameters: HashSet<String>,
    /// Releases before 1.6 do not say.
    buffers: Option<HashSet<String>>,
}

impl Class {
    /// Whether `state_dict()` lists the tensor attribute `name`.
    fn lists(&self, name: &str) -> bool {
        let buffers = self.buffers.as_ref();
        self.parameters.contains(name) || buffers.is_none_or(|buffers| buffers.contains(name))
    }
}

/// Reads the module `root`.
///
/// Reasons are fragments without the file's name.
pub(super) fn read(
    archive: &Archive,
    file: &mut (impl Read + Seek),
    root: Value<'_>,
    rebuild: &mut Rebuild<'_>,
) -> Result<Found, String> {
    if !root.class().is_some_and(is_script) {
        return Err(format!(
            "its `data.pkl` holds {}, not a TorchScript module",
            root.sort()
        ));
    }
    let mut walk = Walk {
        archive,
        file,
        rebuild,
        sources: HashMap::new(),
        code_left: MOST_CODE,
        attributes_left: MOST_ATTRIBUTES,
        found: Found::default(),
    };
    walk.module(root, "", 0)?;
    Ok(walk.found)
}

fn is_script(class: Global<'_>) -> bool {
    class.module == "__torch__" || class.module.starts_with("__torch__.")
}

struct Walk<'w, 'a, F> {
    archive: &'w Archive,
    file: &'w mut F,
    rebuild: &'w mut Rebuild<'a>,
    /// Classes by source file and name.
    sources: HashMap<String, HashMap<String, Class>>,
    code_left: u64,
    attributes_left: usize,
    found: Found,
}

impl<F: Read + Seek> Walk<'_, '_, F> {
    /// Adds the tensors of `module`, whose name with a dot is `prefix`.
    fn module(&mut self, module: Value<'_>, prefix: &str, depth: usize) -> Result<(), String> {
        if depth > DEEPEST {
            return Err(format!("its modules are nested deeper than {DEEPEST}"));
        }
        let attributes = (module.object())
            .and_then(|object| object.state?.entries())
            .ok_or_else(|| format!("module `{prefix}` has no attributes"))?;
        let source = match module.class() {
            Some(class) => self.load(class)?.map(|source| (source, class.name)),
            None => None,
        };
        for (key, value) in attributes {
            self.attributes_left = (self.attributes_left.checked_sub(1))
                .ok_or_else(|| format!("it has more than {MOST_ATTRIBUTES} attributes"))?;
            let key = key
                .as_str()
                .ok_or_else(|| format!("module `{prefix}` has {} as a name", key.sort()))?;
            let name = format!("{prefix}{key}");
            self.rebuild.name(&name)?;
            if is_tensor(value) {
                let class = (source.as_ref())
                    .and_then(|(source, class)| self.sources.get(source)?.get(*class));
                if class.is_some_and(|class| !class.lists(key)) {
                    self.found.skipped.push(name);
                    continue;
                }
                let entry = (self.rebuild.tensor(value))
                    .map_err(|reason| format!("tensor `{name}`: {reason}"))?;
                self.found.add(name, entry)?;
            } else if self.is_module(value)? {
                self.module(value, &format!("{name}."), depth + 1)?;
            } else if let Some(value) = value.as_int().filter(|_| prefix.is_empty()) {
                self.found.integers.insert(name, value);
            } else if value.items().is_some() || value.entries().is_some() {
                self.found.skipped.push(name);
            }
        }
        Ok(())
    }

    fn is_module(&mut self, value: Value<'_>) -> Result<bool, String> {
        let Some(class) = value.class().filter(|class| is_script(*class)) else {
            return Ok(false);
        };
        let source = self.load(class)?;
        let known = source.and_then(|source| self.sources.get(&source)?.get(class.name));
        Ok(known.is_none_or(|class| class.is_module))
    }

    /// Reads the source of `class`, unless it has been read; gives its file.
    fn load(&mut self, class: Global<'_>) -> Result<Option<String>, String> {
        let name = format!("code/{}.py", class.module.replace('.', "/"));
        if self.sources.contains_key(&name) {
            return Ok(Some(name));
        }
        let Some(source) = self.archive.contents(self.file, &name, self.code_left)? else {
            return Ok(None);
        };
        self.code_left -= source.len() as u64;
        let source = String::from_utf8(source).map_err(|_| format!("`{name}` is not UTF-8"))?;
        self.sources.insert(name.clone(), classes(&source));
        Ok(Some(name))
    }
}

/// The classes of a source file. Only their heads are looked at.
fn classes(source: &str) -> HashMap<String, Class> {
    let mut classes = HashMap::new();
    let mut current = None;
    for line in source.lines() {
        if let Some(head) = line.strip_prefix("class ") {
            let name = head.split(['(', ':']).next().unwrap_or_default();
            let class: &mut Class = classes.entry(name.to_owned()).or_default();
            class.is_module = head.contains("(Module)");
            current = Some(class);
        } else if let Some(class) = &mut current {
            if let Some(list) = line.strip_prefix("  __parameters__ = [") {
                class.parameters = quoted(list);
            } else if let Some(list) = line.strip_prefix("  __buffers__ = [") {
                class.buffers = Some(quoted(list));
            }
        }
    }
    classes
}

/// The strings in `"a", "b", ]`.
fn quoted(list: &str) -> HashSet<String> {
    list.split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_of_a_class_are_read_from_its_source() {
        let source = "class Norm(Module):\n  __parameters__ = [\"weight\", \"bias\", ]\n  \
            __buffers__ = [\"mean\", ]\n  weight : Tensor\n  def forward(self):\n    \
            return x\nclass Old(Module):\n  __parameters__ = []\nclass Pair(NamedTuple):\n  \
            a : int\n";
        let classes = classes(source);
        assert_eq!(classes.len(), 3);
        let lists = |class: &str, names: [&str; 4]| names.map(|n| classes[class].lists(n));
        let names = ["weight", "bias", "mean", "mask"];
        assert_eq!(lists("Norm", names), [true, true, true, false]);
        assert_eq!(lists("Old", names), [true; 4]);
        assert!(classes["Norm"].is_module && !classes["Pair"].is_module);
    }
}
