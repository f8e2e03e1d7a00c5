//! Coordinate descent over similarities that are computed once: one class after
//! the other takes the option with which most images of all classes are right,
//! while every other class keeps the option that it has now.
//!
//! With the two nearest classes of each image known, all K options of a class are
//! scored in N·K comparisons. Counts are whole numbers and only a strictly better
//! option is taken, so every path ends, and no thread changes a result.

use std::ops::Range;

use anyhow::Result;
use rayon::prelude::*;

use crate::nodes::{
    rivals::{Nearest, Rival},
    similarity::product,
};

/// Images that one task of a thread takes.
const BLOCK: usize = 96;

/// Every image against every option of every class.
pub(super) struct Table<'a> {
    images: Vec<&'a [f32]>,
    labels: &'a [usize],
    options: Vec<Vec<&'a [f32]>>,
    /// For each class the similarities of its options, an image a row; `None` where
    /// they would take too much memory and are computed whenever they are needed.
    kept: Option<Vec<Vec<f32>>>,
}

/// One option for each class, with everything that follows for the images.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    choice: Vec<usize>,
    /// Similarities to the chosen options, an image a row.
    current: Vec<f32>,
    nearest: Vec<Nearest>,
    right: u64,
}

impl State {
    /// The option of each class.
    pub(super) fn choice(&self) -> &[usize] {
        &self.choice
    }

    /// Images that are right.
    pub(super) const fn right(&self) -> u64 {
        self.right
    }
}

/// How a descent ended.
pub(super) struct Descent {
    /// The last state, at least as good as the first.
    pub(super) state: State,
    /// Whether every class was seen to have no better option.
    pub(super) settled: bool,
}

impl<'a> Table<'a> {
    /// Compares every image with every option, as long as that takes at most `room`
    /// bytes. Vectors have the same length and finite products; `labels` has an
    /// entry an image, and every class at least one option. `visit` is told each
    /// class before it is compared.
    ///
    /// # Errors
    /// What `visit` says.
    pub(super) fn new(
        images: Vec<&'a [f32]>,
        labels: &'a [usize],
        options: Vec<Vec<&'a [f32]>>,
        room: usize,
        visit: &dyn Fn(usize) -> Result<()>,
    ) -> Result<Self> {
        let all: usize = options.iter().map(Vec::len).sum();
        let bytes = (images.len().saturating_mul(all)).saturating_mul(size_of::<f32>());
        let mut table = Self {
            images,
            labels,
            options,
            kept: None,
        };
        if bytes <= room {
            let mut kept = Vec::with_capacity(table.options.len());
            for (class, options) in table.options.iter().enumerate() {
                visit(class)?;
                kept.push(table.compare(options));
            }
            table.kept = Some(kept);
        }
        Ok(table)
    }

    /// The state in which class `c` has option `choice[c]`.
    pub(super) fn state(&self, choice: Vec<usize>) -> State {
        let classes = choice.len();
        let mut current = vec![0.0; self.images.len() * classes];
        for (class, option) in choice.iter().enumerate() {
            let column = self.column(class, *option);
            for (row, value) in current.chunks_exact_mut(classes).zip(column) {
                row[class] = value;
            }
        }
        let nearest: Vec<Nearest> = current.par_chunks_exact(classes).map(Nearest::of).collect();
        let right = nearest.iter().zip(self.labels);
        let right = right.filter(|(nearest, label)| nearest.class() == **label);
        State {
            right: right.count() as u64,
            choice,
            current,
            nearest,
        }
    }

    /// For each option of `class`: how many images, of all classes, are right when
    /// the class has it and every other class what `state` says.
    pub(super) fn counts(&self, state: &State, class: usize) -> Vec<u64> {
        let m = self.options[class].len();
        let blocks: Vec<Range<usize>> = (0..self.images.len())
            .step_by(BLOCK)
            .map(|start| start..(start + BLOCK).min(self.images.len()))
            .collect();
        blocks
            .into_par_iter()
            .fold(
                || (vec![0_u64; m], Vec::new()),
                |(mut counts, mut fresh), block| {
                    self.count_block(state, class, block, &mut counts, &mut fresh);
                    (counts, fresh)
                },
            )
            .map(|(counts, _)| counts)
            .reduce(
                || vec![0; m],
                |mut a, b| {
                    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
                    a
                },
            )
    }

    /// Adds one block of images to `counts`; `fresh` is memory to use again.
    fn count_block(
        &self,
        state: &State,
        class: usize,
        block: Range<usize>,
        counts: &mut [u64],
        fresh: &mut Vec<f32>,
    ) {
        let m = counts.len();
        let undecided = block.filter(|i| state.nearest[*i].undecided(class, self.labels[*i]));
        let mut count = |i: usize, row: &[f32]| {
            state.nearest[i].count(class, self.labels[i], row, counts);
        };
        if let Some(kept) = &self.kept {
            for i in undecided {
                count(i, &kept[class][i * m..][..m]);
            }
        } else {
            let undecided: Vec<usize> = undecided.collect();
            let images: Vec<&[f32]> = undecided.iter().map(|i| self.images[*i]).collect();
            fresh.resize(BLOCK * m, 0.0);
            product(&images, &self.options[class], fresh);
            for (i, row) in undecided.into_iter().zip(fresh.chunks_exact(m)) {
                count(i, row);
            }
        }
    }

    /// Goes over all classes at most `sweeps` times, in the order that `order` gives
    /// for each time; of equal options the current one stays, else the first is
    /// taken. `visit` is told sweep and class before a class is scored.
    ///
    /// # Errors
    /// What `visit` says.
    pub(super) fn descend(
        &self,
        start: Vec<usize>,
        sweeps: usize,
        order: &dyn Fn(usize) -> Vec<usize>,
        visit: &dyn Fn(usize, usize) -> Result<()>,
    ) -> Result<Descent> {
        let mut state = self.state(start);
        let mut moves = 0_u64;
        // How many moves there had been when a class had its best option.
        let mut best_at: Vec<Option<u64>> = vec![None; state.choice.len()];
        for sweep in 0..sweeps {
            for class in order(sweep) {
                if best_at[class] == Some(moves) {
                    continue;
                }
                visit(sweep, class)?;
                let counts = self.counts(&state, class);
                let (mut best, mut most) = (None, state.right);
                for (option, count) in counts.iter().enumerate() {
                    if *count > most {
                        (best, most) = (Some(option), *count);
                    }
                }
                if let Some(option) = best {
                    self.take(&mut state, class, option, most);
                    moves += 1;
                }
                best_at[class] = Some(moves);
            }
            if best_at.iter().all(|at| *at == Some(moves)) {
                return Ok(Descent {
                    state,
                    settled: true,
                });
            }
        }
        Ok(Descent {
            state,
            settled: false,
        })
    }

    /// Gives `class` another option, with which `right` images are right.
    fn take(&self, state: &mut State, class: usize, option: usize, right: u64) {
        let column = self.column(class, option);
        let classes = state.choice.len();
        state
            .current
            .par_chunks_exact_mut(classes)
            .zip(&mut state.nearest)
            .zip(column)
            .for_each(|((row, nearest), similarity)| {
                row[class] = similarity;
                if nearest.holds(class) {
                    // It may fall behind a third class, which only the row knows.
                    *nearest = Nearest::of(row);
                } else {
                    nearest.offer(Rival { class, similarity });
                }
            });
        state.choice[class] = option;
        state.right = right;
    }

    /// Similarities of all images to one option.
    fn column(&self, class: usize, option: usize) -> Vec<f32> {
        let options = &self.options[class];
        match &self.kept {
            Some(kept) => kept[class]
                .par_chunks_exact(options.len())
                .map(|row| row[option])
                .collect(),
            None => self.compare(&options[option..=option]),
        }
    }

    /// Similarities of all images to some options, an image a row.
    fn compare(&self, options: &[&[f32]]) -> Vec<f32> {
        let mut out = vec![0.0; self.images.len() * options.len()];
        out.par_chunks_mut(BLOCK * options.len())
            .zip(self.images.par_chunks(BLOCK))
            .for_each(|(out, images)| product(images, options, out));
        out
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use anyhow::bail;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::nodes::{
        draw::Draw,
        similarity::{argmax, dot},
    };

    /// Images, and the options of each class, with owned vectors.
    #[derive(Debug)]
    struct Case {
        images: Vec<Vec<f32>>,
        labels: Vec<usize>,
        options: Vec<Vec<Vec<f32>>>,
    }

    impl Case {
        fn table(&self, room: usize) -> Table<'_> {
            let options = self.options.iter();
            Table::new(
                self.images.iter().map(Vec::as_slice).collect(),
                &self.labels,
                options
                    .map(|list| list.iter().map(Vec::as_slice).collect())
                    .collect(),
                room,
                &|_| Ok(()),
            )
            .unwrap()
        }

        /// Classifies every image with the chosen options.
        fn right(&self, choice: &[usize]) -> u64 {
            let right = |(image, label): &(&Vec<f32>, &usize)| {
                let chosen = self.options.iter().zip(choice);
                let values: Vec<f32> = chosen.map(|(list, i)| dot(image, &list[*i])).collect();
                argmax(&values) == **label
            };
            self.images.iter().zip(&self.labels).filter(right).count() as u64
        }

        /// The choice with option `option` for `class`.
        fn right_with(&self, choice: &[usize], class: usize, option: usize) -> u64 {
            let mut choice = choice.to_vec();
            choice[class] = option;
            self.right(&choice)
        }

        /// The most images that any choice makes right.
        fn optimum(&self) -> u64 {
            let all: usize = self.options.iter().map(Vec::len).product();
            let choice = |mut number: usize| -> Vec<usize> {
                let digit = |list: &Vec<Vec<f32>>| {
                    let digit = number % list.len();
                    number /= list.len();
                    digit
                };
                self.options.iter().map(digit).collect()
            };
            (0..all)
                .map(|i| self.right(&choice(i)))
                .max()
                .unwrap_or_default()
        }

        fn descend(&self, room: usize, start: Vec<usize>, seed: u64) -> Descent {
            let order = |sweep: usize| order(self.options.len(), seed, sweep);
            self.table(room)
                .descend(start, 1000, &order, &|_, _| Ok(()))
                .unwrap()
        }
    }

    fn order(classes: usize, seed: u64, sweep: usize) -> Vec<usize> {
        Draw::new("order", &json!([seed, sweep])).order(classes)
    }

    /// Vectors whose numbers are few, so that similarities are often equal.
    fn vectors(
        count: std::ops::Range<usize>,
        dim: usize,
        steps: i32,
    ) -> impl Strategy<Value = Vec<Vec<f32>>> {
        let number = (-steps..=steps).prop_map(move |x| x as f32 / steps as f32);
        prop::collection::vec(prop::collection::vec(number, dim), count)
    }

    /// A case with a start.
    fn case() -> impl Strategy<Value = (Case, Vec<usize>)> {
        (1_usize..12, prop_oneof![Just(1), Just(2), Just(100_000)]).prop_flat_map(|(dim, steps)| {
            (
                vectors(1..250, dim, steps),
                prop::collection::vec(vectors(1..6, dim, steps), 1..7),
                prop::collection::vec(any::<prop::sample::Index>(), 250),
                prop::collection::vec(any::<prop::sample::Index>(), 7),
            )
                .prop_map(|(images, options, labels, start)| {
                    let labels = labels[..images.len()].iter();
                    let labels = labels.map(|i| i.index(options.len())).collect();
                    let start = options.iter().zip(start);
                    let start = start.map(|(list, i)| i.index(list.len())).collect();
                    let case = Case {
                        images,
                        labels,
                        options,
                    };
                    (case, start)
                })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn counts_equal_those_of_classifying_everything_again(
            (case, start) in case(), keep in any::<bool>(),
        ) {
            let table = case.table(if keep { usize::MAX } else { 0 });
            prop_assert_eq!(table.kept.is_some(), keep);
            let state = table.state(start.clone());
            prop_assert_eq!(state.right(), case.right(&start));
            for (class, options) in case.options.iter().enumerate() {
                let slow: Vec<u64> = (0..options.len())
                    .map(|option| case.right_with(&start, class, option))
                    .collect();
                prop_assert_eq!(table.counts(&state, class), slow);
            }
        }

        #[test]
        fn a_move_leaves_the_state_that_a_new_start_there_has(
            (case, start) in case(), class in any::<prop::sample::Index>(),
            option in any::<prop::sample::Index>(), keep in any::<bool>(),
        ) {
            let table = case.table(if keep { usize::MAX } else { 0 });
            let class = class.index(case.options.len());
            let option = option.index(case.options[class].len());
            let mut moved = table.state(start.clone());
            let right = table.counts(&moved, class)[option];
            table.take(&mut moved, class, option, right);
            let mut there = start;
            there[class] = option;
            prop_assert_eq!(moved, table.state(there));
        }

        #[test]
        fn a_descent_ends_where_no_class_alone_can_be_better(
            (case, start) in case(), seed in any::<u64>(),
        ) {
            let found = case.descend(usize::MAX, start.clone(), seed);
            let choice = found.state.choice();
            prop_assert!(found.settled);
            prop_assert_eq!(found.state.right(), case.right(choice));
            prop_assert!(found.state.right() >= case.right(&start));
            for (class, options) in case.options.iter().enumerate() {
                for option in 0..options.len() {
                    let other = case.right_with(choice, class, option);
                    prop_assert!(other <= found.state.right(), "class {class}, option {option}");
                }
            }
        }

        #[test]
        fn neither_memory_nor_threads_change_where_a_descent_ends(
            (case, start) in case(), seed in any::<u64>(), threads in 1_usize..5,
        ) {
            let kept = case.descend(usize::MAX, start.clone(), seed);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let fresh = pool.install(|| case.descend(0, start, seed));
            prop_assert_eq!(kept.state, fresh.state);
        }
    }

    /// Small cases as selection meets them: images and texts around the centre of
    /// their class, 60 images, 4 classes of 5 options.
    fn noisy(seed: u64) -> Case {
        const CLASSES: usize = 4;
        let mut draw = Draw::new("noisy", &json!(seed));
        let mut vector = |class: usize, noise: f32| -> Vec<f32> {
            (0..CLASSES)
                .map(|i| {
                    let uniform = draw.below(2001) as f32 / 1000.0 - 1.0;
                    noise * uniform + if i == class { 1.0 } else { 0.0 }
                })
                .collect()
        };
        let labels: Vec<usize> = (0..60).map(|i| i % CLASSES).collect();
        Case {
            images: labels.iter().map(|class| vector(*class, 1.5)).collect(),
            options: (0..CLASSES)
                .map(|class| (0..5).map(|_| vector(class, 0.7)).collect())
                .collect(),
            labels,
        }
    }

    #[test]
    fn a_descent_often_finds_the_optimum_and_random_starts_find_it_more_often() {
        let (mut first, mut with_restarts) = (0, 0);
        for seed in 0..100 {
            let case = noisy(seed);
            let optimum = case.optimum();
            let mut best = case.descend(usize::MAX, vec![0; 4], seed).state.right();
            assert!(best <= optimum);
            first += usize::from(best == optimum);
            let mut draw = Draw::new("starts", &json!(seed));
            for _ in 0..10 {
                let start = (0..4).map(|_| draw.below(5)).collect();
                best = best.max(case.descend(usize::MAX, start, seed).state.right());
            }
            assert!(best <= optimum);
            with_restarts += usize::from(best == optimum);
        }
        // Of 100, from the first options alone and with ten random starts more.
        assert_eq!((first, with_restarts), (48, 96));
    }

    #[test]
    fn two_choices_that_are_good_apart_are_not_taken_together() {
        // Option 1 of either class wins the image between them and loses nothing;
        // once one has it, the other gains nothing by its own.
        let (plain_a, plain_b) = (vec![1.0, 0.0], vec![0.0, 1.0]);
        let case = Case {
            images: vec![vec![1.0, 0.0], vec![0.0, 1.0], vec![0.5, 0.625]],
            labels: vec![0, 1, 0],
            options: vec![
                vec![plain_a, vec![0.75, 0.5], vec![1.0, 0.5]],
                vec![plain_b, vec![-1.0, 0.75]],
            ],
        };
        let table = case.table(usize::MAX);
        let plain = table.state(vec![0, 0]);
        assert_eq!(plain.right(), 2);
        assert_eq!(table.counts(&plain, 0), [2, 3, 3]);
        assert_eq!(table.counts(&plain, 1), [2, 3]);
        let forwards = |_| vec![0, 1];
        let found = table
            .descend(vec![0, 0], 9, &forwards, &|_, _| Ok(()))
            .unwrap();
        assert_eq!(found.state.choice(), [1, 0], "of equal options the first");
        let backwards = |_| vec![1, 0];
        let found = table
            .descend(vec![0, 0], 9, &backwards, &|_, _| Ok(()))
            .unwrap();
        assert_eq!(found.state.choice(), [0, 1]);
        let found = table
            .descend(vec![2, 0], 9, &forwards, &|_, _| Ok(()))
            .unwrap();
        assert_eq!(found.state.choice(), [2, 0], "the current one stays");
    }

    #[test]
    fn a_class_is_visited_again_only_after_another_one_moved() {
        let case = noisy(3);
        let visits = RefCell::new(Vec::new());
        let table = case.table(usize::MAX);
        let found = table
            .descend(vec![0; 4], 100, &|_| (0..4).collect(), &|sweep, class| {
                visits.borrow_mut().push((sweep, class));
                Ok(())
            })
            .unwrap();
        assert!(found.settled);
        // Class 2 was the last to move: classes 0 and 1 looked again, 3 had seen it.
        let seen = visits.take();
        assert_eq!(seen, [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]);
        let again = table
            .descend(
                found.state.choice.clone(),
                100,
                &|_| (0..4).collect(),
                &|sweep, class| {
                    visits.borrow_mut().push((sweep, class));
                    Ok(())
                },
            )
            .unwrap();
        assert_eq!(again.state, found.state);
        assert_eq!(visits.take(), [(0, 0), (0, 1), (0, 2), (0, 3)]);
    }

    #[test]
    fn a_descent_stops_when_told_and_when_its_sweeps_are_over() {
        let case = noisy(3);
        let table = case.table(usize::MAX);
        let forwards = |_| (0..4).collect();
        let found = table
            .descend(vec![0; 4], 1, &forwards, &|_, _| Ok(()))
            .unwrap();
        assert!(!found.settled, "class 0 has not looked again");
        let stop = |sweep, class| {
            if (sweep, class) == (0, 2) {
                bail!("stopped by the user");
            }
            Ok(())
        };
        let error = table
            .descend(vec![0; 4], 9, &forwards, &stop)
            .err()
            .unwrap();
        assert_eq!(error.to_string(), "stopped by the user");
        let error = Table::new(vec![&[1.0]], &[0], vec![vec![&[1.0]]], 4, &|_| {
            bail!("stopped by the user")
        });
        assert_eq!(error.err().unwrap().to_string(), "stopped by the user");
    }

    #[test]
    fn similarities_are_kept_up_to_the_last_byte_of_room() {
        let case = noisy(0);
        let bytes = 60 * 20 * 4;
        assert!(case.table(bytes).kept.is_some());
        assert!(case.table(bytes - 1).kept.is_none());
    }
}
