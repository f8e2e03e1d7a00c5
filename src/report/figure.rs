//! One figure of a result table: which number a field names, how it is
//! written, and what exists when it names none.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{
    artifact::{ClassChange, ClassMetrics, LabelUse, MetricsTable, Paired, Share, Type},
    digest::Digest,
    table::Cell,
};

use super::{
    answers::AnswersSummary,
    attributes::{self, Chosen},
    results::Measured,
};

/// The sign of "selected on this split".
pub(super) const SELECTED: &str = "*";
/// The sign of a candidate that was chosen.
pub(super) const KEPT: &str = "✓";

/// How a number is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Percent of images, two digits.
    Percent,
    /// Percentage points, two digits and a sign.
    Points,
    /// A count.
    Count,
    /// A probability.
    Probability,
    /// Anything else: four significant digits.
    Plain,
}

/// A number read from a node's artifact.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reading {
    pub(super) value: f64,
    pub(super) form: Form,
    /// Ends of its 95% interval.
    pub(super) interval: Option<(f64, f64)>,
    /// The comparison that it is the difference of.
    pub(super) paired: Option<Paired>,
    /// Whether labels of the scored images chose the prompts.
    pub(super) selected: bool,
    /// Whether it is about a candidate that was chosen.
    pub(super) kept: bool,
}

impl Reading {
    /// A number without anything that qualifies it.
    const fn plain(value: f64, form: Form) -> Self {
        Self {
            value,
            form,
            interval: None,
            paired: None,
            selected: false,
            kept: false,
        }
    }
}

/// Which part of a node's result a cell is about.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct About<'a> {
    /// One class.
    pub(super) class: Option<&'a str>,
    /// One candidate of that class.
    pub(super) candidate: Option<&'a str>,
}

/// What a field gives for one node.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Figure {
    Reading(Reading),
    /// Words.
    Words(String),
    /// The node failed.
    Failed,
    /// The node has no such number (no baseline, fewer than six classes, not run).
    Missing,
    /// No node of this type has such a number.
    Unknown,
}

/// Fields of metrics with a name of their own; others are paths into `metrics.json`.
const METRICS: &[&str] = &[
    "top1",
    "top5",
    "mean_per_class",
    "per_class",
    "difference",
    "won",
    "lost",
    "p_value",
    "images",
    "correct",
];

/// The number, or the words, that `field` names.
pub(super) fn read(measured: &Measured, field: &str, about: About<'_>) -> Figure {
    match measured {
        Measured::Failed => Figure::Failed,
        Measured::Missing => Figure::Missing,
        Measured::Numbers(value) => path(value, field, false),
        Measured::Metrics(table) => match about.class {
            Some(class) => of_class(table, field, class),
            None => of_metrics(table, field),
        },
        Measured::Attributes(list) => {
            let Some(class) = about.class else {
                return figure(attributes::of_all(list, field), false);
            };
            let Some(entry) = list.classes.iter().find(|entry| entry.class == class) else {
                return Figure::Missing;
            };
            match about.candidate {
                None => figure(attributes::of_class(entry, field), false),
                Some(candidate) => {
                    let (chosen, kept) = attributes::of_candidate(entry, candidate, field);
                    figure(chosen, kept)
                }
            }
        }
    }
}

fn figure(chosen: Chosen, kept: bool) -> Figure {
    match chosen {
        Chosen::Number(value) => Figure::Reading(Reading {
            kept,
            ..Reading::plain(value, Form::Plain)
        }),
        Chosen::Count(count) => Figure::Reading(Reading::plain(count as f64, Form::Count)),
        Chosen::Words(words) => Figure::Words(words),
        Chosen::Nothing => Figure::Missing,
        Chosen::Unknown => Figure::Unknown,
    }
}

fn of_metrics(table: &MetricsTable, field: &str) -> Figure {
    let plain = |value: f64, form| {
        Figure::Reading(Reading {
            selected: table.selected_on_this_split,
            ..Reading::plain(value, form)
        })
    };
    let paired = |get: fn(&Paired) -> (Option<f64>, Form)| {
        let Some(paired) = &table.paired else {
            return Figure::Missing;
        };
        match get(paired) {
            (Some(value), form) => plain(value, form),
            (None, _) => Figure::Missing,
        }
    };
    match field {
        "top1" => share(&table.top1, table),
        "top5" => table
            .top5
            .as_ref()
            .map_or(Figure::Missing, |s| share(s, table)),
        "mean_per_class" => plain(table.mean_per_class, Form::Percent),
        "images" => plain(table.top1.total as f64, Form::Count),
        "correct" => plain(table.top1.correct as f64, Form::Count),
        "won" => paired(|p| (Some(p.won as f64), Form::Count)),
        "lost" => paired(|p| (Some(p.lost as f64), Form::Count)),
        "p_value" => paired(|p| (p.p_value, Form::Probability)),
        "difference" => match table.paired {
            None => Figure::Missing,
            Some(paired) => Figure::Reading(Reading {
                interval: Some((paired.low, paired.high)),
                paired: Some(paired),
                selected: table.selected_on_this_split,
                ..Reading::plain(paired.difference, Form::Points)
            }),
        },
        _ => {
            let value = serde_json::to_value(table).unwrap_or_default();
            path(&value, field, table.selected_on_this_split)
        }
    }
}

fn of_class(table: &MetricsTable, field: &str, class: &str) -> Figure {
    let found = table.per_class.iter().find(|c| c.class == class);
    let Some(ClassMetrics { top1, change, .. }) = found else {
        return Figure::Missing;
    };
    let plain = |value: f64, form| {
        Figure::Reading(Reading {
            selected: table.selected_on_this_split,
            ..Reading::plain(value, form)
        })
    };
    let change = |get: fn(&ClassChange) -> Option<f64>, form| {
        change
            .as_ref()
            .and_then(get)
            .map_or(Figure::Missing, |value| plain(value, form))
    };
    match field {
        "per_class" => share(top1, table),
        "images" => plain(top1.total as f64, Form::Count),
        "correct" => plain(top1.correct as f64, Form::Count),
        "difference" => change(|c| Some(c.difference), Form::Points),
        "won" => change(|c| Some(c.won as f64), Form::Count),
        "lost" => change(|c| Some(c.lost as f64), Form::Count),
        "p_value" => change(|c| c.p_value, Form::Probability),
        "p_holm" => change(|c| c.p_holm, Form::Probability),
        _ => Figure::Unknown,
    }
}

fn share(share: &Share, table: &MetricsTable) -> Figure {
    Figure::Reading(Reading {
        interval: Some((share.low, share.high)),
        selected: table.selected_on_this_split,
        ..Reading::plain(share.percent, Form::Percent)
    })
}

/// The number at a dotted path: `top1.low`, `curve.3`.
fn path(value: &Value, field: &str, selected: bool) -> Figure {
    let mut at = value;
    for step in field.split('.') {
        let next = match at {
            Value::Object(map) => map.get(step),
            Value::Array(list) => step.parse().ok().and_then(|i: usize| list.get(i)),
            // `paired.won` without a baseline.
            Value::Null => return Figure::Missing,
            _ => None,
        };
        match next {
            Some(next) => at = next,
            None => return Figure::Unknown,
        }
    }
    match at {
        Value::Null => Figure::Missing,
        value => value.as_f64().map_or(Figure::Unknown, |value| {
            let form = if at.is_u64() {
                Form::Count
            } else if field.ends_with("_percent") {
                Form::Percent
            } else {
                Form::Plain
            };
            Figure::Reading(Reading {
                selected,
                ..Reading::plain(value, form)
            })
        }),
    }
}

/// What the rows and columns of a table are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grain {
    /// Whole results.
    Whole,
    /// Classes.
    Class,
    /// Candidates of one class.
    Candidate,
}

/// Names of the numbers that a node with an artifact of `type` has for each `grain`.
pub(super) fn fields(r#type: Type, grain: Grain) -> Vec<String> {
    let owned = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
    match (r#type, grain) {
        (Type::Metrics, Grain::Class) => owned(&[
            "per_class",
            "difference",
            "won",
            "lost",
            "p_value",
            "p_holm",
            "images",
            "correct",
        ]),
        (Type::Metrics, Grain::Whole) => {
            let mut names: Vec<String> = owned(METRICS);
            names.retain(|name| name != "per_class");
            names
        }
        (Type::Attributes, Grain::Whole) => owned(attributes::FIELDS),
        (Type::Attributes, Grain::Class) => attributes::class_fields(),
        (Type::Attributes, Grain::Candidate) => owned(attributes::CANDIDATE_FIELDS),
        (Type::TextEmbeddings, Grain::Whole) => owned(&["texts", "candidates", "repeats"]),
        (Type::Weights, Grain::Whole) => owned(&["epochs", "loss", "accuracy_percent"]),
        (Type::Answers, Grain::Whole) => {
            let value = serde_json::to_value(AnswersSummary::default()).unwrap_or_default();
            let fields = value.as_object().into_iter().flatten();
            let numbers = fields.filter(|(_, value)| value.is_number());
            numbers.map(|(name, _)| name.clone()).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether a dotted path can lead to a number in `metrics.json`, known without a run.
pub(super) fn is_metrics_path(field: &str) -> bool {
    let share = Share {
        correct: 0,
        total: 0,
        percent: 0.0,
        low: 0.0,
        high: 0.0,
    };
    let sample = MetricsTable {
        top1: share,
        top5: Some(share),
        mean_per_class: 0.0,
        per_class: Vec::new(),
        confusion: Vec::new(),
        paired: Some(Paired {
            difference: 0.0,
            low: 0.0,
            high: 0.0,
            won: 0,
            lost: 0,
            p_value: Some(1.0),
        }),
        selected_on_this_split: false,
        scored: LabelUse {
            data: Digest::of(b""),
            split: String::new(),
            rows: String::new(),
        },
        curve: Vec::new(),
    };
    let list = ["per_class.", "confusion.", "curve."];
    list.iter().any(|head| field.starts_with(head))
        || matches!(of_metrics(&sample, field), Figure::Reading(_))
}

impl Reading {
    /// The reading as a table's cell.
    pub(super) fn cell(&self) -> Cell {
        let mut cell = Cell {
            mark: match (self.selected, self.kept) {
                (true, _) => SELECTED,
                (false, true) => KEPT,
                (false, false) => "",
            },
            ..Cell::number(self.value, write(self.value, self.form))
        };
        if let Some((low, high)) = self.interval {
            let written = |end: f64| match self.form {
                // Not "-0.0".
                Form::Points if end.abs() < 0.05 => "0.0".to_owned(),
                Form::Points => format!("{end:+.1}"),
                _ => format!("{end:.1}"),
            };
            cell.detail = format!("[{}, {}]", written(low), written(high));
            cell.more = vec![("low", low), ("high", high)];
        }
        if let Some(paired) = self.paired {
            let _ = write!(cell.detail, ", won {}, lost {}", paired.won, paired.lost);
            cell.more.push(("won", paired.won as f64));
            cell.more.push(("lost", paired.lost as f64));
            if let Some(p) = paired.p_value {
                let _ = write!(cell.detail, ", {}", write_p(p));
                cell.more.push(("p", p));
            }
        }
        cell
    }
}

/// A number in its form.
pub(super) fn write(value: f64, form: Form) -> String {
    match form {
        Form::Percent => format!("{value:.2}"),
        // Not "-0.00".
        Form::Points if value.abs() < 0.005 => "0.00".to_owned(),
        Form::Points => format!("{value:+.2}"),
        Form::Count => format!("{value:.0}"),
        Form::Probability if value < 0.001 => "< 0.001".to_owned(),
        Form::Probability => format!("{value:.3}"),
        Form::Plain => {
            let whole = value.abs().max(1.0).log10().floor();
            let digits = (3.0 - whole).clamp(0.0, 6.0) as usize;
            format!("{value:.digits$}")
        }
    }
}

fn write_p(p: f64) -> String {
    match write(p, Form::Probability) {
        small if small.starts_with('<') => format!("p {small}"),
        exact => format!("p = {exact}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_their_form() {
        assert_eq!(write(70.346, Form::Percent), "70.35");
        assert_eq!(write(2.5, Form::Points), "+2.50");
        assert_eq!(write(-0.001, Form::Points), "0.00");
        assert_eq!(write(10_000.0, Form::Count), "10000");
        assert_eq!(write(0.0004, Form::Probability), "< 0.001");
        assert_eq!(write(0.123_456, Form::Plain), "0.123");
        assert_eq!(write(123.456, Form::Plain), "123.5");
    }

    #[test]
    fn every_named_field_of_metrics_is_a_path_or_a_name() {
        for field in fields(Type::Metrics, Grain::Whole) {
            assert!(is_metrics_path(&field), "{field}");
        }
        assert!(is_metrics_path("top1.low") && is_metrics_path("paired.won"));
        assert!(!is_metrics_path("top2") && !is_metrics_path("top1.middle"));
    }
}
