//! The page's data arranged as it is shown: heat maps, chosen attributes,
//! what became of answers.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    chart::Curve,
    figure::SELECTED,
    page::{Page, PageNode},
};
use crate::artifact::{Attributes, ClassAttributes, MetricsTable};

/// Steps of the colour scale.
pub(super) const STEPS: usize = 9;

/// Evaluations in one heat map.
const MOST: usize = 100;

/// A matrix of numbers with a colour step each.
#[derive(Debug, Serialize)]
pub(super) struct Heat {
    corner: &'static str,
    columns: Vec<Head>,
    rows: Vec<HeatRow>,
    low: f64,
    high: f64,
    left_out: usize,
    selected: bool,
}

/// A heading, maybe with a link to a node.
#[derive(Clone, Debug, Serialize)]
struct Head {
    text: String,
    node: Option<usize>,
    mark: &'static str,
}

#[derive(Debug, Serialize)]
struct HeatRow {
    head: Head,
    /// Whether it sums up the others.
    total: bool,
    cells: Vec<Option<HeatCell>>,
}

#[derive(Clone, Debug, Serialize)]
struct HeatCell {
    text: String,
    title: String,
    step: usize,
}

/// One heat map of per-class accuracy for every list of classes.
pub(super) fn heats(page: &Page) -> Vec<Heat> {
    let mut groups: BTreeMap<Vec<&str>, Vec<(usize, &MetricsTable)>> = BTreeMap::new();
    for (i, node) in page.nodes.iter().enumerate() {
        if let Some(metrics) = &node.metrics {
            let classes = metrics.per_class.iter().map(|c| c.class.as_str()).collect();
            groups.entry(classes).or_default().push((i, metrics));
        }
    }
    let mut groups: Vec<_> = groups
        .into_iter()
        .filter(|(classes, _)| !classes.is_empty())
        .collect();
    groups.sort_by_key(|(_, list)| list[0].0);
    groups
        .into_iter()
        .map(|(classes, list)| heat(page, &classes, &list))
        .collect()
}

fn heat(page: &Page, classes: &[&str], all: &[(usize, &MetricsTable)]) -> Heat {
    let list = &all[..all.len().min(MOST)];
    let values = || {
        list.iter()
            .flat_map(|(_, m)| m.per_class.iter().map(|c| c.top1.percent))
    };
    let low = (values().fold(100.0, f64::min) / 10.0).floor() * 10.0;
    let high = ((values().fold(0.0, f64::max) / 10.0).ceil() * 10.0).max(low + 10.0);
    let cell = |percent: f64, title: String| HeatCell {
        text: format!("{percent:.1}"),
        title,
        step: step((percent - low) / (high - low)),
    };
    let node_head = |(i, metrics): &(usize, &MetricsTable)| Head {
        text: page.nodes[*i].id.clone(),
        node: Some(*i),
        mark: if metrics.selected_on_this_split {
            SELECTED
        } else {
            ""
        },
    };
    let plain = |text: &str| Head {
        text: text.to_owned(),
        node: None,
        mark: "",
    };
    let of_class = |metrics: &MetricsTable, class: usize| {
        let top1 = &metrics.per_class[class].top1;
        let title = format!(
            "{} of {} images, 95% [{:.1}, {:.1}]",
            top1.correct, top1.total, top1.low, top1.high
        );
        cell(top1.percent, title)
    };
    let mean = |metrics: &MetricsTable| cell(metrics.mean_per_class, "mean of the classes".into());
    // Pages scroll down, so the side that would be wider goes there.
    let width = |heads: &mut dyn Iterator<Item = &str>| {
        heads
            .map(|head| head.chars().count().max(6) + 2)
            .sum::<usize>()
    };
    let nodes_wide = width(&mut list.iter().map(|(i, _)| page.nodes[*i].id.as_str()));
    let by_class = nodes_wide <= 90.max(width(&mut classes.iter().copied()));
    let (corner, columns, rows) = if by_class {
        let mut rows = vec![HeatRow {
            head: plain("mean"),
            total: true,
            cells: list.iter().map(|(_, m)| Some(mean(m))).collect(),
        }];
        rows.extend(classes.iter().enumerate().map(|(c, class)| HeatRow {
            head: plain(class),
            total: false,
            cells: list.iter().map(|(_, m)| Some(of_class(m, c))).collect(),
        }));
        ("class", list.iter().map(node_head).collect(), rows)
    } else {
        let rows = list.iter().map(|entry| HeatRow {
            head: node_head(entry),
            total: false,
            cells: std::iter::once(mean(entry.1))
                .chain((0..classes.len()).map(|c| of_class(entry.1, c)))
                .map(Some)
                .collect(),
        });
        let columns = std::iter::once("mean")
            .chain(classes.iter().copied())
            .map(plain)
            .collect();
        ("node", columns, rows.collect())
    };
    Heat {
        corner,
        columns,
        rows,
        low,
        high,
        left_out: all.len() - list.len(),
        selected: list.iter().any(|(_, m)| m.selected_on_this_split),
    }
}

/// The confusion of one evaluation: rows are labels, shares of a row give the colour.
pub(super) fn confusion(metrics: &MetricsTable) -> Option<Heat> {
    let classes: Vec<_> = metrics.per_class.iter().map(|c| c.class.as_str()).collect();
    if metrics.confusion.len() != classes.len() || classes.len() > 30 {
        return None;
    }
    let head = |class: &&str| Head {
        text: (*class).to_owned(),
        node: None,
        mark: "",
    };
    let rows = metrics
        .confusion
        .iter()
        .zip(&classes)
        .map(|(counts, class)| {
            let total = counts.iter().sum::<u64>().max(1) as f64;
            let cells = counts.iter().zip(&classes).map(|(count, predicted)| {
                (*count > 0).then(|| HeatCell {
                    text: count.to_string(),
                    title: format!("{count} of {class} taken for {predicted}"),
                    step: step(*count as f64 / total),
                })
            });
            HeatRow {
                head: head(class),
                total: false,
                cells: cells.collect(),
            }
        });
    Some(Heat {
        corner: "label",
        columns: classes.iter().map(head).collect(),
        rows: rows.collect(),
        low: 0.0,
        high: 100.0,
        left_out: 0,
        selected: false,
    })
}

/// The colour step of a share between 0 and 1.
fn step(share: f64) -> usize {
    ((share * STEPS as f64) as usize).min(STEPS - 1)
}

/// Attributes by class, with rounds side by side.
#[derive(Debug, Serialize)]
pub(super) struct Chosen {
    title: String,
    columns: Vec<Head>,
    rows: Vec<ChosenRow>,
}

#[derive(Debug, Serialize)]
struct ChosenRow {
    class: String,
    cells: Vec<ChosenCell>,
}

#[derive(Debug, Default, Serialize)]
struct ChosenCell {
    /// Attributes that the column before had not, with their scores in words.
    new: Vec<(String, String)>,
    /// How many it had already.
    kept: usize,
}

/// A node that chooses: its index, itself, and what it chose.
type Choice<'a> = (usize, &'a PageNode, &'a Attributes);

/// One table for every node that chooses, its rounds as columns.
pub(super) fn chosen(page: &Page) -> Vec<Chosen> {
    let mut groups: Vec<(String, Vec<Choice<'_>>)> = Vec::new();
    for (i, node) in page.nodes.iter().enumerate() {
        let Some(attributes) = &node.attributes else {
            continue;
        };
        let others: Vec<_> = node
            .at
            .iter()
            .filter(|(axis, _)| axis != "round")
            .map(|(axis, point)| format!("{axis} = {point}"))
            .collect();
        let title = std::iter::once(node.name.clone())
            .chain(others)
            .collect::<Vec<_>>()
            .join(", ");
        match groups.iter_mut().find(|(t, _)| *t == title) {
            Some((_, list)) => list.push((i, node, attributes)),
            None => groups.push((title, vec![(i, node, attributes)])),
        }
    }
    groups
        .into_iter()
        .map(|(title, list)| {
            let columns = list.iter().map(|(i, node, _)| {
                let round = node.at.iter().find(|(axis, _)| axis == "round");
                Head {
                    text: round.map_or_else(
                        || "chosen".to_owned(),
                        |(_, round)| format!("round {round}"),
                    ),
                    node: Some(*i),
                    mark: "",
                }
            });
            let classes: Vec<&str> = list[0].2.classes.iter().map(|c| c.class.as_str()).collect();
            let rows = classes.iter().map(|class| {
                let mut before: &[String] = &[];
                let cells = list.iter().map(|(_, _, attributes)| {
                    let Some(entry) = attributes.classes.iter().find(|c| c.class == *class) else {
                        return ChosenCell::default();
                    };
                    let new = entry.attributes.iter().filter(|a| !before.contains(a));
                    let new: Vec<_> = new.map(|a| (a.clone(), score(entry, a))).collect();
                    before = &entry.attributes;
                    ChosenCell {
                        kept: entry.attributes.len() - new.len(),
                        new,
                    }
                });
                ChosenRow {
                    class: (*class).to_owned(),
                    cells: cells.collect(),
                }
            });
            Chosen {
                title,
                rows: rows.collect(),
                columns: columns.collect(),
            }
        })
        .collect()
}

/// What an attribute scored, in words: `812 → 824 of 1000`, or a cosine.
fn score(entry: &ClassAttributes, attribute: &str) -> String {
    let Some(scored) = entry.candidates.iter().find(|c| c.attribute == attribute) else {
        return String::new();
    };
    match (entry.images, entry.baseline) {
        (Some(images), Some(baseline)) => {
            format!("{baseline:.0} → {:.0} of {images}", scored.score)
        }
        (Some(images), None) => format!("{:.0} of {images}", scored.score),
        _ => format!("{:.3}", scored.score),
    }
}

/// What every trained model saw, epoch by epoch.
pub(super) fn curves(page: &Page) -> Vec<Curve> {
    let trained = page.nodes.iter().filter(|node| !node.curve.is_empty());
    let curve = |node: &PageNode| Curve {
        name: node.id.clone(),
        points: (node.curve.iter().zip(1..))
            .map(|(epoch, number)| (f64::from(number), epoch.loss, epoch.accuracy))
            .collect(),
    };
    trained.map(curve).collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::sample::{metrics, refinement},
        *,
    };
    use crate::artifact::Scored;

    fn evaluated(count: usize) -> Page {
        let mut page = Page::of(&refinement());
        for (i, node) in page.nodes.iter_mut().rev().take(count).enumerate() {
            node.metrics = Some(metrics(i as u64, i == 0));
        }
        page
    }

    #[test]
    fn the_wider_side_of_a_heat_map_goes_down() {
        let few = &heats(&evaluated(4))[0];
        assert_eq!(
            (few.corner, few.columns.len(), few.rows.len()),
            ("class", 4, 11)
        );
        assert!(few.rows[0].total && few.selected);
        let many = &heats(&evaluated(19))[0];
        assert_eq!(
            (many.corner, many.columns.len(), many.rows.len()),
            ("node", 11, 19)
        );
    }

    #[test]
    fn the_scale_spans_what_there_is() {
        let heat = &heats(&evaluated(1))[0];
        assert_eq!((heat.low, heat.high), (50.0, 100.0));
        assert_eq!((step(0.0), step(0.5), step(1.0)), (0, 4, 8));
    }

    #[test]
    fn a_round_shows_what_it_added() {
        let mut page = Page::of(&refinement());
        let entry = |attributes: &[&str]| Attributes {
            classes: vec![ClassAttributes {
                class: "cat".into(),
                score: None,
                attributes: attributes.iter().map(|a| (*a).to_owned()).collect(),
                candidates: attributes
                    .iter()
                    .map(|a| Scored {
                        attribute: (*a).to_owned(),
                        score: 824.0,
                    })
                    .collect(),
                baseline: Some(812.0),
                images: Some(1000),
            }],
        };
        page.nodes[4].attributes = Some(entry(&["fur"]));
        page.nodes[7].attributes = Some(entry(&["fur", "ears"]));
        let tables = chosen(&page);
        assert_eq!(tables.len(), 1);
        let cells = &tables[0].rows[0].cells;
        let words = "812 → 824 of 1000".to_owned();
        assert_eq!(cells[0].new, [("fur".to_owned(), words.clone())]);
        assert_eq!(
            (cells[1].new.as_slice(), cells[1].kept),
            (&[("ears".to_owned(), words)][..], 1)
        );
    }
}
