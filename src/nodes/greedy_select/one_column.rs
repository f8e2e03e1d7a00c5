//! How many images are right when one class's text is replaced: exact counts
//! for many replacements from one column of similarities each.
//!
//! All other classes keep their plain prompts, of which only the two nearest
//! matter; an image is then right with one comparison per candidate.

use rayon::prelude::*;

use crate::nodes::{rivals::Nearest, similarity::product};

/// Images that one task of a thread takes.
const BLOCK: usize = 96;

/// One image as the plain prompts see it.
struct Scored {
    label: usize,
    nearest: Nearest,
}

/// Images with their similarities to the plain prompts of all classes.
pub(super) struct OneColumn<'a> {
    images: Vec<&'a [f32]>,
    scored: Vec<Scored>,
}

impl<'a> OneColumn<'a> {
    /// Compares every image with every class's plain prompt. Vectors have the
    /// same length and finite products; `labels` has an entry an image.
    pub(super) fn new(images: Vec<&'a [f32]>, labels: &[usize], plain: &[&[f32]]) -> Self {
        let scored = images
            .par_chunks(BLOCK)
            .zip(labels.par_chunks(BLOCK))
            .flat_map_iter(|(images, labels)| {
                let mut out = vec![0.0; images.len() * plain.len()];
                product(images, plain, &mut out);
                let rows: Vec<Scored> = out
                    .chunks(plain.len())
                    .zip(labels)
                    .map(|(row, label)| Scored {
                        label: *label,
                        nearest: Nearest::of(row),
                    })
                    .collect();
                rows
            })
            .collect();
        Self { images, scored }
    }

    /// Images that the plain prompts get right.
    pub(super) fn baseline(&self) -> u64 {
        let right = |image: &&Scored| image.nearest.class() == image.label;
        self.scored.iter().filter(right).count() as u64
    }

    /// For each candidate of `class`: how many images, of all classes, are
    /// right when it takes the place of the class's plain prompt.
    pub(super) fn counts(&self, class: usize, candidates: &[&[f32]]) -> Vec<u64> {
        let m = candidates.len();
        if m == 0 {
            return Vec::new();
        }
        self.images
            .par_chunks(BLOCK)
            .zip(self.scored.par_chunks(BLOCK))
            .fold(
                || (vec![0_u64; m], vec![0.0; BLOCK * m]),
                |(mut counts, mut out), (images, scored)| {
                    let (images, scored): (Vec<&[f32]>, Vec<&Scored>) = images
                        .iter()
                        .zip(scored)
                        .filter(|(_, image)| image.nearest.undecided(class, image.label))
                        .unzip();
                    product(&images, candidates, &mut out);
                    for (image, row) in scored.into_iter().zip(out.chunks(m)) {
                        image.nearest.count(class, image.label, row, &mut counts);
                    }
                    (counts, out)
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
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::nodes::similarity::{argmax, dot};

    /// The study's loop: classifies every image again for every candidate.
    fn brute_force(
        images: &[&[f32]],
        labels: &[usize],
        plain: &[&[f32]],
        class: usize,
        candidate: &[f32],
    ) -> u64 {
        let mut right = 0;
        for (image, label) in images.iter().zip(labels) {
            let logits: Vec<f32> = (0..plain.len())
                .map(|j| dot(image, if j == class { candidate } else { plain[j] }))
                .collect();
            right += u64::from(argmax(&logits) == *label);
        }
        right
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

    #[derive(Debug)]
    struct Case {
        images: Vec<Vec<f32>>,
        labels: Vec<usize>,
        plain: Vec<Vec<f32>>,
        candidates: Vec<Vec<f32>>,
    }

    fn case() -> impl Strategy<Value = Case> {
        (1_usize..20, prop_oneof![Just(1), Just(2), Just(100_000)]).prop_flat_map(|(dim, steps)| {
            (
                vectors(1..250, dim, steps),
                prop::collection::vec(any::<prop::sample::Index>(), 250),
                vectors(1..8, dim, steps),
                vectors(0..6, dim, steps),
                prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..4),
            )
                .prop_map(|(images, labels, mut plain, mut candidates, copies)| {
                    // Prompts that occur twice, and candidates equal to plain prompts.
                    for (index, twice) in copies {
                        let row = plain[index.index(plain.len())].clone();
                        if twice {
                            plain.push(row);
                        } else {
                            candidates.push(row);
                        }
                    }
                    let labels = images
                        .iter()
                        .zip(labels)
                        .map(|(_, index)| index.index(plain.len()))
                        .collect();
                    Case {
                        images,
                        labels,
                        plain,
                        candidates,
                    }
                })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn counts_equal_those_of_classifying_everything_again(case in case()) {
            let images: Vec<&[f32]> = case.images.iter().map(Vec::as_slice).collect();
            let plain: Vec<&[f32]> = case.plain.iter().map(Vec::as_slice).collect();
            let candidates: Vec<&[f32]> = case.candidates.iter().map(Vec::as_slice).collect();
            let fast = OneColumn::new(images.clone(), &case.labels, &plain);
            prop_assert_eq!(
                fast.baseline(),
                brute_force(&images, &case.labels, &plain, 0, plain[0])
            );
            for class in 0..plain.len() {
                let slow: Vec<u64> = candidates
                    .iter()
                    .map(|candidate| brute_force(&images, &case.labels, &plain, class, candidate))
                    .collect();
                prop_assert_eq!(fast.counts(class, &candidates), slow);
            }
        }
    }

    #[test]
    fn ties_go_to_the_class_of_the_lowest_index() {
        // The image is equally near to the plain prompts of all three classes.
        let (image, same, less) = ([1.0_f32], [1.0_f32], [0.5_f32]);
        let plain: Vec<&[f32]> = vec![&same, &same, &same];
        let right = |label, class, candidate: &[f32]| {
            OneColumn::new(vec![&image], &[label], &plain).counts(class, &[candidate])
        };
        assert_eq!(OneColumn::new(vec![&image], &[0], &plain).baseline(), 1);
        assert_eq!(OneColumn::new(vec![&image], &[1], &plain).baseline(), 0);
        assert_eq!(right(0, 0, &same), [1]);
        assert_eq!(right(0, 0, &less), [0]);
        assert_eq!(right(1, 0, &less), [1]);
        assert_eq!(right(1, 1, &same), [0]);
        assert_eq!(right(0, 2, &[2.0]), [0]);
        assert_eq!(right(2, 2, &[2.0]), [1]);
    }

    #[test]
    fn a_single_class_is_always_right() {
        let image: &[f32] = &[1.0];
        let fast = OneColumn::new(vec![image], &[0], &[&[-1.0]]);
        assert_eq!((fast.baseline(), fast.counts(0, &[&[-0.5]])), (1, vec![1]));
    }
}
