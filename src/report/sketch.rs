//! What a drawing of the graph shows: instances, or node names with all their
//! instances where there are too many.

use std::collections::{BTreeMap, BTreeSet};

use super::words;
use crate::pipeline::{Graph, Source};

/// Instances that are drawn one by one; above it, names are.
pub(super) const MOST: usize = 200;

/// An instance as far as a drawing needs it.
#[derive(Clone, Debug, Default)]
pub(super) struct Dot {
    /// Unique name.
    pub(super) id: String,
    /// Name without axes.
    pub(super) name: String,
    /// Its kind.
    pub(super) kind: String,
    /// Its round, if it is inside one.
    pub(super) round: Option<String>,
    /// Those it needs, by index.
    pub(super) needs: Vec<usize>,
}

/// Every instance of `graph`.
pub(super) fn dots(graph: &Graph) -> Vec<Dot> {
    graph
        .ids()
        .map(|id| {
            let node = graph.node(id);
            Dot {
                id: node.id.clone(),
                name: node.name.clone(),
                kind: node.kind.name.to_owned(),
                round: node.at.get("round").map(ToString::to_string),
                needs: graph.dependencies[id.index()]
                    .iter()
                    .map(|n| n.index())
                    .collect(),
            }
        })
        .collect()
}

/// A round's name and number; no number for all rounds together.
pub(super) type Round = (String, Option<String>);

/// A box: one instance, or all instances of a name.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// What it is called.
    pub(super) title: String,
    /// Kind of its nodes.
    pub(super) kind: String,
    /// The round it is inside.
    pub(super) round: Option<Round>,
    /// The instances behind it, by index.
    pub(super) nodes: Vec<usize>,
}

/// Boxes and the edges between them.
#[derive(Clone, Debug, Default)]
pub(super) struct Sketch {
    pub(super) blocks: Vec<Block>,
    /// From what is needed to what needs it; never from a block to itself.
    pub(super) edges: BTreeSet<(usize, usize)>,
    /// Edges from one round to the next, which lead back when rounds are together.
    pub(super) back: BTreeSet<(usize, usize)>,
}

impl Sketch {
    /// One block an instance, or one a name above [`MOST`] instances.
    pub(super) fn new(dots: &[Dot]) -> Self {
        if dots.len() > MOST {
            Self::by(dots, true)
        } else {
            Self::by(dots, false)
        }
    }

    /// Blocks by name (`grouped`) or by instance, in order of their first instance.
    pub(super) fn by(dots: &[Dot], grouped: bool) -> Self {
        let mut sketch = Self::default();
        let mut by_key: BTreeMap<&str, usize> = BTreeMap::new();
        let mut block_of = Vec::with_capacity(dots.len());
        for (i, dot) in dots.iter().enumerate() {
            let key = if grouped { &dot.name } else { &dot.id };
            let block = *by_key.entry(key).or_insert_with(|| {
                let round = dot.round.as_ref().and_then(|round| {
                    let (name, _) = dot.name.rsplit_once('.')?;
                    Some((name.to_owned(), (!grouped).then(|| round.clone())))
                });
                sketch.blocks.push(Block {
                    title: key.clone(),
                    kind: dot.kind.clone(),
                    round,
                    nodes: Vec::new(),
                });
                sketch.blocks.len() - 1
            });
            sketch.blocks[block].nodes.push(i);
            block_of.push(block);
        }
        for (i, dot) in dots.iter().enumerate() {
            for need in &dot.needs {
                let (from, to) = (block_of[*need], block_of[i]);
                if from < to {
                    sketch.edges.insert((from, to));
                } else {
                    sketch.back.insert((from, to));
                }
            }
        }
        sketch
    }
}

impl Block {
    /// How many instances it stands for, when that is not one.
    pub(super) fn times(&self) -> Option<String> {
        let count = self.nodes.len();
        (count > 1).then(|| format!("×{}", words::count(count as u64)))
    }
}

/// A reference in words: `images`, `cifar10.test`, `clip`.
pub(super) fn source_words(graph: &Graph, source: &Source) -> String {
    match source {
        Source::Node(id) => graph.node(*id).id.clone(),
        Source::Empty(_) => "nothing yet".to_owned(),
        Source::Split(data, split) if split.is_empty() => data.clone(),
        Source::Split(data, split) => format!("{data}.{split}"),
        Source::DataClasses(data) => format!("classes of {data}"),
        Source::Classes(names) if names.len() > 4 => {
            format!("{}, … ({} classes)", names[..3].join(", "), names.len())
        }
        Source::Classes(names) => names.join(", "),
        Source::Model(model) => format!("model {model}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::sample::{matrix, refinement},
        *,
    };

    #[test]
    fn rounds_together_lead_back() {
        let sketch = Sketch::by(&dots(&refinement()), true);
        let titles: Vec<_> = sketch.blocks.iter().map(|b| b.title.as_str()).collect();
        let names = [
            "images",
            "plain",
            "refine.propose",
            "refine.texts",
            "refine.select",
            "prompts",
            "eval",
        ];
        assert_eq!(titles, names);
        assert_eq!(sketch.back, BTreeSet::from([(4, 2), (4, 3)]));
        assert_eq!(sketch.blocks[2].times().unwrap(), "×3");
        assert!(Sketch::by(&dots(&refinement()), false).back.is_empty());
    }

    #[test]
    fn too_many_instances_are_drawn_by_name() {
        assert_eq!(Sketch::new(&dots(&matrix(100, 1))).blocks.len(), 200);
        assert_eq!(Sketch::new(&dots(&matrix(67, 2))).blocks.len(), 1);
    }
}
