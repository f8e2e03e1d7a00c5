//! Learning curves of fine-tuning: loss and accuracy by epoch, side by side.

use std::fmt::Write as _;

use super::{
    Lines, MOST_SERIES, Point, Series,
    canvas::{Canvas, safe},
    lines::{self, Frame},
    marker,
};

/// Size of each of the two charts.
const FRAME: Frame = Frame {
    width: 480.0,
    plot: 190.0,
    legend: false,
};

/// The curve of one training.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// Its name in the legend: the node's.
    pub name: String,
    /// Epoch (the first is 1), mean loss, and accuracy on the training images in percent.
    pub points: Vec<(f64, f64, f64)>,
}

/// Two charts in a `<div class="charts">`, loss and accuracy, and one legend for
/// both when there is more than one curve. Empty without a point.
pub fn curves(list: &[Curve]) -> String {
    if list.iter().all(|curve| curve.points.is_empty()) {
        return String::new();
    }
    let chart = |title: &str, y_label: &str, pick: fn(&(f64, f64, f64)) -> f64| {
        let series = list.iter().map(|curve| Series {
            name: curve.name.clone(),
            points: curve
                .points
                .iter()
                .map(|point| Point::new(point.0, pick(point)))
                .collect(),
            dashed: false,
        });
        let chart = Lines {
            title: title.to_owned(),
            x_label: "epoch".to_owned(),
            y_label: y_label.to_owned(),
            series: series.collect(),
            ..Lines::default()
        };
        lines::draw(&chart, FRAME)
    };
    let mut out = format!(
        "<div class=\"charts\">\n{}{}</div>\n",
        chart("Loss by epoch", "training loss", |p| p.1),
        chart("Training accuracy by epoch", "training accuracy, %", |p| p
            .2)
    );
    if list.len() > 1 {
        out += "<ul class=\"key\">\n";
        for (i, curve) in list.iter().take(MOST_SERIES).enumerate() {
            let mut sample = Canvas::default();
            sample.line(&format!("line c{i}"), (0.0, 7.0), (28.0, 7.0));
            sample.shape(
                &format!("marker c{i}"),
                &marker::corners(i, (14.0, 7.0)),
                &curve.name,
            );
            let _ = writeln!(
                out,
                "<li>{}<span>{}</span></li>",
                sample.inline((28.0, 14.0)),
                safe(&curve.name)
            );
        }
        out += "</ul>\n";
    }
    out
}
