//! The graph as SVG: boxes coloured and marked by what became of their nodes.

use std::{fmt::Write as _, time::Duration};

use html_escape::encode_safe;
use unicode_width::UnicodeWidthStr as _;

use super::{
    layout::{Layout, layout},
    page::{PageNode, State},
    sketch::{Block, Dot, Sketch, dots},
    words,
};
use crate::{pipeline::Graph, table::one_line};

/// Height of a box.
const HEIGHT: f64 = 46.0;
/// Boxes that can be laid out in reasonable time and looked at.
const MOST: usize = 400;
/// Letters of a title.
const TITLE: usize = 30;
/// Space around the drawing.
const MARGIN: f64 = 8.0;

/// Style of a drawing outside a page.
const STYLE: &str = "\
svg{color-scheme:light dark;--ink:light-dark(#1b1f24,#e8eaed);--soft:light-dark(#5b6570,#9aa4af);\
--line:light-dark(#aab3bc,#515b66);--card:light-dark(#ffffff,#1b2026)}\n";

/// How the drawing's parts look; the page uses it too.
pub(super) const SHAPES: &str = "\
.graph text{font:11px ui-sans-serif,system-ui,sans-serif;fill:var(--soft)}\
.graph .title{font:600 12px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:var(--ink)}\
.graph rect{fill:var(--card);stroke:var(--line)}\
.graph .edge{fill:none;stroke:var(--line);stroke-width:1.2}\
.graph .back{stroke-dasharray:4 3}\
.graph .tip{fill:var(--line)}\n";

/// The graph of a pipeline as a file of its own; `None` when it is too large to draw.
pub fn graph(graph: &Graph) -> Option<String> {
    let sketch = Sketch::new(&dots(graph));
    draw(
        &sketch,
        &|_| Look::default(),
        &format!("<style>{STYLE}{SHAPES}</style>"),
    )
}

/// The graph of a page, its boxes linked to the nodes' sections.
pub(super) fn page(nodes: &[PageNode], linked: &dyn Fn(usize) -> bool) -> Option<String> {
    let dots: Vec<_> = nodes
        .iter()
        .map(|node| Dot {
            id: node.id.clone(),
            name: node.name.clone(),
            kind: node.kind.clone(),
            round: node
                .at
                .iter()
                .find(|(axis, _)| axis == "round")
                .map(|(_, round)| round.clone()),
            needs: node.needs.clone(),
        })
        .collect();
    draw(&Sketch::new(&dots), &|block| look(block, nodes, linked), "")
}

/// What a box shows besides its name and kind.
#[derive(Default)]
struct Look {
    state: Option<State>,
    words: String,
    link: Option<usize>,
}

fn look(block: &Block, nodes: &[PageNode], linked: &dyn Fn(usize) -> bool) -> Look {
    let states = || block.nodes.iter().filter_map(|i| nodes[*i].state);
    let state = states().max();
    let words = match (block.nodes.as_slice(), state) {
        ([only], Some(state)) => match nodes[*only].took {
            Some(took) if state == State::Ran => {
                format!(
                    "ran {}",
                    words::duration(Duration::try_from_secs_f64(took).unwrap_or_default())
                )
            }
            _ => state.word().to_owned(),
        },
        (_, None) => String::new(),
        _ => [State::Failed, State::Blocked, State::Ran, State::Hit]
            .into_iter()
            .filter_map(|state| {
                let count = states().filter(|s| *s == state).count();
                (count > 0).then(|| format!("{} {}", words::count(count as u64), state.word()))
            })
            .collect::<Vec<_>>()
            .join(", "),
    };
    let worst = block.nodes.iter().copied().filter(|i| linked(*i));
    Look {
        state,
        words,
        link: worst.max_by_key(|i| (nodes[*i].state, std::cmp::Reverse(*i))),
    }
}

fn draw(sketch: &Sketch, look: &dyn Fn(&Block) -> Look, style: &str) -> Option<String> {
    if sketch.blocks.len() > MOST {
        return None;
    }
    let looks: Vec<_> = sketch.blocks.iter().map(look).collect();
    let titles: Vec<_> = sketch.blocks.iter().map(title).collect();
    let widths: Vec<_> = sketch
        .blocks
        .iter()
        .zip(&looks)
        .zip(&titles)
        .map(|((block, look), title)| {
            let gap = if look.words.is_empty() { 0 } else { 3 };
            let second = (block.kind.width() + look.words.width() + gap) as f64 * 5.9;
            (title.width() as f64 * 7.3).max(second)
                + if look.state.is_some() { 44.0 } else { 24.0 }
        })
        .collect();
    let layout = layout(&widths, HEIGHT, &sketch.edges);
    let back: Vec<_> = sketch
        .back
        .iter()
        .map(|edge| back_edge(*edge, &layout, &widths))
        .collect();
    let right = back
        .iter()
        .map(|(_, right)| *right)
        .fold(layout.width, f64::max);
    let (width, height) = (right + 2.0 * MARGIN, layout.height + 2.0 * MARGIN);
    let mut out = format!(
        "<svg class=\"graph\" xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"{:.0} {:.0} {width:.0} {height:.0}\" role=\"group\" aria-label=\"Graph of the pipeline\">\n{style}\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
         orient=\"auto\"><path class=\"tip\" d=\"M0 0.5L8 4L0 7.5z\"/></marker></defs>\n",
        -MARGIN, -MARGIN
    );
    edges(&mut out, &layout, &back);
    for (i, block) in sketch.blocks.iter().enumerate() {
        push_box(
            &mut out,
            block,
            &titles[i],
            &looks[i],
            layout.boxes[i],
            widths[i],
        );
    }
    Some(out + "</svg>\n")
}

fn title(block: &Block) -> String {
    let mut title = one_line(&block.title);
    if title.chars().count() > TITLE {
        let start: String = title.chars().take(TITLE - 1).collect();
        title = format!("{start}…");
    }
    match block.times() {
        Some(times) => format!("{title} {times}"),
        None => title,
    }
}

fn edges(out: &mut String, layout: &Layout, back: &[(String, f64)]) {
    for piece in &layout.pieces {
        let ((x1, y1), (x2, y2)) = (piece.from, piece.to);
        let tip = if piece.last {
            " marker-end=\"url(#tip)\""
        } else {
            ""
        };
        let path = if (x1 - x2).abs() < 0.5 {
            format!("M{x1:.1} {y1:.1}V{y2:.1}")
        } else {
            let middle = f64::midpoint(y1, y2);
            format!("M{x1:.1} {y1:.1}C{x1:.1} {middle:.1} {x2:.1} {middle:.1} {x2:.1} {y2:.1}")
        };
        let _ = writeln!(out, "<path class=\"edge\" d=\"{path}\"{tip}/>");
    }
    for (path, _) in back {
        let _ = writeln!(
            out,
            "<path class=\"edge back\" d=\"{path}\" marker-end=\"url(#tip)\"/>"
        );
    }
}

/// The path of an edge that leads back up, right of all boxes between its
/// ends, and how far to the right it goes.
fn back_edge((from, to): (usize, usize), layout: &Layout, widths: &[f64]) -> (String, f64) {
    let side = |i: usize| {
        (
            layout.boxes[i].0 + widths[i],
            layout.boxes[i].1 + HEIGHT / 2.0,
        )
    };
    let ((x1, y1), (x2, y2)) = (side(from), side(to));
    let between = (0..widths.len())
        .map(side)
        .filter(|(_, y)| (y2..=y1).contains(y));
    let reach = between.map(|(x, _)| x).fold(0.0, f64::max) + 16.0;
    // A Bézier curve goes three quarters of the way to its control points.
    let control = (reach - f64::midpoint(x1, x2) / 4.0) / 0.75;
    let path =
        format!("M{x1:.1} {y1:.1}C{control:.1} {y1:.1} {control:.1} {y2:.1} {x2:.1} {y2:.1}");
    (path, reach)
}

fn push_box(
    out: &mut String,
    block: &Block,
    title: &str,
    look: &Look,
    (x, y): (f64, f64),
    width: f64,
) {
    let class = look.state.map_or("none", State::word);
    let full = encode_safe(&block.title);
    if let Some(link) = look.link {
        let _ = write!(out, "<a href=\"#node-{link}\">");
    }
    let words = encode_safe(&look.words);
    let _ = write!(
        out,
        "<g class=\"{class}\" transform=\"translate({x:.1} {y:.1})\"><title>{full}: {} {words}</title>\
         <rect width=\"{width:.1}\" height=\"{HEIGHT}\" rx=\"7\"/>",
        encode_safe(&block.kind)
    );
    let left = match look.state {
        None => 12.0,
        Some(state) => {
            let _ = write!(
                out,
                "<g class=\"mark\" transform=\"translate(10 9)\">{}</g>",
                mark(state)
            );
            32.0
        }
    };
    let _ = write!(
        out,
        "<text class=\"title\" x=\"{left}\" y=\"20\">{}</text><text x=\"{left}\" y=\"36\">{}</text>",
        encode_safe(title),
        encode_safe(&one_line(&block.kind))
    );
    if !look.words.is_empty() {
        let _ = write!(
            out,
            "<text class=\"word\" x=\"{:.1}\" y=\"36\" text-anchor=\"end\">{words}</text>",
            width - 12.0
        );
    }
    out.push_str("</g>");
    if look.link.is_some() {
        out.push_str("</a>");
    }
    out.push('\n');
}

/// A sign of 14 by 14: a ring for a hit, a disc for what ran, a cross for a
/// failure, a bar for what was blocked. Told apart without colour.
pub(super) const fn mark(state: State) -> &'static str {
    match state {
        State::Hit => "<circle class=\"ring\" cx=\"7\" cy=\"7\" r=\"4.5\"/>",
        State::Ran => "<circle class=\"disc\" cx=\"7\" cy=\"7\" r=\"5.5\"/>",
        State::Failed => "<path class=\"cross\" d=\"M3 3L11 11M11 3L3 11\"/>",
        State::Blocked => "<path class=\"bar\" d=\"M2 7H12\"/>",
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            page::Page,
            sample::{probes, refinement},
        },
        *,
    };

    #[test]
    fn a_drawing_of_its_own_has_its_style_and_no_link() {
        let svg = graph(&refinement()).unwrap();
        assert!(svg.contains("<style>") && !svg.contains("<a "));
        assert_eq!(svg.matches("<rect").count(), 19);
    }

    #[test]
    fn states_are_told_in_words_and_shapes() {
        let mut page = Page::of(&refinement());
        page.nodes[0].state = Some(State::Hit);
        page.nodes[1].state = Some(State::Ran);
        page.nodes[1].took = Some(2.3);
        page.nodes[2].state = Some(State::Failed);
        let svg = super::page(&page.nodes, &|_| true).unwrap();
        for part in [
            "class=\"ring\"",
            "ran 2.3 s</text>",
            "class=\"cross\"",
            ">failed</text>",
            "href=\"#node-2\"",
        ] {
            assert!(svg.contains(part), "{part}");
        }
    }

    #[test]
    fn rounds_together_are_joined_by_dashed_edges() {
        let sketch = Sketch::by(&dots(&refinement()), true);
        let style = format!("<style>{STYLE}{SHAPES}</style>");
        let svg = draw(&sketch, &|_| Look::default(), &style).unwrap();
        assert_eq!(svg.matches("class=\"edge back\"").count(), 2);
        assert!(svg.contains("eval ×4"));
        if let Some(folder) = std::env::var_os("RUNNER_PAGES") {
            std::fs::write(std::path::Path::new(&folder).join("grouped.svg"), svg).unwrap();
        }
    }

    #[test]
    fn names_are_escaped() {
        let mut page = Page::of(&refinement());
        page.nodes[0].id = "<script>alert(1)</script>".into();
        let svg = super::page(&page.nodes, &|_| true).unwrap();
        assert!(!svg.contains("<script") && svg.contains("&lt;script&gt;"));
    }

    #[test]
    fn ten_thousand_names_are_not_drawn() {
        assert!(graph(&probes(10_000, 100)).is_none());
        assert!(graph(&probes(200, 10)).is_some());
    }
}
