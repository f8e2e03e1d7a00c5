//! Places the boxes of a graph in layers from top to bottom (after Sugiyama,
//! Tagawa and Toda, 1981): longest paths give layers, barycentres the order
//! in a layer, least squares the positions.

use std::collections::{BTreeMap, BTreeSet};

/// Space between neighbours in a layer.
const GAP: f64 = 22.0;
/// Space between layers.
pub(super) const DROP: f64 = 46.0;
/// Width of an edge that passes a layer.
const LANE: f64 = 6.0;
/// Rounds of ordering and of placing.
const SWEEPS: usize = 16;

/// Where everything is.
pub(super) struct Layout {
    /// Top left corner of each box.
    pub(super) boxes: Vec<(f64, f64)>,
    /// Pieces of edges as `(x, y, x, y)`, each from one layer's lower side to
    /// the next one's upper side, with the boxes that they lead from and, for
    /// the last piece, to.
    pub(super) pieces: Vec<Piece>,
    /// Size in all.
    pub(super) width: f64,
    pub(super) height: f64,
}

/// A piece of an edge; edges from the same box share theirs as long as they can.
pub(super) struct Piece {
    pub(super) from: (f64, f64),
    pub(super) to: (f64, f64),
    /// Whether it ends at a box.
    pub(super) last: bool,
}

/// A place in a layer: a box, or an edge that passes on its way from a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Box(usize),
    Lane(usize, usize),
}

/// Lays out boxes of `widths` and one `height` with `edges` from smaller to larger indices.
pub(super) fn layout(widths: &[f64], height: f64, edges: &BTreeSet<(usize, usize)>) -> Layout {
    let layer = layers(widths.len(), edges);
    let depth = layer.iter().max().map_or(0, |deepest| deepest + 1);
    let mut rows: Vec<Vec<Place>> = vec![Vec::new(); depth];
    for (i, layer) in layer.iter().enumerate() {
        rows[*layer].push(Place::Box(i));
    }
    let mut links: BTreeSet<(Place, Place)> = BTreeSet::new();
    for (from, to) in edges {
        let mut at = Place::Box(*from);
        for (passing, row) in rows
            .iter_mut()
            .enumerate()
            .take(layer[*to])
            .skip(layer[*from] + 1)
        {
            let lane = Place::Lane(*from, passing);
            if !row.contains(&lane) {
                row.push(lane);
            }
            links.insert((at, lane));
            at = lane;
        }
        links.insert((at, Place::Box(*to)));
    }
    let links: Vec<_> = links.into_iter().collect();
    order(&mut rows, &links);
    let x = positions(&rows, &links, widths);

    let top = |row: usize| row as f64 * (height + DROP);
    let row_of = |place: &Place| match place {
        Place::Box(i) => layer[*i],
        Place::Lane(_, row) => *row,
    };
    let mut pieces = Vec::new();
    for (from, to) in &links {
        let (upper, lower) = (row_of(from), row_of(to));
        pieces.push(Piece {
            from: (x[from], top(upper) + height),
            to: (x[to], top(lower)),
            last: matches!(to, Place::Box(_)),
        });
        if matches!(to, Place::Lane(..)) {
            // Straight past the boxes of its layer.
            pieces.push(Piece {
                from: (x[to], top(lower)),
                to: (x[to], top(lower) + height),
                last: false,
            });
        }
    }
    let right = widths
        .iter()
        .enumerate()
        .map(|(i, w)| x[&Place::Box(i)] + w / 2.0);
    let lanes = x
        .iter()
        .filter(|(place, _)| matches!(place, Place::Lane(..)));
    Layout {
        width: right
            .chain(lanes.map(|(_, x)| x + LANE))
            .fold(0.0, f64::max),
        height: (depth as f64 * (height + DROP) - DROP).max(0.0),
        boxes: (0..widths.len())
            .map(|i| (x[&Place::Box(i)] - widths[i] / 2.0, top(layer[i])))
            .collect(),
        pieces,
    }
}

/// The layer of each box: below all that it needs; what needs nothing stands
/// right above the first that needs it.
fn layers(count: usize, edges: &BTreeSet<(usize, usize)>) -> Vec<usize> {
    let mut layer = vec![0; count];
    // Edges are ordered by their start, and starts are smaller than ends.
    for (from, to) in edges {
        layer[*to] = layer[*to].max(layer[*from] + 1);
    }
    let mut nearest: BTreeMap<usize, usize> = BTreeMap::new();
    for (from, to) in edges {
        let least = nearest.entry(*from).or_insert(layer[*to]);
        *least = (*least).min(layer[*to]);
    }
    let needy: BTreeSet<usize> = edges.iter().map(|(_, to)| *to).collect();
    for (from, least) in nearest {
        if !needy.contains(&from) {
            layer[from] = least - 1;
        }
    }
    layer
}

/// Orders every layer so that few edges cross.
fn order(rows: &mut Vec<Vec<Place>>, links: &[(Place, Place)]) {
    let mut best = rows.clone();
    let mut fewest = crossings(rows, links);
    for sweep in 0..SWEEPS {
        let down = sweep % 2 == 0;
        let count = rows.len();
        for step in 1..count {
            let (row, beside) = if down {
                (step, step - 1)
            } else {
                (count - 1 - step, count - step)
            };
            let rank: BTreeMap<Place, usize> = rows[beside].iter().copied().zip(0..).collect();
            let mut weight: BTreeMap<Place, (f64, f64)> = BTreeMap::new();
            for (from, to) in links {
                let (here, there) = if down { (to, from) } else { (from, to) };
                if let Some(rank) = rank.get(there) {
                    let sum = weight.entry(*here).or_default();
                    *sum = (sum.0 + *rank as f64, sum.1 + 1.0);
                }
            }
            let keys: BTreeMap<Place, f64> = rows[row]
                .iter()
                .enumerate()
                .map(|(i, place)| {
                    // Without neighbours it stays where it is.
                    (
                        *place,
                        weight.get(place).map_or(i as f64, |(sum, n)| sum / n),
                    )
                })
                .collect();
            rows[row].sort_by(|a, b| keys[a].total_cmp(&keys[b]));
        }
        let now = crossings(rows, links);
        if now < fewest {
            fewest = now;
            best.clone_from(rows);
        }
    }
    *rows = best;
}

/// Pairs of links that cross.
fn crossings(rows: &[Vec<Place>], links: &[(Place, Place)]) -> usize {
    let at: BTreeMap<Place, (usize, usize)> = rows
        .iter()
        .enumerate()
        .flat_map(|(row, places)| {
            places
                .iter()
                .enumerate()
                .map(move |(i, place)| (*place, (row, i)))
        })
        .collect();
    let mut by_row: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
    for (from, to) in links {
        let (row, from) = at[from];
        by_row.entry(row).or_default().push((from, at[to].1));
    }
    by_row
        .values()
        .map(|list| {
            list.iter()
                .enumerate()
                .map(|(i, a)| {
                    let crosses =
                        |b: &&(usize, usize)| (a.0 < b.0 && a.1 > b.1) || (a.0 > b.0 && a.1 < b.1);
                    list[i + 1..].iter().filter(crosses).count()
                })
                .sum::<usize>()
        })
        .sum()
}

/// The middle of every place: as near to its neighbours' mean as its layer's order allows.
fn positions(
    rows: &[Vec<Place>],
    links: &[(Place, Place)],
    widths: &[f64],
) -> BTreeMap<Place, f64> {
    let width = |place: &Place| match place {
        Place::Box(i) => widths[*i],
        Place::Lane(..) => LANE,
    };
    // The longer an edge, the straighter it should be.
    let weight = |a: &Place, b: &Place| match (a, b) {
        (Place::Lane(..), Place::Lane(..)) => 12.0,
        (Place::Box(_), Place::Box(_)) => 1.0,
        _ => 2.0,
    };
    let mut near: BTreeMap<Place, Vec<(Place, f64)>> = BTreeMap::new();
    for (from, to) in links {
        let weight = weight(from, to);
        near.entry(*from).or_default().push((*to, weight));
        near.entry(*to).or_default().push((*from, weight));
    }
    // Offsets of a packed layer; positions minus offsets must not decrease.
    let offsets: Vec<Vec<f64>> = rows
        .iter()
        .map(|row| {
            let mut right = 0.0;
            row.iter()
                .map(|place| {
                    let middle = right + width(place) / 2.0;
                    right += width(place) + GAP;
                    middle
                })
                .collect()
        })
        .collect();
    let mut x: BTreeMap<Place, f64> = BTreeMap::new();
    for (row, offsets) in rows.iter().zip(&offsets) {
        x.extend(row.iter().copied().zip(offsets.iter().copied()));
    }
    for sweep in 0..SWEEPS * 2 {
        for step in 0..rows.len() {
            let row = if sweep % 2 == 0 {
                step
            } else {
                rows.len() - 1 - step
            };
            let wanted: Vec<(f64, f64)> = rows[row]
                .iter()
                .zip(&offsets[row])
                .map(|(place, offset)| {
                    let near = near.get(place).map_or(&[][..], Vec::as_slice);
                    let total: f64 = near.iter().map(|(_, weight)| weight).sum();
                    let sum: f64 = near.iter().map(|(place, weight)| x[place] * weight).sum();
                    // A place without neighbours gives way to all others.
                    if near.is_empty() {
                        (x[place] - offset, 0.01)
                    } else {
                        (sum / total - offset, total)
                    }
                })
                .collect();
            for ((place, offset), slack) in
                rows[row].iter().zip(&offsets[row]).zip(isotonic(&wanted))
            {
                x.insert(*place, slack + offset);
            }
        }
    }
    let left = x
        .iter()
        .map(|(place, x)| x - width(place) / 2.0)
        .fold(f64::INFINITY, f64::min);
    for x in x.values_mut() {
        *x -= left;
    }
    x
}

/// The non-decreasing sequence nearest to `wanted` (values and weights) in
/// least squares, by pooling adjacent violators.
fn isotonic(wanted: &[(f64, f64)]) -> Vec<f64> {
    let mut pools: Vec<(f64, f64, usize)> = Vec::new();
    for (value, weight) in wanted {
        pools.push((*value, *weight, 1));
        while let [.., (a, v, n), (b, w, m)] = pools[..]
            && a > b
        {
            pools.truncate(pools.len() - 2);
            pools.push(((a * v + b * w) / (v + w), v + w, n + m));
        }
    }
    pools
        .iter()
        .flat_map(|(value, _, count)| std::iter::repeat_n(*value, *count))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_of_a_layer_do_not_overlap_and_stand_below_what_they_need() {
        // A made-up graph of 60 boxes with edges over several layers.
        let edges: BTreeSet<_> = (1..60).flat_map(|i| [(i * 7 % i, i), (i / 3, i)]).collect();
        let widths: Vec<f64> = (0..60).map(|i| 80.0 + f64::from(i * 13 % 50)).collect();
        let layout = layout(&widths, 40.0, &edges);
        for (a, (ax, ay)) in layout.boxes.iter().enumerate() {
            assert!(*ax >= -1e-6 && ax + widths[a] <= layout.width + 1e-6);
            for (b, (bx, by)) in layout.boxes.iter().enumerate().skip(a + 1) {
                let apart = ax + widths[a] + GAP <= bx + 1e-6 || bx + widths[b] + GAP <= ax + 1e-6;
                assert!((ay - by).abs() > 1.0 || apart, "{a} and {b} overlap");
            }
        }
        for (from, to) in &edges {
            assert!(layout.boxes[*from].1 < layout.boxes[*to].1);
        }
    }

    #[test]
    fn two_chains_do_not_cross() {
        let edges = BTreeSet::from([(0, 3), (1, 2), (2, 5), (3, 4)]);
        let layout = layout(&[50.0; 6], 40.0, &edges);
        let side = |i: usize, j: usize| layout.boxes[i].0 < layout.boxes[j].0;
        assert_eq!(side(0, 1), side(3, 2));
        assert_eq!(side(3, 2), side(4, 5));
    }

    #[test]
    fn least_squares_keeps_the_order() {
        let wanted = [(1.0, 1.0), (3.0, 3.0), (2.0, 1.0), (5.0, 1.0)];
        assert_eq!(isotonic(&wanted), [1.0, 2.75, 2.75, 5.0]);
    }
}
