//! Pipeline files: an error that points into a file, or a graph whose order holds and which the
//! same file, taken apart and written anew, gives again.

use std::{collections::HashSet, fmt::Write as _, path::Path};

use runner::{
    diagnostic::Diagnostics,
    pipeline::{Graph, Options, downloads, load},
};

/// What stands between a file and the one that it may extend, `base.toml`.
const BASE: &[u8] = b"\n#### base.toml\n";
/// Larger graphs are loaded once and not compared.
const MOST_NODES: usize = 500;

/// A first line such as `# options: --profile demo -s a=1` is the command line.
pub fn check(bytes: &[u8]) -> bool {
    let at = bytes.windows(BASE.len()).position(|part| part == BASE);
    let (main, base) = match at {
        Some(at) => (&bytes[..at], Some(&bytes[at + BASE.len()..])),
        None => (bytes, None),
    };
    super::in_folder(|folder| {
        let path = folder.join("base.toml");
        match base {
            Some(base) => std::fs::write(path, base).unwrap(),
            None => drop(std::fs::remove_file(path)),
        }
        read(main, &folder.join("a.toml"))
    })
}

fn read(main: &[u8], path: &Path) -> bool {
    std::fs::write(path, main).unwrap();
    let options = options(main);
    if let Err(wrong) = downloads(path, &options) {
        pointed(&wrong);
    }
    let graph = match load(path, &options) {
        Ok(graph) => graph,
        Err(wrong) => {
            pointed(&wrong);
            return false;
        }
    };
    ordered(&graph);
    if graph.nodes.len() > MOST_NODES {
        return true;
    }
    let seen = described(&graph);
    let table: toml::Table = toml::from_str(str::from_utf8(main).unwrap()).unwrap();
    let written = toml::to_string(&table).unwrap();
    std::fs::write(path, &written).unwrap();
    match load(path, &options) {
        Ok(again) => assert_eq!(described(&again), seen, "{written}"),
        Err(wrong) => panic!("{}\n{written}", wrong.render(false, 100)),
    }
    true
}

fn options(main: &[u8]) -> Options {
    let mut options = Options::default();
    let text = String::from_utf8_lossy(main);
    let first = text.lines().next().unwrap_or_default();
    let first = first.strip_prefix("# options: ").unwrap_or_default();
    let mut words = first.split(' ');
    while let (Some(flag), Some(value)) = (words.next(), words.next()) {
        match (flag, value.split_once('=')) {
            ("--profile", _) => options.profiles.push(value.to_owned()),
            (_, Some((name, value))) => options.set.push((name.to_owned(), value.to_owned())),
            _ => {}
        }
    }
    options
}

/// Every error has a place, can be shown and comes in order.
fn pointed(wrong: &Diagnostics) {
    assert!(!wrong.0.is_empty());
    for error in &wrong.0 {
        let notes = error.notes.iter().map(|note| &note.place);
        let places = notes.map(|place| (&place.source, &place.span));
        for (source, span) in places.chain(error.span.as_ref().map(|span| (&error.source, span))) {
            assert!(
                span.start <= span.end && span.end <= source.text.len(),
                "{span:?}"
            );
        }
        assert!(!error.message.is_empty() && !error.message.contains('\n'));
    }
    assert_eq!(*wrong, wrong.clone().sorted());
    assert!(!wrong.render(false, 100).is_empty() && !wrong.render(true, 40).is_empty());
    serde_json::to_string(wrong).unwrap();
}

/// Every node has a name of its own and comes after those that it needs.
fn ordered(graph: &Graph) {
    let names: HashSet<&str> = graph.nodes.iter().map(|node| node.id.as_str()).collect();
    assert_eq!(names.len(), graph.nodes.len());
    assert_eq!(graph.dependencies.len(), graph.nodes.len());
    assert_eq!(graph.dependents.len(), graph.nodes.len());
    let mut edges = 0;
    for id in graph.ids() {
        for needed in &graph.dependencies[id.index()] {
            assert!(needed < &id);
            assert!(graph.dependents[needed.index()].contains(&id));
        }
        edges += graph.dependencies[id.index()].len();
    }
    assert_eq!(graph.dependents.iter().map(Vec::len).sum::<usize>(), edges);
}

/// All that a graph says but for the files that it was read from.
fn described(graph: &Graph) -> String {
    let mut text = String::new();
    for node in &graph.nodes {
        let _ = writeln!(
            text,
            "{} {} {:?} {} {} {:?} {:?} {:?} {:?}",
            node.id,
            node.name,
            node.at,
            node.kind.name,
            node.params,
            node.output,
            node.inputs,
            node.exec,
            node.saw
        );
    }
    let _ = writeln!(
        text,
        "{} {:?} {:?} {:?} {:?} {:?} {:?}",
        graph.name,
        graph.title,
        graph.dependencies,
        graph.data,
        graph.models,
        graph.tables,
        graph.exec
    );
    text
}
