//! Which of a split's images a node reads: all, every other one, or a fold.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The most folds.
const MOST_FOLDS: usize = 1000;

/// A part of a split, written `all`, `even`, `odd`, `fold 2/5` or `except fold 2/5`.
///
/// `even` and `odd` go by an image's place in its split, counted from 0. Folds are
/// stratified: the images of each class are dealt out in turn, so that image r of
/// a class is in fold `r mod k + 1` of k.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// Every image.
    #[default]
    All,
    /// Images 0, 2, 4, …
    Even,
    /// Images 1, 3, 5, …
    Odd,
    /// One fold, counted from 1.
    Fold {
        /// Which one.
        fold: usize,
        /// Of how many.
        of: usize,
    },
    /// All folds but one.
    Except {
        /// The one left out.
        fold: usize,
        /// Of how many.
        of: usize,
    },
}

impl Part {
    /// Whether this is everything.
    pub fn is_all(&self) -> bool {
        *self == Self::All
    }

    /// The places, ascending, of its images among those with these labels.
    pub fn places(self, labels: &[usize]) -> Vec<usize> {
        let mut seen: Vec<usize> = Vec::new();
        let mut places = Vec::new();
        for (place, label) in labels.iter().enumerate() {
            if seen.len() <= *label {
                seen.resize(label + 1, 0);
            }
            let rank = seen[*label];
            seen[*label] += 1;
            let taken = match self {
                Self::All => true,
                Self::Even => place % 2 == 0,
                Self::Odd => place % 2 == 1,
                Self::Fold { fold, of } => rank % of + 1 == fold,
                Self::Except { fold, of } => rank % of + 1 != fold,
            };
            if taken {
                places.push(place);
            }
        }
        places
    }

    /// Whether no image of the same split can be in both.
    pub fn apart(self, other: Self) -> bool {
        match (self, other) {
            (Self::Even, Self::Odd) | (Self::Odd, Self::Even) => true,
            (Self::Fold { fold: a, of }, Self::Fold { fold: b, of: n }) => of == n && a != b,
            (Self::Fold { fold: a, of }, Self::Except { fold: b, of: n })
            | (Self::Except { fold: a, of }, Self::Fold { fold: b, of: n }) => of == n && a == b,
            _ => false,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Even => f.write_str("even"),
            Self::Odd => f.write_str("odd"),
            Self::Fold { fold, of } => write!(f, "fold {fold}/{of}"),
            Self::Except { fold, of } => write!(f, "except fold {fold}/{of}"),
        }
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || {
            format!(
                "`{text}` is no part of a split; there are \"all\", \"even\", \"odd\", \"fold 1/5\" and \"except fold 1/5\""
            )
        };
        let folds = |rest: &str| -> Result<(usize, usize), String> {
            let (fold, of) = rest.split_once('/').ok_or_else(unknown)?;
            let number = |text: &str| text.trim().parse::<usize>().map_err(|_| unknown());
            let (fold, of) = (number(fold)?, number(of)?);
            if !(2..=MOST_FOLDS).contains(&of) {
                return Err(format!("there can be 2 to {MOST_FOLDS} folds, not {of}"));
            }
            if fold == 0 || fold > of {
                return Err(format!(
                    "there is no fold {fold} of {of}: they are counted from 1"
                ));
            }
            Ok((fold, of))
        };
        match text.trim() {
            "all" => Ok(Self::All),
            "even" => Ok(Self::Even),
            "odd" => Ok(Self::Odd),
            words => {
                if let Some(rest) = words.strip_prefix("except fold ") {
                    folds(rest).map(|(fold, of)| Self::Except { fold, of })
                } else if let Some(rest) = words.strip_prefix("fold ") {
                    folds(rest).map(|(fold, of)| Self::Fold { fold, of })
                } else {
                    Err(unknown())
                }
            }
        }
    }
}

impl Serialize for Part {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Part {
    fn schema_name() -> Cow<'static, str> {
        "Part".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(all|even|odd|(except )?fold [0-9]+/[0-9]+)$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str) -> Part {
        text.parse().unwrap()
    }

    #[test]
    fn every_form_is_read_and_written_alike() {
        for text in ["all", "even", "odd", "fold 1/5", "except fold 5/5"] {
            assert_eq!(part(text).to_string(), text);
        }
        let error = |text: &str| text.parse::<Part>().unwrap_err();
        assert!(error("half").starts_with("`half` is no part of a split; there are \"all\""));
        assert!(error("fold 0/5").starts_with("there is no fold 0 of 5"));
        assert!(error("fold 6/5").starts_with("there is no fold 6 of 5"));
        assert!(error("fold 1/1").starts_with("there can be 2 to 1000 folds"));
        assert!(error("fold 1").contains("no part of a split"));
    }

    #[test]
    fn folds_are_stratified_and_each_image_is_in_one() {
        let labels = [0, 0, 1, 0, 1, 1, 0, 1];
        assert_eq!(part("fold 1/2").places(&labels), [0, 2, 3, 5]);
        assert_eq!(part("fold 2/2").places(&labels), [1, 4, 6, 7]);
        assert_eq!(part("except fold 2/2").places(&labels), [0, 2, 3, 5]);
        assert_eq!(part("even").places(&labels), [0, 2, 4, 6]);
        assert_eq!(part("odd").places(&labels), [1, 3, 5, 7]);
        assert_eq!(part("all").places(&labels).len(), 8);
    }

    #[test]
    fn parts_that_cannot_meet_are_apart_and_really_do_not_meet() {
        let texts = [
            "all",
            "even",
            "odd",
            "fold 1/3",
            "fold 2/3",
            "except fold 1/3",
            "except fold 2/3",
            "fold 1/2",
        ];
        let labels: Vec<usize> = (0..60).map(|i| (i * 7 + i / 5) % 4).collect();
        let mut pairs = 0;
        for a in texts {
            for b in texts {
                let apart = part(a).apart(part(b));
                let there = part(b).places(&labels);
                let meet = part(a).places(&labels).iter().any(|p| there.contains(p));
                assert!(!(apart && meet), "{a} and {b} are said to be apart");
                pairs += usize::from(apart);
            }
        }
        // even–odd, fold 1–fold 2, fold 1–except 1, fold 2–except 2, both ways.
        assert_eq!(pairs, 8);
    }
}
