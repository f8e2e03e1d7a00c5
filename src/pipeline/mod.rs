//! From TOML text to a checked graph.
//!
//! [`load`] reads a file in passes: texts, sections, templates (a node as it
//! is written), variants (its table at every coordinate), references, order,
//! instances. Every pass tells all that it finds; the next one starts as long
//! as what it needs is there.

mod assemble;
mod axes;
mod cells;
mod document;
mod downloads;
mod entries;
mod expand;
mod graph;
mod kinds;
mod layers;
mod models;
mod order;
mod picks;
mod published;
mod resolve;
mod rounds;
mod schema;
mod substitute;
mod tables;
mod template;
mod values;
mod world;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

pub use downloads::downloads;
pub use graph::{
    Exec, Graph, Instance, ModelFiles, ModelSource, ModelSpec, NodeId, Point, Seen, Source,
    TableSpec, TableValue,
};
pub use schema::schema;

use self::{document::Document, expand::Expansion, kinds::Kinds, layers::Texts, world::World};
pub use crate::reading::{names::nearest, size::bytes};
use crate::{
    diagnostic::{Diagnostics, SourceText},
    node::KindInfo,
    reading::{self, Subject, findings, findings::Findings, names, size, source, source::normal},
};

/// What the command line says about a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `-s name=value`, in order.
    pub set: Vec<(String, String)>,
    /// `--profile NAME`, laid over the file in this order.
    pub profiles: Vec<String>,
    /// Whether files of data and models may be absent, since their results may be found in a
    /// shared cache. A model must then say its `family`.
    pub absent: bool,
}

/// Reads the pipeline at `path` and checks everything that can be known
/// before it runs; no model and no data is loaded.
///
/// # Errors
/// All errors of the file, and of those it names, at once.
pub fn load(path: &Path, options: &Options) -> Result<Graph, Diagnostics> {
    load_with(crate::nodes::KINDS, path, options)
}

/// [`load`] with other kinds, for tests.
///
/// # Errors
/// As for [`load`].
pub fn load_with(
    kinds: &'static [KindInfo],
    path: &Path,
    options: &Options,
) -> Result<Graph, Diagnostics> {
    let mut found = Findings::default();
    let graph = load_into(kinds, path, options, &mut found);
    match graph {
        Some(graph) if found.is_empty() => Ok(graph),
        _ => Err(found.into_diagnostics()),
    }
}

fn load_into(
    kinds: &'static [KindInfo],
    path: &Path,
    options: &Options,
    found: &mut Findings,
) -> Option<Graph> {
    let shown = path.display().to_string();
    let here = std::env::current_dir().unwrap_or_default();
    let absolute = normal(&here.join(path));
    let main = match source::read(&absolute, &shown) {
        Ok(main) => main,
        Err(error) => {
            found.push(*error);
            return None;
        }
    };
    let texts = Texts::default();
    let layers = layers::files(main, &texts, found)?;
    let mut files: Vec<PathBuf> = layers
        .iter()
        .rev()
        .map(|(file, _)| file.path.clone())
        .collect();
    let mut document = merge(layers, options, &texts, found);

    let sweep = axes::sweep(&document, found);
    let data = entries::data(&document.data, &document.params, &sweep, found);
    let models = models::models(&document.models, &document.params, &sweep, found);
    let round_texts = rounds::split(&mut document, found);
    let counts = rounds::counts(&document, &round_texts, &sweep, found);
    let numbers = round_numbers(counts.iter().copied().max().unwrap_or(0));
    let numbers = &texts.keep_text("rounds", numbers).text;
    let mut kinds = Kinds::new(kinds);
    let templates = template::build(
        &document,
        &round_texts,
        &counts,
        numbers,
        &sweep,
        &mut kinds,
        found,
    );
    if templates.too_many {
        return None;
    }
    let mut expansion = Expansion {
        params: &document.params,
        sweep: &sweep,
        seed: document.seed.as_ref(),
        texts: HashMap::new(),
        found,
    };
    let variants = expansion.run(&templates)?;
    let pipelines = files.len();
    files.extend(expansion.texts.into_keys());
    files[pipelines..].sort_unstable();

    let world = World::new(
        &templates, &variants, &data, &models, &sweep, &absolute, found,
    );
    let links = resolve::resolve(&world, &variants, &document, found);
    let exec = file_exec(&document, found);
    let order = order::order(&templates, &links, found);
    let mut figures = tables::Figures::default();
    let mut read_tables = |nodes: &[Instance], found: &mut Findings| -> Vec<TableSpec> {
        let mut by_name: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
        if !document.tables.entries.is_empty() {
            for (i, node) in nodes.iter().enumerate() {
                let list = by_name.entry(&node.name).or_default();
                list.push(NodeId(i as u32));
            }
        }
        let entries = document.tables.entries.iter();
        let read = |entry| {
            let scope = tables::Scope {
                world: &world,
                params: &document.params,
                nodes,
                by_name: &by_name,
            };
            tables::table(entry, &scope, &mut figures, found)
        };
        entries.filter_map(read).collect()
    };
    let order = match order {
        Some(order) if found.is_empty() => order,
        _ => {
            read_tables(&[], found);
            return None;
        }
    };
    let sees = assemble::sees(&world, &links, &order);
    let assembled = assemble::assemble(&world, variants, &links, &order, &sees, found)?;
    let nodes = assembled.nodes;
    let (dependencies, dependents) = assemble::edges(&nodes);
    let tables = read_tables(&nodes, found);
    files.extend(figures.files());
    Some(Graph {
        name: document.name.clone().unwrap_or_else(|| stem(path)),
        title: document.title.clone(),
        nodes,
        dependents,
        dependencies,
        data: assembled.data,
        models: assembled.models,
        tables,
        files,
        root: root(&absolute, here),
        exec,
    })
}

/// Lays everything together: base, file, profile, `-s`.
fn merge<'a>(
    layers: Vec<(&'a Arc<SourceText>, toml::de::DeTable<'a>)>,
    options: &Options,
    texts: &'a Texts,
    found: &mut Findings,
) -> Document<'a> {
    let mut document = Document {
        absent: options.absent,
        ..Document::default()
    };
    let last = layers.len() - 1;
    for (i, (source, table)) in layers.into_iter().enumerate() {
        document.absorb(source, table, i == last, found);
    }
    for profile in &options.profiles {
        let command = texts.keep_text("command line", format!("--profile {profile}"));
        document.apply_profile(profile, command, found);
    }
    for (name, value) in &options.set {
        layers::set(&mut document, name, value, texts, found);
    }
    document
}

/// `[1,2,…,count]`: TOML values of rounds are cut from this.
fn round_numbers(count: usize) -> String {
    let numbers: Vec<String> = (1..=count).map(|n| n.to_string()).collect();
    format!("[{}]", numbers.join(","))
}

fn file_exec(document: &Document<'_>, found: &mut Findings) -> Exec {
    let Some(entry) = &document.exec else {
        return Exec::default();
    };
    let subject = Subject {
        what: "`[exec]`",
        source: &entry.source,
        header: entry.header.clone(),
        missing: &[],
    };
    entries::exec(&subject, entry.table.clone(), found).unwrap_or_default()
}

fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(
        || "pipeline".to_owned(),
        |stem| stem.to_string_lossy().into_owned(),
    )
}

/// The root of the project that the pipeline at `path` is in: the nearest
/// folder above it that holds a `runner.toml`, else the current folder.
pub fn project(path: &Path) -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    root(&normal(&here.join(path)), here.clone())
}

/// The nearest folder above `path` that holds a `runner.toml`, else `here`.
fn root(path: &Path, here: PathBuf) -> PathBuf {
    let marked = path
        .ancestors()
        .skip(1)
        .find(|folder| folder.join("runner.toml").is_file());
    marked.map_or(here, Path::to_owned)
}
