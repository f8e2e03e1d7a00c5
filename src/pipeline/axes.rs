//! Axes along which nodes are repeated: `matrix`, rounds, `[sweep]`.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use toml::{Spanned, de::DeValue};

use super::{
    document::{Document, check_name, wrong},
    findings::Findings,
    graph::Point,
    substitute::{Axis, Scope, Substitution},
    values::{as_point, describe, written},
};
use crate::diagnostic::{Diagnostic, Place, SourceText};

/// Node instances that a graph may have.
pub(super) const MAX_INSTANCES: usize = 100_000;

/// Axes of `[sweep]`: sets of them are the bits of a `u64`.
const MAX_SWEEP_AXES: usize = 64;

/// Tells that the limit is passed.
pub(super) fn too_many(place: Place) -> Diagnostic {
    Diagnostic::at(place, "this file makes more than 100,000 node instances")
        .label("the limit is passed here")
        .hint("make the matrix, the rounds or the sweep smaller".to_owned())
}

/// The axes of a `matrix`; `None` after telling what is wrong with one.
pub(super) fn matrix<'a>(
    value: &Spanned<DeValue<'a>>,
    source: &Arc<SourceText>,
    shape: &Scope<'_, 'a>,
    outer: &[Rc<Axis<'a>>],
    found: &mut Findings,
) -> Option<Vec<Rc<Axis<'a>>>> {
    let Some(table) = value.get_ref().as_table() else {
        found.push(
            wrong("matrix", "a table", source, value)
                .hint("write `matrix = { n = [1, 2, 3] }`".to_owned()),
        );
        return None;
    };
    let (mut axes, mut good) = (Vec::new(), true);
    for (key, value) in table {
        let place = Place::new(source, key.span());
        let name = key.get_ref().as_ref();
        check_name(name, &place, found);
        if name == "class" {
            found.push(
                Diagnostic::at(place.clone(), "a matrix cannot have an axis `class`")
                    .label("`class` is the axis of classes in tables"),
            );
        }
        if let Some(axis) = shape
            .sweep
            .unwrap_or_default()
            .iter()
            .find(|a| a.name == name)
        {
            found.push(
                Diagnostic::at(
                    place.clone(),
                    format!("`{name}` is an axis of `[sweep]` too"),
                )
                .label("one of the two must go")
                .note(axis.place.clone(), "swept here"),
            );
        }
        if let Some(axis) = outer
            .iter()
            .find(|axis| axis.name == name && name != "round")
        {
            found.push(
                Diagnostic::at(
                    place.clone(),
                    format!("`{name}` is an axis of the round too"),
                )
                .label("one of the two must go")
                .note(axis.place.clone(), "the round's axis"),
            );
        }
        let mut substitution = Substitution {
            scope: shape,
            source,
            found,
            saw: BTreeMap::new(),
        };
        let value = substitution.value(value);
        match value.and_then(|value| points(name, value, source, found)) {
            None => good = false,
            Some((points, values)) => axes.push(Rc::new(Axis {
                name: name.to_owned(),
                points,
                values,
                place,
                set: false,
            })),
        }
    }
    good.then_some(axes)
}

/// The axis `round` of a loop that is unrolled `count` times; `numbers` is a
/// list of at least as many, written in TOML.
pub(super) fn rounds(count: usize, place: Place, numbers: &str) -> Axis<'_> {
    let values = match DeValue::parse(numbers).map(Spanned::into_inner) {
        Ok(DeValue::Array(list)) => list
            .into_iter()
            .map(Spanned::into_inner)
            .take(count)
            .collect(),
        _ => Vec::new(),
    };
    Axis {
        name: "round".to_owned(),
        points: (1..=values.len() as i64).map(Point::Int).collect(),
        values,
        place,
        set: false,
    }
}

/// The axes of `[sweep]`.
pub(super) fn sweep<'a>(document: &Document<'a>, found: &mut Findings) -> Vec<Axis<'a>> {
    let mut axes = Vec::new();
    for entry in &document.sweep {
        let source = &entry.place.source;
        if entry.name == "round" || entry.name == "class" {
            let message = format!("`{}` cannot be swept", entry.name);
            found.push(Diagnostic::at(entry.place.clone(), message).label("not a parameter"));
        }
        if let Some((points, values)) = points(&entry.name, entry.values.clone(), source, found) {
            axes.push(Axis {
                name: entry.name.clone(),
                points,
                values,
                place: entry.place.clone(),
                set: entry.set,
            });
        }
    }
    if axes.len() > MAX_SWEEP_AXES {
        let message = format!("a sweep has at most {MAX_SWEEP_AXES} axes");
        found.push(Diagnostic::at(axes[MAX_SWEEP_AXES].place.clone(), message));
        axes.truncate(MAX_SWEEP_AXES);
    }
    let lengths = axes.iter().map(|axis| axis.points.len());
    if lengths.fold(1, usize::saturating_mul) > MAX_INSTANCES {
        found.push(too_many(axes[axes.len() - 1].place.clone()));
        axes.clear();
    }
    axes
}

type Points<'a> = (Vec<Point>, Vec<DeValue<'a>>);

fn points<'a>(
    name: &str,
    value: Spanned<DeValue<'a>>,
    source: &Arc<SourceText>,
    found: &mut Findings,
) -> Option<Points<'a>> {
    let place = Place::new(source, value.span());
    if !value.get_ref().is_array() {
        found.push(wrong(name, "a list of values", source, &value));
        return None;
    }
    let DeValue::Array(list) = value.into_inner() else {
        return None;
    };
    if list.is_empty() {
        found.push(
            Diagnostic::at(place, format!("the axis `{name}` has no points"))
                .label("at least one value is needed"),
        );
        return None;
    }
    let (mut points, mut values) = (Vec::<Point>::new(), Vec::new());
    let mut known = std::collections::HashSet::new();
    let mut good = true;
    for item in list {
        let place = Place::new(source, item.span());
        let Some(point) = as_point(item.get_ref()) else {
            let is = describe(item.get_ref());
            found.push(
                Diagnostic::at(
                    place,
                    format!("{is} cannot be a point of the axis `{name}`"),
                )
                .label("points are numbers, strings, `true` or `false`"),
            );
            good = false;
            continue;
        };
        if !known.insert(point.to_string()) {
            found.push(
                Diagnostic::at(
                    place,
                    format!("the axis `{name}` has the point `{point}` twice"),
                )
                .label("given before"),
            );
            good = false;
        }
        points.push(point);
        values.push(item.into_inner());
    }
    good.then_some((points, values))
}

/// Calls `each` with every combination of coordinates on the axes of `sees`
/// (a set of bits); coordinates on the others stay 0. The last axis runs fastest.
pub(super) fn each_point(sweep: &[Axis<'_>], sees: u64, each: &mut impl FnMut(&[usize])) {
    let mut at = vec![0; sweep.len()];
    loop {
        each(&at);
        let mut axis = sweep.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            if sees & (1 << axis) == 0 {
                continue;
            }
            at[axis] += 1;
            if at[axis] < sweep[axis].points.len() {
                break;
            }
            at[axis] = 0;
        }
    }
}

/// How many combinations [`each_point`] visits.
pub(super) fn combinations(sweep: &[Axis<'_>], sees: u64) -> usize {
    seen(sweep, sees).fold(1, |n, (_, axis)| n * axis.points.len())
}

/// The position of `at` among those that [`each_point`] visits.
pub(super) fn position(sweep: &[Axis<'_>], sees: u64, at: &[usize]) -> usize {
    seen(sweep, sees).fold(0, |n, (i, axis)| n * axis.points.len() + at[i])
}

/// The axes of `sees` with their indices.
pub(super) fn seen<'s, 'a>(
    sweep: &'s [Axis<'a>],
    sees: u64,
) -> impl Iterator<Item = (usize, &'s Axis<'a>)> {
    let all = sweep.iter().enumerate();
    all.filter(move |(i, _)| sees & (1 << i) != 0)
}

/// Coordinates of the instance `unit` of a node, the last axis running fastest.
pub(super) fn coordinates(axes: &[Rc<Axis<'_>>], mut unit: usize) -> Vec<usize> {
    let mut at = vec![0; axes.len()];
    for (axis, at) in axes.iter().zip(&mut at).rev() {
        *at = unit % axis.points.len();
        unit /= axis.points.len();
    }
    at
}

/// `name@2`, `name@n=2,seed=1`: how people and references name an instance.
pub(super) fn id(name: &str, at: &[(&str, &Point)]) -> String {
    match at {
        [] => name.to_owned(),
        [(_, point)] => format!("{name}@{}", written(point)),
        many => {
            let picks: Vec<_> = many
                .iter()
                .map(|(axis, point)| format!("{axis}={}", written(point)))
                .collect();
            format!("{name}@{}", picks.join(","))
        }
    }
}
