//! Published figures beside ours, and columns of them that contradict themselves.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    super::figure::{self, Form},
    Builder, Line,
};
use crate::{
    pipeline::Point,
    stats::contradicts,
    table::{Cell, Note},
};

/// What is shown beside a column: nothing, published words, published numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shown {
    Nothing,
    Words,
    Numbers,
}

impl Builder<'_> {
    /// The published figure of a cell, a number or words; `used` collects the keys
    /// that were found.
    pub(super) fn published(
        &self,
        (r, row): (usize, &Line),
        (c, column): (usize, &Line),
        value: usize,
        used: &mut BTreeSet<String>,
    ) -> Option<Value> {
        let spec = self.spec;
        let listed = &spec.values[value].published;
        if !listed.is_empty() {
            // In the order of the rows; of a value that is a row by itself, of the columns.
            return listed.get(if spec.rows.is_some() { r } else { c }).cloned();
        }
        let names = |line: &Line, key: &str| match line {
            Line::Point(point) => same_point(key, point),
            Line::Value(i) => key == spec.values[*i].label || key == spec.values[*i].field,
            Line::Whole => false,
        };
        let (key, mut found) = spec.published.iter().find(|(key, _)| names(row, key))?;
        if let Value::Array(list) = found {
            found = list.get(c)?;
        }
        if let (Line::Point(_), Value::Object(map)) = (column, found) {
            found = map.iter().find(|(key, _)| names(column, key))?.1;
        }
        let in_order = spec.published[key].is_array();
        // A bare figure belongs to the first value.
        let figure = match found {
            Value::Object(map) => {
                let value = Line::Value(value);
                map.iter().find(|(key, _)| names(&value, key))?.1
            }
            other if value == 0 || spec.rows.is_none() || in_order => other,
            _ => return None,
        };
        if !figure.is_number() && !figure.is_string() {
            return None;
        }
        used.insert(key.clone());
        Some(figure.clone())
    }

    /// Published columns of classes whose mean is not the published overall figure:
    /// on as many images of each class the two are the same number.
    pub(super) fn contradictions(
        &self,
        columns: &[(Line, Line)],
        body: &[Vec<(Cell, Option<Value>)>],
    ) -> Vec<Note> {
        if self.spec.rows.as_deref() != Some("class") {
            return Vec::new();
        }
        let mut notes = Vec::new();
        for (c, ((point, value), overall)) in columns.iter().zip(&self.spec.overall).enumerate() {
            let classes: Option<Vec<f64>> = (body.iter())
                .map(|line| line.get(c)?.1.as_ref()?.as_f64())
                .collect();
            let mean = classes.and_then(|classes| contradicts(*overall, &classes));
            if let Some(mean) = mean {
                notes.push(Note::new(format!(
                    "The published column {} contradicts itself: the mean of its classes is {mean:.2}, its overall accuracy {overall:.2}.",
                    self.head(point, value)
                )));
            }
        }
        notes
    }
}

/// A published figure and ours minus it.
pub(super) fn beside(ours: Option<f64>, published: Option<f64>) -> [Cell; 2] {
    let Some(published) = published else {
        return [Cell::default(), Cell::default()];
    };
    let difference = ours.map_or_else(Cell::missing, |ours| {
        Cell::number(
            ours - published,
            figure::write(ours - published, Form::Points),
        )
    });
    [
        Cell::number(published, figure::write(published, Form::Percent)),
        difference,
    ]
}

/// Whether a key of `published` names `point`; `0.50` names 0.5.
fn same_point(key: &str, point: &Point) -> bool {
    key == point.to_string()
        || match point {
            Point::Int(x) => key.parse() == Ok(*x as f64),
            Point::Float(x) => key.parse() == Ok(*x),
            Point::Text(_) | Point::Bool(_) => false,
        }
}
