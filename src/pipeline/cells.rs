//! What a value of a table means: `eval.top1`, `eval@n=2.top1.low`,
//! `refine.eval.curve.3`.

use std::collections::BTreeMap;

use super::{
    graph::{Instance, NodeId},
    names::{nearest, quoted},
    picks::{self, Problem},
    values::means,
    world::World,
};

/// The instances that `text` names, and the field of their result. Without
/// `nodes`, in a file with errors, only the node's name is checked.
pub(super) fn look_up(
    text: &str,
    world: &World<'_, '_, '_>,
    nodes: &[Instance],
    by_name: &BTreeMap<&str, Vec<NodeId>>,
) -> Result<(Vec<NodeId>, String), Problem> {
    let (path, rest) = match text.split_once('@') {
        Some((path, rest)) => (path, Some(rest)),
        None => (text, None),
    };
    // Of a path with points the node is the longest part that names one.
    let cuts = path.match_indices('.').map(|(at, _)| at);
    let mut cuts: Vec<usize> = cuts.take(2).collect();
    if rest.is_some() {
        cuts = vec![path.len()];
    }
    let found = cuts
        .iter()
        .rev()
        .find_map(|cut| Some((world.node(&path[..*cut])?, *cut)));
    let Some((template, cut)) = found else {
        return Err(no_node(text, path, rest.is_some(), world));
    };
    let name = world.templates.list[template].name.as_str();
    let instances = by_name.get(name).cloned().unwrap_or_default();
    match rest {
        None => Ok((instances, path[cut + 1..].to_owned())),
        Some(rest) => pick(text, path, rest, template, &instances, world, nodes),
    }
}

fn no_node(text: &str, path: &str, picked: bool, world: &World<'_, '_, '_>) -> Problem {
    if !picked && (world.node(path).is_some() || !path.contains('.')) {
        return Problem {
            message: format!("`{text}` names no value of a node"),
            label: "`node.value` is needed".to_owned(),
            hint: Some(format!("write `{text}.top1`, for example")),
        };
    }
    let (node, field) = match path.rsplit_once('.') {
        Some((node, field)) if !picked => (node, field),
        _ => (path, "top1"),
    };
    let near = nearest(node, world.node_names());
    Problem {
        message: format!("there is no node `{node}`"),
        label: "a table shows values of nodes".to_owned(),
        hint: near.map(|near| format!("did you mean `{near}.{field}`?")),
    }
}

/// The instances behind an `@`. Points may hold a `.` as numbers do, so the
/// longest part that picks something is the pick.
fn pick(
    text: &str,
    path: &str,
    rest: &str,
    template: usize,
    instances: &[NodeId],
    world: &World<'_, '_, '_>,
    nodes: &[Instance],
) -> Result<(Vec<NodeId>, String), Problem> {
    if nodes.is_empty() {
        return Ok((Vec::new(), String::new()));
    }
    let at = |id: &NodeId| &nodes[id.index()].at;
    let axes: Vec<&str> = match instances.first() {
        Some(first) => at(first).keys().map(String::as_str).collect(),
        None => Vec::new(),
    };
    if axes.is_empty() {
        return Err(Problem {
            message: format!("`{path}` has one instance only"),
            label: "nothing to pick from".to_owned(),
            hint: Some(format!("write `{path}.top1`, for example")),
        });
    }
    let template = &world.templates.list[template];
    let own: Vec<&str> = template
        .axes
        .iter()
        .map(|axis| axis.name.as_str())
        .collect();
    let positional = match (&own[..], &axes[..]) {
        _ if template.round.is_some() => Some("round"),
        ([one], _) | ([], [one]) => Some(*one),
        _ => None,
    };
    let mut problem = None;
    for (cut, _) in rest.match_indices('.').rev() {
        let Ok(picks) = picks::parse(&rest[..cut]) else {
            continue;
        };
        let named = picks.iter().map(|pick| pick.axis.as_deref().or(positional));
        let named: Option<Vec<&str>> = named
            .map(|axis| axis.filter(|a| axes.contains(a)))
            .collect();
        let Some(named) = named else {
            problem = Some(Problem {
                message: format!("`{path}@{}` picks on no axis of `{path}`", &rest[..cut]),
                label: format!("its axes: {}", quoted(&axes)),
                hint: Some(format!(
                    "name one, as in `{path}@{}=….{}`",
                    axes[0],
                    &rest[cut + 1..]
                )),
            });
            continue;
        };
        let fits = |id: &&NodeId| {
            let mut pairs = named.iter().zip(&picks);
            pairs.all(|(axis, pick)| means(&pick.value, &at(id)[*axis]))
        };
        let found: Vec<NodeId> = instances.iter().filter(fits).copied().collect();
        if !found.is_empty() {
            return Ok((found, rest[cut + 1..].to_owned()));
        }
    }
    Err(problem.unwrap_or_else(|| Problem {
        message: format!("`{text}` names no value of an instance of `{path}`"),
        label: "no such instance".to_owned(),
        hint: instances
            .first()
            .map(|id| format!("write `{}.top1`, for example", nodes[id.index()].id)),
    }))
}
