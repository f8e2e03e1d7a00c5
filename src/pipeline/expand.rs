//! Reads every node's table at every coordinate of its axes: substitution,
//! prompt files, parameters, references as they are written.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;
use toml::{
    Spanned,
    de::{DeInteger, DeTable, DeValue},
};

use super::{
    axes::{self, MAX_INSTANCES},
    document::wrong,
    entries::{self, beside},
    findings::Findings,
    graph::{Exec, Seen},
    kinds::KindFacts,
    reading::{Subject, read_with},
    source::{read, shown_beside},
    substitute::{Axis, Params, Scope, Substitution},
    template::{Role, Template, Templates},
    values::as_point,
};
use crate::{
    artifact::Type,
    data::ClassList,
    diagnostic::{Diagnostic, Place},
    node::{Accept, Complaint, Node, Port, TextFile},
};

/// A reference field's entry as it is written.
#[derive(Clone)]
pub(super) struct Ref<'a> {
    /// The field.
    pub(super) port: &'static Port,
    /// What stands there.
    pub(super) written: Written<'a>,
    /// Where.
    pub(super) span: Range<usize>,
}

/// What a reference field holds.
#[derive(Clone)]
pub(super) enum Written<'a> {
    /// The name of something.
    Name(Cow<'a, str>),
    /// Class names.
    Classes(Vec<String>),
}

/// A node's table at one coordinate.
#[derive(Clone, Default)]
pub(super) struct Variant<'a> {
    /// Ready to work; `None` when its parameters are wrong.
    pub(super) node: Option<Arc<dyn Node>>,
    /// Its parameters.
    pub(super) params: Value,
    /// What it makes.
    pub(super) output: Option<Type>,
    /// Its execution settings.
    pub(super) exec: Exec,
    /// Its references.
    pub(super) refs: Vec<Ref<'a>>,
    /// Parameters that it saw.
    pub(super) saw: BTreeMap<String, Seen>,
}

/// One reading of a node's table.
struct Gathered<'a> {
    /// References, settings, parameters seen.
    variant: Variant<'a>,
    /// Parameters for the kind.
    table: DeTable<'a>,
    /// Fields about which something was told.
    bad: Vec<String>,
    /// Connected ports.
    ports: BTreeSet<&'static str>,
}

/// What expansion needs besides the templates.
pub(super) struct Expansion<'e, 'a> {
    /// `[params]`.
    pub(super) params: &'e Params<'a>,
    /// `[sweep]`.
    pub(super) sweep: &'e [Axis<'a>],
    /// The file's seed.
    pub(super) seed: Option<&'e Spanned<DeValue<'a>>>,
    /// Texts that were read, by path.
    pub(super) texts: HashMap<PathBuf, Option<Arc<str>>>,
    /// Errors.
    pub(super) found: &'e mut Findings,
}

impl<'a> Expansion<'_, 'a> {
    /// Reads all nodes: for each its variants, by instance and then by point of
    /// the sweep axes that its own text names. `None` when there are too many.
    pub(super) fn run(&mut self, templates: &Templates<'_, 'a>) -> Option<Vec<Vec<Variant<'a>>>> {
        let mut total = 0_usize;
        let mut all = Vec::with_capacity(templates.list.len());
        for template in &templates.list {
            let points = axes::combinations(self.sweep, template.sees);
            total = total.saturating_add(points.saturating_mul(template.units));
            if total > MAX_INSTANCES {
                self.found.push(axes::too_many(template.place()));
                return None;
            }
            let mut variants = Vec::new();
            if template.broken {
                all.push(variants);
                continue;
            }
            if template.constant {
                let zeros = vec![0; template.axes.len()];
                let variant = self.evaluate(template, &zeros, &vec![0; self.sweep.len()]);
                variants = vec![variant; template.units];
            } else {
                for unit in 0..template.units {
                    let at = axes::coordinates(&template.axes, unit);
                    axes::each_point(self.sweep, template.sees, &mut |sweep_at| {
                        variants.push(self.evaluate(template, &at, sweep_at));
                    });
                }
            }
            all.push(variants);
        }
        Some(all)
    }

    fn evaluate(
        &mut self,
        template: &Template<'_, 'a>,
        at: &[usize],
        sweep_at: &[usize],
    ) -> Variant<'a> {
        let Some(kind) = &template.kind else {
            return Variant::default();
        };
        let before = self.found.len();
        let mut gathered = self.gather(template, kind, at, sweep_at);
        let mut variant = std::mem::take(&mut gathered.variant);
        let table = std::mem::take(&mut gathered.table);
        let header = template.header.clone();
        let mut parsed =
            (kind.info.parse)(Spanned::new(header.clone(), DeValue::Table(table))).ok();
        if parsed.is_none() {
            // Parsing took the table; what was told of it is not told twice.
            let table = self.gather(template, kind, at, sweep_at).table;
            let subject = Subject {
                what: &format!("a node of kind `{}`", kind.info.name),
                source: template.source,
                header,
                missing: &gathered.bad,
            };
            parsed = read_with(&subject, table, self.found, kind.info.parse);
        }
        if let Some(parsed) = parsed {
            let ports = &gathered.ports;
            // What a kind says of a table with wrong fields would be a guess.
            if self.found.len() == before && gathered.bad.is_empty() && template.sound {
                for complaint in parsed.node.check(ports) {
                    self.found.push(complain(template, &complaint));
                }
            }
            variant.output = Some(parsed.node.output(ports));
            variant.node = Some(parsed.node);
            variant.params = parsed.params;
        }
        variant
    }

    /// The table of parameters at one coordinate, and all that is beside it.
    fn gather(
        &mut self,
        template: &Template<'_, 'a>,
        kind: &KindFacts,
        at: &[usize],
        sweep_at: &[usize],
    ) -> Gathered<'a> {
        let scope = Scope {
            params: self.params,
            axes: &template.axes,
            at,
            sweep: Some(self.sweep),
            sweep_at,
        };
        let mut out = Gathered {
            variant: Variant::default(),
            table: DeTable::with_capacity(template.fields.len() + 2),
            bad: template.missing.clone(),
            ports: BTreeSet::new(),
        };
        for field in &template.fields {
            let name = field.key.get_ref().as_ref();
            let mut substitution = Substitution {
                scope: &scope,
                source: template.source,
                found: self.found,
                saw: std::mem::take(&mut out.variant.saw),
            };
            let value = substitution.value(field.value);
            out.variant.saw = substitution.saw;
            let Some(value) = value else {
                out.bad.push(name.to_owned());
                if let Role::File(file) = field.role {
                    out.bad.push(file.sets.to_owned());
                }
                continue;
            };
            match field.role {
                Role::Param => {
                    let text =
                        field.value.get_ref().is_str() && kind.texts.iter().any(|n| n == name);
                    let value = if text { as_text(value) } else { value };
                    out.table.insert(field.key.clone(), value);
                }
                Role::Port(port) => {
                    let before = out.variant.refs.len();
                    self.references(template, port, value, &mut out.variant.refs);
                    if out.variant.refs.len() > before || !port.many {
                        out.ports.insert(port.name);
                    }
                }
                Role::Exec => {
                    if let Some(exec) = self.exec(template, field.key.span(), value) {
                        out.variant.exec = exec;
                    }
                }
                Role::File(file) => {
                    match self.text_file(template, file, field.key.span(), &value) {
                        Some(text) => {
                            let key = Spanned::new(field.key.span(), Cow::Borrowed(file.sets));
                            let text = DeValue::String(Cow::Owned(text.to_string()));
                            out.table.insert(key, Spanned::new(value.span(), text));
                        }
                        None => out.bad.push(file.sets.to_owned()),
                    }
                }
            }
        }
        if kind.info.draws {
            self.fill_in(template, at, &mut out.table);
        }
        out
    }

    /// The file's seed and the round's number, for kinds that draw.
    fn fill_in(&self, template: &Template<'_, 'a>, at: &[usize], table: &mut DeTable<'a>) {
        let mut insert = |name: &'static str, value: DeValue<'a>| {
            if !table.contains_key(name) {
                let key = Spanned::new(template.header.clone(), Cow::Borrowed(name));
                table.insert(key, Spanned::new(template.header.clone(), value));
            }
        };
        let seed = self.seed.map(|seed| seed.get_ref().clone());
        insert(
            "seed",
            seed.unwrap_or(DeValue::Integer(DeInteger::default())),
        );
        if template.round.is_some()
            && let Some(i) = template.axes.iter().position(|axis| axis.name == "round")
        {
            insert("stream", template.axes[i].values[at[i]].clone());
        }
    }

    fn exec(
        &mut self,
        template: &Template<'_, 'a>,
        header: Range<usize>,
        value: Spanned<DeValue<'a>>,
    ) -> Option<Exec> {
        if !value.get_ref().is_table() {
            self.found.push(
                wrong("exec", "a table", template.source, &value)
                    .hint("write `exec = { device = \"cpu\", batch = 64 }`".to_owned()),
            );
            return None;
        }
        let DeValue::Table(table) = value.into_inner() else {
            return None;
        };
        let subject = Subject {
            what: "`exec`",
            source: template.source,
            header,
            missing: &[],
        };
        entries::exec(&subject, table, self.found)
    }

    /// The text of a file that a field names; read once for all who name it.
    fn text_file(
        &mut self,
        template: &Template<'_, 'a>,
        file: &TextFile,
        key: Range<usize>,
        value: &Spanned<DeValue<'a>>,
    ) -> Option<Arc<str>> {
        let field = file.field;
        if template.fields.iter().any(|f| f.key.get_ref() == file.sets) {
            let message = format!("`{field}` and `{}` say the same thing", file.sets);
            let place = Place::new(template.source, key);
            self.found
                .push(Diagnostic::at(place, message).label("one of the two must go"));
            return None;
        }
        let Some(name) = value.get_ref().as_str() else {
            self.found
                .push(wrong(field, "the path of a text", template.source, value));
            return None;
        };
        let path = beside(template.source, Path::new(name));
        if let Some(Some(text)) = self.texts.get(&path) {
            return Some(text.clone());
        }
        let shown = shown_beside(&template.source.shown, Path::new(name));
        let text = match read(&path, &shown) {
            Ok(source) => Some(Arc::from(source.text.as_str())),
            Err(error) => {
                let place = Place::new(template.source, value.span());
                let mut error = Diagnostic {
                    label: format!("the path is relative to `{}`", template.source.shown),
                    ..Diagnostic::at(place, error.message)
                };
                if path.exists() {
                    error = error.label("cannot be used");
                }
                self.found.push(error);
                None
            }
        };
        self.texts.insert(path, text.clone());
        text
    }

    fn references(
        &mut self,
        template: &Template<'_, 'a>,
        port: &'static Port,
        value: Spanned<DeValue<'a>>,
        refs: &mut Vec<Ref<'a>>,
    ) {
        let span = value.span();
        let classes = port.accepts.contains(&Accept::Classes);
        match value.get_ref() {
            DeValue::String(_) => {}
            DeValue::Array(_) if port.many || classes => {}
            _ => {
                let takes = match (port.many, classes) {
                    (true, _) => "names of other things",
                    (false, true) => "a name or a list of class names",
                    (false, false) => "the name of something",
                };
                self.found
                    .push(wrong(port.name, takes, template.source, &value));
                return;
            }
        }
        let list = match value.into_inner() {
            DeValue::String(name) => {
                let written = Written::Name(name);
                refs.push(Ref {
                    port,
                    written,
                    span,
                });
                return;
            }
            DeValue::Array(list) => list,
            _ => return,
        };
        let mut names = Vec::new();
        for item in list {
            let span = item.span();
            if !item.get_ref().is_str() {
                let source = template.source;
                self.found
                    .push(wrong(port.name, "a list of strings", source, &item));
                continue;
            }
            if let DeValue::String(name) = item.into_inner() {
                names.push((name, span));
            }
        }
        if port.many {
            if names.is_empty() && port.required {
                let place = Place::new(template.source, span);
                self.found.push(
                    Diagnostic::at(place, format!("`{}` is empty", port.name))
                        .label("at least one name is needed"),
                );
            }
            refs.extend(names.into_iter().map(|(name, span)| Ref {
                port,
                written: Written::Name(name),
                span,
            }));
            return;
        }
        let classes: Vec<String> = names
            .into_iter()
            .map(|(name, _)| name.into_owned())
            .collect();
        if let Err(error) = ClassList::new(classes.clone()) {
            let place = Place::new(template.source, span.clone());
            self.found
                .push(Diagnostic::at(place, format!("`{}`: {error}", port.name)));
        }
        refs.push(Ref {
            port,
            written: Written::Classes(classes),
            span,
        });
    }
}

/// A parameter that holds text takes a scalar of any type as its text: `"${n}"`
/// alone would be a number.
fn as_text(value: Spanned<DeValue<'_>>) -> Spanned<DeValue<'_>> {
    let point = match value.get_ref() {
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => as_point(value.get_ref()),
        _ => None,
    };
    match point {
        Some(point) => {
            let text = DeValue::String(Cow::Owned(point.to_string()));
            Spanned::new(value.span(), text)
        }
        None => value,
    }
}

/// A kind's own complaint, at the field that it names.
fn complain(template: &Template<'_, '_>, complaint: &Complaint) -> Diagnostic {
    let field = complaint.field.and_then(|name| {
        template.fields.iter().find(|field| {
            let sets = match field.role {
                Role::File(file) => file.sets,
                _ => "",
            };
            field.key.get_ref() == name || sets == name
        })
    });
    let place = field.map_or(template.place(), |field| {
        Place::new(template.source, field.value.span())
    });
    Diagnostic::at(place, complaint.message.clone()).hint(complaint.hint.clone())
}
