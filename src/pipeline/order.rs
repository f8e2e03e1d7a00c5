//! The order in which instances can run, or the cycles that forbid one.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet, VecDeque},
};

use petgraph::{
    Direction,
    algo::kosaraju_scc,
    graph::{DiGraph, NodeIndex},
};

use super::{
    axes,
    findings::Findings,
    graph::Point,
    resolve::{Link, Target},
    template::Templates,
};
use crate::diagnostic::{Diagnostic, Place};

/// Cycles that are told one by one.
const MAX_CYCLES: usize = 20;

/// All instances (before the sweep) so that each comes after those it reads,
/// and otherwise in file order; `None` after telling of cycles.
pub(super) fn order(
    templates: &Templates<'_, '_>,
    links: &[Vec<Vec<Link>>],
    found: &mut Findings,
) -> Option<Vec<usize>> {
    let edges = links.iter().flatten().flatten().count();
    let mut graph = DiGraph::<(), (), u32>::with_capacity(templates.units, edges);
    for _ in 0..templates.units {
        graph.add_node(());
    }
    for (template, variants) in templates.list.iter().zip(links) {
        let points = (variants.len() / template.units.max(1)).max(1);
        for (v, links) in variants.iter().enumerate() {
            let reader = NodeIndex::new(template.first_unit + v / points);
            for link in links {
                if let Target::Unit { unit, .. } = &link.target {
                    graph.add_edge(NodeIndex::new(*unit), reader, ());
                }
            }
        }
    }
    let mut waits: Vec<usize> = graph
        .node_indices()
        .map(|i| graph.neighbors_directed(i, Direction::Incoming).count())
        .collect();
    let ready = (0..templates.units).filter(|i| waits[*i] == 0).map(Reverse);
    let mut ready: BinaryHeap<Reverse<usize>> = ready.collect();
    let mut order = Vec::with_capacity(templates.units);
    while let Some(Reverse(unit)) = ready.pop() {
        order.push(unit);
        for reader in graph.neighbors(NodeIndex::new(unit)) {
            waits[reader.index()] -= 1;
            if waits[reader.index()] == 0 {
                ready.push(Reverse(reader.index()));
            }
        }
    }
    if order.len() == templates.units {
        return Some(order);
    }
    tell_cycles(templates, links, &graph, found);
    None
}

fn tell_cycles(
    templates: &Templates<'_, '_>,
    links: &[Vec<Vec<Link>>],
    graph: &DiGraph<(), (), u32>,
    found: &mut Findings,
) {
    let mut told = HashSet::new();
    let mut components = kosaraju_scc(graph);
    for component in &mut components {
        component.sort_unstable();
    }
    components.sort_unstable();
    for component in components {
        let start = component[0];
        let alone = component.len() == 1 && !graph.contains_edge(start, start);
        if alone || told.len() >= MAX_CYCLES {
            continue;
        }
        let cycle = shortest_cycle(graph, start, &component.into_iter().collect());
        let place = |i: usize| template_of(templates, cycle[i].index());
        let mut members: Vec<usize> = (0..cycle.len()).map(place).collect();
        let path: Vec<String> = cycle.iter().map(|i| name(templates, i.index())).collect();
        members.sort_unstable();
        members.dedup();
        // The rounds of a loop and the points of a matrix repeat a cycle.
        if !told.insert(members) {
            continue;
        }
        let spot = |i: usize| {
            let (reader, read) = (cycle[i].index(), cycle[i + 1].index());
            let template = &templates.list[template_of(templates, reader)];
            let span = span_of(templates, links, reader, read);
            Place::new(template.source, span.unwrap_or(template.header.clone()))
        };
        let message = format!("nodes wait for each other: {}", path.join(" -> "));
        let mut diagnostic = Diagnostic::at(spot(0), message)
            .label(format!("`{}` reads `{}`", path[0], path[1]))
            .hint("`a -> b` means that a reads b; one of these must not".to_owned());
        for i in 1..(cycle.len() - 1).min(6) {
            let text = format!("`{}` reads `{}`", path[i], path[i + 1]);
            diagnostic = diagnostic.note(spot(i), text);
        }
        found.push(diagnostic);
    }
}

/// A shortest way from `start` back to itself, along what is read, inside `component`.
fn shortest_cycle(
    graph: &DiGraph<(), (), u32>,
    start: NodeIndex,
    component: &HashSet<NodeIndex>,
) -> Vec<NodeIndex> {
    let mut from = std::collections::HashMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(reader) = queue.pop_front() {
        for read in graph.neighbors_directed(reader, Direction::Incoming) {
            if read == start {
                let mut path = vec![start];
                let mut at = reader;
                while at != start {
                    path.push(at);
                    at = from[&at];
                }
                path.push(start);
                path.reverse();
                return path;
            }
            if component.contains(&read) && !from.contains_key(&read) {
                from.insert(read, reader);
                queue.push_back(read);
            }
        }
    }
    vec![start, start]
}

/// The node that the instance `unit` belongs to.
pub(super) fn template_of(templates: &Templates<'_, '_>, unit: usize) -> usize {
    templates
        .list
        .partition_point(|template| template.first_unit <= unit)
        - 1
}

/// The id of the instance `unit` as far as it is known before the sweep.
fn name(templates: &Templates<'_, '_>, unit: usize) -> String {
    let template = &templates.list[template_of(templates, unit)];
    let at = axes::coordinates(&template.axes, unit - template.first_unit);
    let points: Vec<(&str, &Point)> = template
        .axes
        .iter()
        .zip(at)
        .map(|(axis, at)| (axis.name.as_str(), &axis.points[at]))
        .collect();
    axes::id(&template.name, &points)
}

/// Where the instance `reader` names the instance `read`.
fn span_of(
    templates: &Templates<'_, '_>,
    links: &[Vec<Vec<Link>>],
    reader: usize,
    read: usize,
) -> Option<std::ops::Range<usize>> {
    let t = template_of(templates, reader);
    let template = &templates.list[t];
    let points = (links[t].len() / template.units.max(1)).max(1);
    let first = (reader - template.first_unit) * points;
    let variants = links[t].get(first..first + points)?;
    variants
        .iter()
        .flatten()
        .find(|link| matches!(&link.target, Target::Unit { unit, .. } if *unit == read))
        .map(|link| link.span.clone())
}
