//! `@`: which instance of a repeated node a reference means.

use super::{
    graph::Point,
    names::{quoted, suggest},
    substitute::Axis,
    template::Template,
    values::{means, written},
};

/// One part of what stands behind an `@`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pick {
    /// The axis, where it is named.
    pub(super) axis: Option<String>,
    /// The point as it is written.
    pub(super) value: String,
}

/// Splits `2` or `n=2,seed=1`; values may be quoted.
pub(super) fn parse(text: &str) -> Result<Vec<Pick>, String> {
    let mut parts = vec![String::new()];
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(q) if c == q => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == ',' => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    let mut picks = Vec::new();
    for part in &parts {
        let (axis, value) = match part.split_once('=') {
            Some((axis, value)) if !axis.starts_with(['"', '\'']) => (Some(axis.trim()), value),
            _ => (None, part.as_str()),
        };
        let value = value.trim();
        if value.is_empty() || axis == Some("") {
            return Err(format!("`@{text}` picks nothing"));
        }
        let bare = [('"', '"'), ('\'', '\'')]
            .iter()
            .find_map(|(open, close)| value.strip_prefix(*open)?.strip_suffix(*close));
        picks.push(Pick {
            axis: axis.map(str::to_owned),
            value: bare.unwrap_or(value).to_owned(),
        });
    }
    Ok(picks)
}

/// An instance, before the sweep.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Round 0.
    Empty,
    /// The index among the instances of the node, and picks on sweep axes.
    Unit(usize, Vec<(usize, usize)>),
}

/// Why there is no such instance.
#[derive(Debug)]
pub(super) struct Problem {
    /// What is wrong.
    pub(super) message: String,
    /// Words under the line.
    pub(super) label: String,
    /// The fix.
    pub(super) hint: Option<String>,
}

/// The instance of `target` that a reference from `reader` at `at` means:
/// what `@` picks, else the same point on the axes of the same name.
/// `whole` says that the result of a round is meant, which exists at round 0.
pub(super) fn instance(
    path: &str,
    target: &Template<'_, '_>,
    whole: bool,
    reader: &Template<'_, '_>,
    at: &[usize],
    sweep: &[Axis<'_>],
    picks: &[Pick],
) -> Result<Found, Problem> {
    let mut chosen: Vec<Option<usize>> = vec![None; target.axes.len()];
    let (mut swept, mut empty) = (Vec::new(), false);
    for pick in picks {
        let name = match &pick.axis {
            Some(name) => name.as_str(),
            None => positional(path, target, reader, sweep)?,
        };
        if let Some(i) = target.axes.iter().position(|axis| axis.name == name) {
            if whole && name == "round" && means(&pick.value, &Point::Int(0)) {
                empty = true;
                continue;
            }
            chosen[i] = Some(point(path, &target.axes[i], &pick.value)?);
        } else if let Some(i) = sweep.iter().position(|axis| axis.name == name) {
            swept.push((i, point(path, &sweep[i], &pick.value)?));
        } else {
            let axes = target.axes.iter().map(|axis| axis.name.as_str());
            return Err(Problem {
                message: format!("`{path}` has no axis `{name}`"),
                label: "no such axis".to_owned(),
                hint: suggest(name, "its axes", axes.collect::<Vec<_>>()),
            });
        }
    }
    let mut unit = 0;
    for (i, axis) in target.axes.iter().enumerate() {
        let point = match chosen[i] {
            Some(point) => point,
            None if empty => 0,
            None => {
                let point = same(path, axis, whole, reader, at)?;
                empty |= point.is_none();
                point.unwrap_or(0)
            }
        };
        unit = unit * axis.points.len() + point;
    }
    Ok(if empty {
        Found::Empty
    } else {
        Found::Unit(unit, swept)
    })
}

/// The point of `axis` at which `reader` stands on its axis of the same name;
/// `None` for round 0.
fn same(
    path: &str,
    axis: &Axis<'_>,
    whole: bool,
    reader: &Template<'_, '_>,
    at: &[usize],
) -> Result<Option<usize>, Problem> {
    let name = &axis.name;
    let Some(i) = reader.axes.iter().position(|other| other.name == *name) else {
        let reader = &reader.name;
        let last = axis.points.last().map(written).unwrap_or_default();
        let hint = if name == "round" {
            format!("pick a round: `{path}@{last}`")
        } else {
            format!(
                "pick a point, as in `{path}@{name}={last}`, or give `{reader}` the same axis in its `matrix`"
            )
        };
        return Err(Problem {
            message: format!("`{path}` has the axis `{name}`, which `{reader}` lacks"),
            label: format!("which `{name}`?"),
            hint: Some(hint),
        });
    };
    let wanted = &reader.axes[i].points[at[i]];
    // Mostly both have the same points.
    if axis.points.get(at[i]) == Some(wanted) {
        return Ok(Some(at[i]));
    }
    if whole && name == "round" && *wanted == Point::Int(0) {
        return Ok(None);
    }
    let text = wanted.to_string();
    let found = axis
        .points
        .iter()
        .position(|p| p == wanted || means(&text, p));
    found.map(Some).ok_or_else(|| no_point(path, axis, &text))
}

/// The axis that a value without a name is on.
fn positional<'t>(
    path: &str,
    target: &'t Template<'_, '_>,
    reader: &Template<'_, '_>,
    sweep: &'t [Axis<'_>],
) -> Result<&'t str, Problem> {
    let axes: Vec<&str> = target.axes.iter().map(|axis| axis.name.as_str()).collect();
    let free: Vec<&str> = axes
        .iter()
        .filter(|name| !reader.axes.iter().any(|axis| axis.name == **name))
        .copied()
        .collect();
    match (&axes[..], &free[..], sweep) {
        _ if target.round.is_some() => Ok("round"),
        ([one], ..) | (_, [one], _) => Ok(one),
        ([], _, [one]) => Ok(&one.name),
        ([], ..) => Err(Problem {
            message: format!("`{path}` has one instance only"),
            label: "nothing to pick from".to_owned(),
            hint: Some(format!("write `{path}`")),
        }),
        _ => Err(Problem {
            message: format!("`{path}` has the axes {}", quoted(&axes)),
            label: "on which axis?".to_owned(),
            hint: Some(format!("name it, as in `{path}@{}=…`", axes[0])),
        }),
    }
}

fn point(path: &str, axis: &Axis<'_>, text: &str) -> Result<usize, Problem> {
    // Rounds are many, and the k-th is called k.
    let guess = text.parse::<usize>().ok().and_then(|k| k.checked_sub(1));
    let guess = guess.filter(|k| axis.points.get(*k).is_some_and(|point| means(text, point)));
    let search = || axis.points.iter().position(|point| means(text, point));
    guess
        .or_else(search)
        .ok_or_else(|| no_point(path, axis, text))
}

fn no_point(path: &str, axis: &Axis<'_>, text: &str) -> Problem {
    let name = &axis.name;
    let points: Vec<_> = axis.points.iter().take(12).map(written).collect();
    let more = if axis.points.len() > 12 { ", …" } else { "" };
    Problem {
        message: format!("`{path}` has no instance at {name} = {text}"),
        label: "no such instance".to_owned(),
        hint: Some(format!("points of `{name}`: {}{more}", points.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(text: &str) -> Vec<(Option<String>, String)> {
        let picks = parse(text).unwrap();
        picks
            .into_iter()
            .map(|pick| (pick.axis, pick.value))
            .collect()
    }

    #[test]
    fn picks_are_values_or_named_values() {
        assert_eq!(picks("2"), [(None, "2".into())]);
        assert_eq!(
            picks("n=2, seed='a,b=c'"),
            [
                (Some("n".into()), "2".into()),
                (Some("seed".into()), "a,b=c".into())
            ]
        );
        assert_eq!(picks("\"a=b\""), [(None, "a=b".into())]);
        for bad in ["", "n=", "=2", "1,,2"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
