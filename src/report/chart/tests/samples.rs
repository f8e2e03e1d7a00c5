//! Charts and tables to draw in tests.

use super::super::{Bar, Bars, Curve, Lines, Point, Series, X};
use crate::table::{Cell, Column, Note, Table};

pub(super) fn series(name: &str, points: &[(f64, f64)]) -> Series {
    Series {
        name: name.into(),
        points: points.iter().map(|(x, y)| Point::new(*x, *y)).collect(),
        dashed: false,
    }
}

/// `points` with an interval of `by` on either side.
pub(super) fn around(name: &str, points: &[(f64, f64)], by: f64) -> Series {
    let mut series = series(name, points);
    for point in &mut series.points {
        (point.low, point.high) = (Some(point.y - by), Some(point.y + by * 0.9));
    }
    series
}

pub(super) fn rounds() -> Lines {
    let mut ours = around(
        "refined",
        &[(0.0, 61.3), (1.0, 63.94), (2.0, 64.8), (3.0, 65.01)],
        0.95,
    );
    for point in &mut ours.points[1..] {
        point.mark = "*";
    }
    let mut published = series(
        "refined published",
        &[(0.0, 61.1), (1.0, 64.4), (2.0, 65.2), (3.0, 65.9)],
    );
    published.dashed = true;
    Lines {
        title: "Accuracy by round of refinement".into(),
        titled: true,
        x_label: "round".into(),
        y_label: "top-1, %".into(),
        spread: "95% interval".into(),
        series: vec![
            ours,
            published,
            around("random words", &[(0.0, 61.3), (1.0, 61.0), (2.0, 60.2), (3.0, 60.9)], 0.95),
        ],
        notes: vec!["* selected on this split: labels of the scored images had a part in choosing the prompts.".into()],
        ..Lines::default()
    }
}

pub(super) fn log() -> Lines {
    Lines {
        title: "Answers asked for".into(),
        x_label: "answers".into(),
        y_label: "distinct attributes".into(),
        x_log: true,
        series: vec![
            series(
                "free",
                &[(3.0, 21.0), (10.0, 55.0), (30.0, 121.0), (100.0, 260.0)],
            ),
            series(
                "held to the form",
                &[
                    (100.0, 231.0),
                    (3.0, 19.0),
                    (10.0, f64::NAN),
                    (30.0, 118.0),
                    (0.0, 3.0),
                ],
            ),
        ],
        ..Lines::default()
    }
}

pub(super) fn many() -> Lines {
    let wave = |k: usize| {
        let points: Vec<_> = (0..200)
            .map(|i| {
                let x = f64::from(i);
                (x, 40.0 + k as f64 * 4.0 + 9.0 * (x / 23.0 + k as f64).sin())
            })
            .collect();
        around(
            &format!("series {k} with a rather long name, seed={k}"),
            &points,
            2.0,
        )
    };
    Lines {
        title: "Two hundred points of thirteen series".into(),
        x_label: "step".into(),
        y_label: "value".into(),
        spread: "mean ± standard deviation over five seeds".into(),
        series: (0..13).map(wave).collect(),
        ..Lines::default()
    }
}

pub(super) fn worded(long: bool) -> Lines {
    let words: Vec<String> = if long {
        (0..12)
            .map(|i| format!("clip_prompts/variant_{i}_of_a_long_family.j2 with words"))
            .collect()
    } else {
        [
            "plain name",
            "a photo of a",
            "seven prompts",
            "eighty prompts of the paper",
            "chosen attributes",
        ]
        .map(str::to_owned)
        .into()
    };
    let points = |base: f64| -> Vec<_> {
        (0..words.len())
            .map(|i| (i as f64, base + (i as f64 * 2.3) % 7.0))
            .collect()
    };
    Lines {
        title: "By prompt".into(),
        x_label: "prompt".into(),
        y_label: "top-1, %".into(),
        spread: "95% interval".into(),
        series: vec![
            around("ViT-B/32", &points(58.0), 1.0),
            around("ViT-L/14", &points(66.0), 0.9),
        ],
        x: X::Words(words),
        ..Lines::default()
    }
}

pub(super) fn one() -> Lines {
    Lines {
        title: "One point".into(),
        x_label: "temperature".into(),
        y_label: "invalid, %".into(),
        series: vec![series("invalid, %", &[(0.9, 0.0)])],
        ..Lines::default()
    }
}

pub(super) fn negative() -> Lines {
    Lines {
        title: "Differences".into(),
        x_label: "learning rate".into(),
        y_label: "difference, points".into(),
        x_log: true,
        series: vec![
            series("equal", &[(1e-6, 0.4), (1e-5, 0.4), (1e-4, 0.4)]),
            series("falls", &[(1e-6, 0.1), (1e-5, 1.9), (1e-4, -3.2)]),
        ],
        ..Lines::default()
    }
}

pub(super) fn airplane() -> Bars {
    let list = [
        ("swept-back wings", 0.2714, true, "1st"),
        ("jet engines under the wings", 0.2688, true, "2nd"),
        ("a long fuselage", 0.2671, true, "3rd"),
        ("tail fin", 0.2590, false, ""),
        ("landing gear", 0.2566, false, ""),
        (
            "cockpit windows in a row above a pointed nose, seen from the side",
            0.2541,
            false,
            "",
        ),
        ("contrails", 0.2497, false, ""),
        ("metal body", 0.2433, false, ""),
        ("blue sky behind it", 0.2381, false, ""),
        ("feathers", 0.1904, false, ""),
    ];
    Bars {
        title: "Candidates for `airplane`".into(),
        titled: true,
        x_label: "cosine similarity".into(),
        chosen: "chosen".into(),
        groups: vec![(
            String::new(),
            list.iter()
                .map(|(label, value, chosen, detail)| Bar {
                    label: (*label).into(),
                    value: *value,
                    chosen: *chosen,
                    detail: (*detail).into(),
                    ..Bar::default()
                })
                .collect(),
        )],
        ..Bars::default()
    }
}

pub(super) fn mixed() -> Bars {
    let bar = |label: &str, value: f64, by: f64, detail: &str| Bar {
        label: label.into(),
        value,
        low: Some(value - by),
        high: Some(value + by),
        detail: detail.into(),
        ..Bar::default()
    };
    Bars {
        title: "Difference from plain prompts".into(),
        x_label: "percentage points".into(),
        spread: "95% interval".into(),
        groups: vec![
            (
                "ViT-B/32".into(),
                vec![
                    bar("seven prompts", 2.4, 0.6, "p < 0.001"),
                    bar("random words", -1.25, 0.6, "p = 0.021"),
                    bar("nothing", 0.0, 0.3, ""),
                ],
            ),
            (
                "ViT-L/14".into(),
                vec![
                    bar("seven prompts", 1.1, 0.5, "p = 0.004"),
                    bar("random words", -3.6, 0.7, ""),
                    Bar {
                        label: "broken".into(),
                        value: f64::NAN,
                        detail: "failed".into(),
                        ..Bar::default()
                    },
                ],
            ),
        ],
        ..Bars::default()
    }
}

pub(super) fn trainings() -> Vec<Curve> {
    let run = |name: &str, rate: f64| Curve {
        name: name.into(),
        points: (1..=10)
            .map(|epoch| {
                let left = (-f64::from(epoch) * rate).exp();
                (f64::from(epoch), 0.3 + 1.9 * left, 94.0 - 32.0 * left)
            })
            .collect(),
    };
    vec![
        run("finetune@rate=1e-5", 0.2),
        run("finetune@rate=3e-5", 0.45),
        run("finetune@rate=1e-4", 0.8),
    ]
}

/// Shares with intervals by round, a published figure and a failure.
pub(super) fn shares(heads: &[&str]) -> Table {
    let share = |number: f64, mark| Cell {
        detail: format!("[{:.1}, {:.1}]", number - 0.9, number + 0.9),
        mark,
        more: vec![("low", number - 0.9), ("high", number + 0.9)],
        ..Cell::number(number, format!("{number:.2}"))
    };
    let figure = |number: f64| Cell::number(number, format!("{number:.2}"));
    let rows = heads.iter().enumerate().map(|(i, head)| {
        let third = i == 2;
        let i = i as f64;
        let ours = if third {
            Cell::failed()
        } else {
            share(61.3 + 2.0 * i, if i > 0.0 { "*" } else { "" })
        };
        vec![
            Cell::head(*head),
            ours,
            figure(61.0 + 1.7 * i),
            figure(0.3 + 0.3 * i),
        ]
    });
    Table {
        name: "table2".into(),
        title: "Accuracy by round".into(),
        columns: vec![
            Column::words("round"),
            Column::numbers("eval.top1"),
            Column::numbers("published"),
            Column::numbers("difference"),
        ],
        rows: rows.collect(),
        notes: vec![
            Note::marked(
                "*",
                "selected on this split: labels of the scored images had a part in choosing the prompts.",
            ),
            Note::new("In brackets: the 95% Wilson interval."),
        ],
        ..Table::default()
    }
}

/// Percentages, large counts and small counts by temperature.
pub(super) fn temperatures() -> Table {
    let rows = [
        ("0.2", 4.1, 208.0, 0.0, 61.0),
        ("0.5", 7.45, 221.0, 1.0, 102.0),
        ("1.0", 18.5, 260.0, 3.0, 190.0),
        ("1.4", 44.0, 402.0, 9.0, 231.0),
    ];
    Table {
        name: "free".into(),
        title: "Free answers".into(),
        columns: [
            "temperature",
            "invalid at first, %",
            "attempts",
            "given up",
            "distinct attributes",
        ]
        .map(Column::numbers)
        .into(),
        rows: rows
            .iter()
            .map(|(head, a, b, c, d)| {
                vec![
                    Cell::head(*head),
                    Cell::number(*a, format!("{a:.2}")),
                    Cell::number(*b, format!("{b:.0}")),
                    Cell::number(*c, format!("{c:.0}")),
                    Cell::number(*d, format!("{d:.0}")),
                ]
            })
            .collect(),
        ..Table::default()
    }
}

/// Ten candidates of a class by cosine similarity, three of them kept.
pub(super) fn ranked() -> Table {
    let bars = airplane().groups.remove(0).1;
    let row = |bar: Bar| {
        let cell = Cell {
            mark: if bar.chosen { "✓" } else { "" },
            ..Cell::number(bar.value, format!("{:.3}", bar.value))
        };
        vec![Cell::head(bar.label), cell]
    };
    Table {
        name: "airplane".into(),
        title: "Candidates of airplane".into(),
        columns: vec![
            Column::words("candidate"),
            Column::numbers("cosine similarity"),
        ],
        rows: bars.into_iter().map(row).collect(),
        notes: vec![Note::marked("✓", "kept.")],
        ..Table::default()
    }
}

/// Accuracies beside differences from a baseline, which are all below zero.
pub(super) fn changes() -> Table {
    let mut table = shares(&["0", "1", "3"]);
    for (i, row) in table.rows.iter_mut().enumerate() {
        let number = -0.4 - 1.5 * i as f64;
        row.truncate(2);
        row.push(Cell {
            detail: format!("[{:.1}, {:.1}], won 3, lost 9", number - 0.3, number + 0.3),
            more: vec![
                ("low", number - 0.3),
                ("high", number + 0.3),
                ("won", 3.0),
                ("lost", 9.0),
            ],
            ..Cell::number(number, format!("{number:+.2}"))
        });
    }
    table.columns.truncate(2);
    table.columns.push(Column::numbers("eval.difference"));
    table
}
