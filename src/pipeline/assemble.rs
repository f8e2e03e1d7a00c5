//! Repeats instances along the sweep axes that they see, directly or through
//! what they read, and numbers them in the order in which they can run.

use std::collections::BTreeMap;

use super::{
    axes::{self, MAX_INSTANCES},
    expand::Variant,
    findings::Findings,
    graph::{Instance, ModelSpec, NodeId, Point, Source},
    order::template_of,
    resolve::{Link, Target},
    world::World,
};
use crate::data::DataSpec;

/// The nodes of the graph and what they name.
pub(super) struct Assembled {
    /// All instances in order.
    pub(super) nodes: Vec<Instance>,
    /// Entries of `[data]` that they name.
    pub(super) data: BTreeMap<String, DataSpec>,
    /// Entries of `[models]` that they name.
    pub(super) models: BTreeMap<String, ModelSpec>,
}

/// Sweep axes that each instance sees, as sets of bits.
pub(super) fn sees(
    world: &World<'_, '_, '_>,
    links: &[Vec<Vec<Link>>],
    order: &[usize],
) -> Vec<u64> {
    let mut sees = vec![0_u64; world.templates.units];
    if world.sweep.is_empty() {
        return sees;
    }
    for unit in order {
        let t = template_of(world.templates, *unit);
        let template = &world.templates.list[t];
        let points = axes::combinations(world.sweep, template.sees);
        let first = (unit - template.first_unit) * points;
        let mut seen = template.sees;
        for link in links[t].iter().skip(first).take(points).flatten() {
            seen |= match &link.target {
                Target::Unit { unit, picks } => picks
                    .iter()
                    .fold(sees[*unit], |seen, (axis, _)| seen & !(1 << axis)),
                Target::Split(data, _) | Target::DataClasses(data) => world.data[*data].sees,
                Target::Model(model) => world.models[*model].sees,
                Target::Empty(_) | Target::Classes(_) => 0,
            };
        }
        sees[*unit] = seen;
    }
    sees
}

/// Makes all instances; `None` after telling that there are too many.
pub(super) fn assemble(
    world: &World<'_, '_, '_>,
    mut variants: Vec<Vec<Variant<'_>>>,
    links: &[Vec<Vec<Link>>],
    order: &[usize],
    sees: &[u64],
    found: &mut Findings,
) -> Option<Assembled> {
    let sweep = world.sweep;
    let mut first_node = vec![0_usize; sees.len()];
    let mut out = Assembled {
        nodes: Vec::with_capacity(order.len()),
        data: BTreeMap::new(),
        models: BTreeMap::new(),
    };
    for unit in order {
        let t = template_of(world.templates, *unit);
        let template = &world.templates.list[t];
        let kind = template.kind.as_ref()?.info;
        let local = unit - template.first_unit;
        let at = axes::coordinates(&template.axes, local);
        let seen = sees[*unit];
        let count = axes::combinations(sweep, seen);
        if out.nodes.len().saturating_add(count) > MAX_INSTANCES {
            found.push(axes::too_many(template.place()));
            return None;
        }
        first_node[*unit] = out.nodes.len();
        let points = axes::combinations(sweep, template.sees);
        axes::each_point(sweep, seen, &mut |sweep_at| {
            let which = local * points + axes::position(sweep, template.sees, sweep_at);
            let inputs = links[t][which].iter().map(|link| {
                let source = source(world, &mut out, &link.target, sees, &first_node, sweep_at);
                (link.port, source)
            });
            let inputs = inputs.collect();
            // Only variants that several points share need to be copied.
            let variant = if count == points {
                std::mem::take(&mut variants[t][which])
            } else {
                variants[t][which].clone()
            };
            let (Some(node), Some(output)) = (variant.node, variant.output) else {
                return;
            };
            let mut axes: Vec<(&str, &Point)> = template
                .axes
                .iter()
                .zip(&at)
                .map(|(axis, at)| (axis.name.as_str(), &axis.points[*at]))
                .collect();
            let swept = axes::seen(sweep, seen);
            axes.extend(swept.map(|(i, axis)| (axis.name.as_str(), &axis.points[sweep_at[i]])));
            out.nodes.push(Instance {
                id: axes::id(&template.name, &axes),
                name: template.name.clone(),
                at: axes
                    .iter()
                    .map(|(name, point)| ((*name).to_owned(), (*point).clone()))
                    .collect(),
                kind,
                node,
                params: variant.params,
                output,
                inputs,
                exec: variant.exec,
                saw: variant.saw,
            });
        });
    }
    Some(out)
}

/// Where a reference leads at one point of the sweep.
fn source(
    world: &World<'_, '_, '_>,
    out: &mut Assembled,
    target: &Target,
    sees: &[u64],
    first_node: &[usize],
    sweep_at: &[usize],
) -> Source {
    match target {
        Target::Unit { unit, picks } => {
            let position = if picks.is_empty() {
                axes::position(world.sweep, sees[*unit], sweep_at)
            } else {
                let mut at = sweep_at.to_vec();
                for (axis, point) in picks {
                    at[*axis] = *point;
                }
                axes::position(world.sweep, sees[*unit], &at)
            };
            Source::Node(NodeId((first_node[*unit] + position) as u32))
        }
        Target::Empty(r#type) => Source::Empty(*r#type),
        Target::Classes(names) => Source::Classes(names.clone()),
        Target::Split(data, split) => {
            Source::Split(data_id(world, out, *data, sweep_at), split.clone())
        }
        Target::DataClasses(data) => Source::DataClasses(data_id(world, out, *data, sweep_at)),
        Target::Model(model) => {
            let named = &world.models[*model];
            let id = named.id(world.sweep, sweep_at);
            if let Some(model) = named.at(sweep_at)
                && !out.models.contains_key(&id)
            {
                out.models.insert(id.clone(), model.spec.clone());
            }
            Source::Model(id)
        }
    }
}

fn data_id(
    world: &World<'_, '_, '_>,
    out: &mut Assembled,
    data: usize,
    sweep_at: &[usize],
) -> String {
    let named = &world.data[data];
    let id = named.id(world.sweep, sweep_at);
    if let Some(spec) = named.at(sweep_at)
        && !out.data.contains_key(&id)
    {
        out.data.insert(id.clone(), spec.clone());
    }
    id
}

/// For each node those it needs, and those that need it; ascending and distinct.
pub(super) fn edges(nodes: &[Instance]) -> (Vec<Vec<NodeId>>, Vec<Vec<NodeId>>) {
    let mut dependents = vec![Vec::new(); nodes.len()];
    let dependencies: Vec<Vec<NodeId>> = nodes
        .iter()
        .enumerate()
        .map(|(i, node)| {
            let mut needs: Vec<NodeId> = node
                .inputs
                .iter()
                .filter_map(|(_, source)| match source {
                    Source::Node(id) => Some(*id),
                    _ => None,
                })
                .collect();
            needs.sort_unstable();
            needs.dedup();
            for need in &needs {
                dependents[need.index()].push(NodeId(i as u32));
            }
            needs
        })
        .collect();
    (dependencies, dependents)
}
