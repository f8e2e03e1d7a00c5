//! The tables of a pipeline, from its `[tables]` section and what was measured.

mod cells;
mod problems;
mod published;

use std::{collections::BTreeSet, fmt::Write as _};

use serde_json::Value;

pub use self::problems::{Problem, check_tables};
use self::{
    cells::{Flags, figure_cell},
    problems::{grain, quoted, unknown_field},
    published::{Shown, beside},
};
use super::figure::{self, About, Figure};
use crate::{
    artifact::{Attributes, MetricsTable, Type},
    pipeline::{Graph, NodeId, Point, TableSpec, TableValue},
    table::{Cell, Column, Note, Table},
};

/// Tables that a left-over axis may give before the rest is left out.
const MOST_TABLES: usize = 64;

/// What is known of a node when tables are written.
#[derive(Clone, Debug, PartialEq)]
pub enum Measured {
    /// Its metrics.
    Metrics(Box<MetricsTable>),
    /// What it chose.
    Attributes(Box<Attributes>),
    /// Numbers of another artifact, by name (for answers, an [`super::AnswersSummary`]).
    Numbers(Value),
    /// It failed.
    Failed,
    /// It did not run.
    Missing,
}

/// All tables of `graph`: those of its `[tables]` section, one a point of every
/// axis that a table does not mention; or, without that section, one with the
/// accuracy of every evaluation. What cannot be shown is said in a note.
pub fn build_tables(graph: &Graph, measured: &dyn Fn(NodeId) -> Measured) -> Vec<Table> {
    if graph.tables.is_empty() {
        return default_table(graph, measured).into_iter().collect();
    }
    graph
        .tables
        .iter()
        .flat_map(|spec| {
            Builder {
                graph,
                spec,
                measured,
            }
            .tables()
        })
        .collect()
}

/// Names of all axes of the values' instances.
fn axes<'g>(graph: &'g Graph, values: &[TableValue]) -> BTreeSet<&'g str> {
    let instances = values.iter().flat_map(|value| &value.instances);
    instances
        .flat_map(|id| graph.node(*id).at.keys())
        .map(String::as_str)
        .collect()
}

/// What a row or a column stands for.
#[derive(Clone, Debug, PartialEq)]
enum Line {
    /// A point of an axis.
    Point(Point),
    /// A value of the table, by index.
    Value(usize),
    /// All there is.
    Whole,
}

struct Builder<'a> {
    graph: &'a Graph,
    spec: &'a TableSpec,
    measured: &'a dyn Fn(NodeId) -> Measured,
}

impl Builder<'_> {
    /// One table for every combination of left-over points.
    fn tables(&self) -> Vec<Table> {
        let spec = self.spec;
        let used = [&spec.rows, &spec.columns, &spec.mean_over];
        let mut combinations: Vec<Vec<(String, Point)>> = vec![Vec::new()];
        let mut cut = false;
        for axis in axes(self.graph, &spec.values) {
            let picked = |value: &TableValue| self.points_of(value, axis).len() < 2;
            let points = self.points(axis);
            if spec.values.iter().all(picked)
                || used.iter().any(|used| used.as_deref() == Some(axis))
            {
                continue;
            }
            combinations = combinations
                .iter()
                .flat_map(|fixed| {
                    points.iter().map(|point| {
                        let mut fixed = fixed.clone();
                        fixed.push((axis.to_owned(), point.clone()));
                        fixed
                    })
                })
                .collect();
            cut |= combinations.len() > MOST_TABLES;
            combinations.truncate(MOST_TABLES);
        }
        let mut tables: Vec<_> = combinations.iter().map(|fixed| self.table(fixed)).collect();
        if cut && let Some(last) = tables.last_mut() {
            last.notes.push(Note::new(format!(
                "Further tables are left out: put an axis on `rows` or `columns`, or take `mean_over` ({MOST_TABLES} tables at most)."
            )));
        }
        tables
    }

    /// Points of `axis` among the instances of one value: one where the table
    /// picked an instance (`eval@3.top1`), which is no axis left over.
    fn points_of(&self, value: &TableValue, axis: &str) -> Vec<&Point> {
        let mut points = Vec::new();
        for id in &value.instances {
            if let Some(point) = self.graph.node(*id).at.get(axis)
                && !points.contains(&point)
            {
                points.push(point);
            }
        }
        points
    }

    /// Points of `axis` in file order.
    fn points(&self, axis: &str) -> Vec<Point> {
        let mut points = Vec::new();
        for id in self.spec.values.iter().flat_map(|value| &value.instances) {
            if axis == "class" || axis == "candidate" {
                let names: Vec<String> = match ((self.measured)(*id), axis) {
                    (Measured::Metrics(table), "class") => table
                        .per_class
                        .into_iter()
                        .map(|class| class.class)
                        .collect(),
                    (Measured::Attributes(list), "class") => {
                        list.classes.into_iter().map(|entry| entry.class).collect()
                    }
                    (Measured::Attributes(list), _) => (list.classes.into_iter())
                        .filter(|entry| Some(&entry.class) == self.spec.class.as_ref())
                        .flat_map(|entry| entry.candidates)
                        .map(|candidate| candidate.attribute)
                        .collect(),
                    _ => Vec::new(),
                };
                for name in names {
                    let point = Point::Text(name);
                    if !points.contains(&point) {
                        points.push(point);
                    }
                }
            } else if let Some(point) = self.graph.node(*id).at.get(axis)
                && !points.contains(point)
            {
                points.push(point.clone());
            }
        }
        points
    }

    fn table(&self, fixed: &[(String, Point)]) -> Table {
        let spec = self.spec;
        let axis_lines = |axis: &str| self.points(axis).into_iter().map(Line::Point).collect();
        let values = || (0..spec.values.len()).map(Line::Value).collect();
        // Values stand on the side that no axis takes, on columns if both are free or taken.
        let values_on_rows = spec.rows.is_none();
        let rows: Vec<Line> = match &spec.rows {
            Some(axis) => axis_lines(axis),
            None => values(),
        };
        let points: Vec<Line> = match &spec.columns {
            Some(axis) => axis_lines(axis),
            None => vec![Line::Whole],
        };
        let columns: Vec<(Line, Line)> = points
            .iter()
            .flat_map(|point| {
                let values = if values_on_rows {
                    vec![Line::Whole]
                } else {
                    values()
                };
                values.into_iter().map(|value| (point.clone(), value))
            })
            .collect();

        let mut table = Table {
            name: spec.name.clone(),
            title: spec.title.clone().unwrap_or_else(|| spec.name.clone()),
            draw: spec.draw,
            ..Table::default()
        };
        for (i, (axis, point)) in fixed.iter().enumerate() {
            table.name += if i == 0 { "@" } else { "," };
            let _ = write!(table.name, "{axis}={point}");
            let _ = write!(table.title, ", {axis} = {point}");
        }
        table.columns.push(Column::words(
            spec.rows.clone().unwrap_or_else(|| "value".into()),
        ));
        let mut flags = Flags::default();
        let mut used = BTreeSet::new();
        // Cells first, as published figures decide which columns there are.
        let mut body: Vec<Vec<(Cell, Option<Value>)>> = Vec::new();
        for (r, row) in rows.iter().enumerate() {
            let mut line = Vec::new();
            for (c, (point, value)) in columns.iter().enumerate() {
                let value = match (row, value) {
                    (Line::Value(i), _) | (_, Line::Value(i)) => *i,
                    _ => continue,
                };
                let cell = self.cell(fixed, row, point, value, &mut flags);
                let published = self.published((r, row), (c, point), value, &mut used);
                line.push((cell, published));
            }
            body.push(line);
        }
        let published: Vec<Shown> = (0..columns.len())
            .map(|i| {
                let figures = body.iter().filter_map(|line| line.get(i)?.1.as_ref());
                let kinds = figures.map(|f| {
                    if f.is_number() {
                        Shown::Numbers
                    } else {
                        Shown::Words
                    }
                });
                kinds.max().unwrap_or(Shown::Nothing)
            })
            .collect();
        let contradictions = self.contradictions(&columns, &body);
        for ((point, value), published) in columns.iter().zip(&published) {
            let head = self.head(point, value);
            let several = columns.len() > 1;
            table.columns.push(Column::numbers(head.clone()));
            let (beside, minus) = if several {
                (format!("{head} published"), format!("{head} − published"))
            } else {
                ("published".to_owned(), "difference".to_owned())
            };
            match published {
                Shown::Nothing => {}
                Shown::Words => table.columns.push(Column::words(beside)),
                Shown::Numbers => {
                    table.columns.push(Column::numbers(beside));
                    table.columns.push(Column::numbers(minus));
                }
            }
        }
        for (row, line) in rows.iter().zip(body) {
            let mut cells = vec![Cell::head(self.row_head(row))];
            for ((cell, figure), published) in line.into_iter().zip(&published) {
                let ours = cell.number;
                cells.push(cell);
                match published {
                    Shown::Nothing => {}
                    Shown::Words => cells.push(figure.map_or_else(Cell::default, |figure| {
                        Cell::words(figure.as_str().unwrap_or_default())
                    })),
                    Shown::Numbers => {
                        cells.extend(beside(ours, figure.and_then(|figure| figure.as_f64())));
                    }
                }
            }
            table.rows.push(cells);
        }
        let compared = published.contains(&Shown::Numbers);
        self.notes(&mut table, &flags, &rows, &used, compared);
        table.notes.extend(contradictions);
        table
    }

    fn head(&self, point: &Line, value: &Line) -> String {
        let point = match (point, &self.spec.columns) {
            (Line::Point(point), Some(axis)) if axis == "class" => Some(point.to_string()),
            (Line::Point(point), Some(axis)) => Some(format!("{axis} = {point}")),
            _ => None,
        };
        let label = match value {
            Line::Value(i) => Some(self.spec.values[*i].label.clone()),
            _ => None,
        };
        match (point, label) {
            (Some(point), Some(label)) if self.spec.values.len() > 1 => format!("{label}, {point}"),
            (Some(point), _) => point,
            (None, Some(label)) => label,
            (None, None) => "ours".to_owned(),
        }
    }

    fn row_head(&self, row: &Line) -> String {
        match row {
            Line::Point(point) => point.to_string(),
            Line::Value(i) => self.spec.values[*i].label.clone(),
            Line::Whole => String::new(),
        }
    }

    fn cell(
        &self,
        fixed: &[(String, Point)],
        row: &Line,
        column: &Line,
        value: usize,
        flags: &mut Flags,
    ) -> Cell {
        let spec = self.spec;
        let value = &spec.values[value];
        let mut wanted: Vec<(&str, &Point)> = fixed.iter().map(|(a, p)| (a.as_str(), p)).collect();
        let mut about = About {
            class: spec.class.as_deref(),
            candidate: None,
        };
        for (line, axis) in [(row, &spec.rows), (column, &spec.columns)] {
            if let (Line::Point(point), Some(axis)) = (line, axis) {
                match point {
                    Point::Text(name) if axis == "class" => about.class = Some(name.as_str()),
                    Point::Text(name) if axis == "candidate" => {
                        about.candidate = Some(name.as_str());
                    }
                    point => wanted.push((axis, point)),
                }
            }
        }
        let figures: Vec<Figure> = value
            .instances
            .iter()
            .filter(|id| {
                let at = &self.graph.node(**id).at;
                let on_side = |axis: &str| {
                    [&spec.rows, &spec.columns]
                        .iter()
                        .any(|side| side.as_deref() == Some(axis))
                };
                let fits = |axis: &str, point: &Point| {
                    at.get(axis).is_none_or(|p| p == point)
                        || (!on_side(axis) && self.points_of(value, axis).len() == 1)
                };
                wanted.iter().all(|(axis, point)| fits(axis, point))
            })
            .map(|id| figure::read(&(self.measured)(*id), &value.field, about))
            .collect();
        figure_cell(&figures, spec.mean_over.is_some(), flags)
    }

    fn notes(
        &self,
        table: &mut Table,
        flags: &Flags,
        rows: &[Line],
        used: &BTreeSet<String>,
        published: bool,
    ) {
        let spec = self.spec;
        let notes = &mut table.notes;
        notes.extend(flags.notes(spec.mean_over.as_deref()));
        if published {
            notes.push(Note::new(
                "Beside a published figure: ours minus the published one.",
            ));
        }
        if rows.is_empty() {
            let axis = spec.rows.as_deref().unwrap_or_default();
            notes.push(Note::new(format!(
                "No point of `{axis}` is known, so there is no row."
            )));
        }
        let left: Vec<_> = spec
            .published
            .keys()
            .filter(|key| !used.contains(*key))
            .collect();
        if !left.is_empty() && !rows.is_empty() {
            notes.push(Note::new(format!(
                "Published figures without a place here: {}.",
                quoted(&left)
            )));
        }
        let grain = grain(spec);
        for value in &spec.values {
            let output = value
                .instances
                .first()
                .map(|id| self.graph.node(*id).output);
            if let Some((message, hint)) = output.and_then(|o| unknown_field(o, value, grain)) {
                let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
                notes.push(Note::new(format!("{message}{hint}.")));
            }
        }
    }
}

/// The table of a pipeline without `[tables]`: every evaluation's accuracy.
fn default_table(graph: &Graph, measured: &dyn Fn(NodeId) -> Measured) -> Option<Table> {
    let evaluations: Vec<_> = graph
        .ids()
        .filter(|id| graph.node(*id).output == Type::Metrics)
        .map(|id| (id, measured(id)))
        .collect();
    if evaluations.is_empty() {
        return None;
    }
    let mut flags = Flags::default();
    let fields: Vec<&str> = ["top1", "top5", "difference"]
        .into_iter()
        .filter(|field| {
            let exists = |(_, m): &(NodeId, Measured)| {
                matches!(figure::read(m, field, About::default()), Figure::Reading(_))
            };
            *field == "top1" || evaluations.iter().any(exists)
        })
        .collect();
    let mut table = Table {
        name: "results".into(),
        title: graph.title.clone().unwrap_or_else(|| graph.name.clone()),
        columns: std::iter::once(Column::words("node"))
            .chain(fields.iter().map(|field| Column::numbers(*field)))
            .collect(),
        ..Table::default()
    };
    for (id, measured) in &evaluations {
        let figures = fields
            .iter()
            .map(|field| figure::read(measured, field, About::default()));
        let cells = figures.map(|figure| figure_cell(&[figure], false, &mut flags));
        let row = std::iter::once(Cell::head(&graph.node(*id).id)).chain(cells.collect::<Vec<_>>());
        table.rows.push(row.collect());
    }
    table.notes = flags.notes(None);
    Some(table)
}

#[cfg(test)]
mod tests;
