//! The two classes nearest to an image: enough to know whether the image is
//! right after the text of any one class is replaced.
//!
//! While one class tries texts, all other columns of similarities stay, so of
//! them only the largest value matters: the best or the second best of all.
//! Of equally near classes the one with the lowest index is ahead.

/// A class with its similarity to one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rival {
    /// Index of the class.
    pub(super) class: usize,
    /// Finite.
    pub(super) similarity: f32,
}

impl Rival {
    /// Below every class and every similarity.
    const NONE: Self = Self {
        class: usize::MAX,
        similarity: f32::NEG_INFINITY,
    };

    /// Whether an image counts for this class rather than for `other`.
    const fn beats(self, other: Self) -> bool {
        self.similarity > other.similarity
            || (self.similarity >= other.similarity && self.class < other.class)
    }
}

/// The nearest class of one image and the one after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Nearest {
    best: Rival,
    second: Rival,
}

impl Nearest {
    /// Of the similarities of all classes, in index order.
    pub(super) fn of(similarities: &[f32]) -> Self {
        let mut found = Self {
            best: Rival::NONE,
            second: Rival::NONE,
        };
        for (class, similarity) in similarities.iter().copied().enumerate() {
            found.offer(Rival { class, similarity });
        }
        found
    }

    /// Takes in a class that is neither the nearest nor the second.
    pub(super) const fn offer(&mut self, rival: Rival) {
        if rival.beats(self.best) {
            self.second = self.best;
            self.best = rival;
        } else if rival.beats(self.second) {
            self.second = rival;
        }
    }

    /// The class that the image counts for.
    pub(super) const fn class(&self) -> usize {
        self.best.class
    }

    /// Whether `class` is the nearest or the second.
    pub(super) const fn holds(&self, class: usize) -> bool {
        self.best.class == class || self.second.class == class
    }

    /// What the nearest class would be if `class` did not exist.
    const fn without(&self, class: usize) -> Rival {
        if self.best.class == class {
            self.second
        } else {
            self.best
        }
    }

    /// Whether the text of `class` decides if an image with this label is right:
    /// an image of another class whose nearest rival is wrong stays wrong.
    pub(super) const fn undecided(&self, class: usize, label: usize) -> bool {
        label == class || self.without(class).class == label
    }

    /// Adds 1 for each similarity of `class` with which an undecided image with
    /// this label is right.
    pub(super) fn count(
        &self,
        class: usize,
        label: usize,
        similarities: &[f32],
        counts: &mut [u64],
    ) {
        let rival = self.without(class);
        let wins_ties = class < rival.class;
        let own = label == class;
        for (count, value) in counts.iter_mut().zip(similarities) {
            let wins = *value > rival.similarity || (wins_ties && *value >= rival.similarity);
            *count += u64::from(wins == own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_classes_the_first_two_are_nearest() {
        let found = Nearest::of(&[0.5, 0.75, 0.25, 0.75, 0.75]);
        assert_eq!(found.class(), 1);
        assert_eq!(found.without(1).class, 3);
        assert_eq!(found.without(4).class, 1);
        assert!(found.holds(3) && !found.holds(4));
        assert!(found.undecided(1, 3) && found.undecided(0, 1) && !found.undecided(0, 3));
    }

    #[test]
    fn a_class_that_is_offered_late_takes_the_place_that_its_index_gives() {
        let all = [0.5, 0.75, 0.75, 0.5];
        for late in [0, 3] {
            let mut without = all;
            without[late] = -1.0;
            for similarity in [-1.0, 0.5, 0.75, 0.8] {
                let mut whole = without;
                whole[late] = similarity;
                let mut found = Nearest::of(&without);
                found.offer(Rival {
                    class: late,
                    similarity,
                });
                assert_eq!(found, Nearest::of(&whole), "{late} at {similarity}");
            }
        }
    }

    #[test]
    fn a_single_class_has_no_rival() {
        let found = Nearest::of(&[-1.0]);
        let mut counts = [0];
        found.count(0, 0, &[-0.5], &mut counts);
        assert_eq!((found.class(), counts), (0, [1]));
    }
}
