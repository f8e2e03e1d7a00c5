//! What became of an LLM's answers, in counts and a few samples.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::artifact::{Answer, Answers, Finish};

/// How many samples of each outcome a page shows.
const SAMPLES: usize = 3;

/// Counts over all attempts of one `llm_generate`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AnswersSummary {
    /// Attempts in all.
    pub attempts: usize,
    /// Attempts that gave attributes as they were.
    pub valid: usize,
    /// Attempts that gave attributes after a repair.
    pub repaired: usize,
    /// Attempts that gave none.
    pub invalid: usize,
    /// `100 · invalid / attempts`.
    pub invalid_percent: f64,
    /// First attempts that gave none, in percent of first attempts: how often the
    /// model fails, whatever is asked again.
    pub first_invalid_percent: f64,
    /// Attempts that were cut at `max_tokens`.
    pub truncated: usize,
    /// Attributes of more than three words, as they were written.
    pub over_three_words: usize,
    /// Attributes that look like a name without a value, such as `fur_color`.
    pub name_like: usize,
    /// Attributes that are a key of the answer, such as `feature2`.
    pub field_names: usize,
    /// Attributes with a name before the value, such as `wing span: large`.
    pub labelled: usize,
    /// Attributes that cleaning took out.
    pub dropped: usize,
    /// Answers for which every attempt was invalid.
    pub given_up: usize,
    /// Distinct attributes, counted class by class.
    pub attributes: usize,
    /// Attributes that repeat one of the same class.
    pub duplicates: usize,
    /// Why attempts were invalid, with how often, most frequent first.
    pub reasons: Vec<(String, usize)>,
    /// A few answers of each outcome, invalid ones first.
    pub samples: Vec<Answer>,
}

impl AnswersSummary {
    /// Counts `answers`.
    pub fn of(answers: &Answers) -> Self {
        let list = &answers.answers;
        let invalid = list.iter().filter(|a| !a.valid).count();
        let repaired = list.iter().filter(|a| a.valid && a.repaired).count();
        let mut reached: BTreeMap<(usize, usize), bool> = BTreeMap::new();
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for answer in list {
            *reached
                .entry((answer.class_index, answer.sample))
                .or_default() |= answer.valid;
            if !answer.valid {
                let reason = answer.reason.as_deref().unwrap_or("no reason given");
                *reasons.entry(reason).or_default() += 1;
            }
        }
        let first: Vec<&Answer> = list.iter().filter(|a| a.attempt == 0).collect();
        let first_invalid = first.iter().filter(|a| !a.valid).count();
        let odd = |what: &str| {
            let flags = list.iter().flat_map(|answer| &answer.flags);
            flags
                .filter(|flag| flag.odd.iter().any(|odd| odd == what))
                .count()
        };
        let mut reasons: Vec<_> = reasons
            .into_iter()
            .map(|(r, n)| (r.to_owned(), n))
            .collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let classes = 0..answers.classes.len();
        let attributes: usize = classes.clone().map(|c| answers.candidates(c).len()).sum();
        let raw: usize = classes.map(|c| answers.raw_candidates(c).count()).sum();
        let samples = [
            (|a: &&Answer| !a.valid) as fn(&&Answer) -> bool,
            |a| a.valid && a.repaired,
            |a| a.valid && !a.repaired,
        ];
        Self {
            attempts: list.len(),
            valid: list.len() - invalid - repaired,
            repaired,
            invalid,
            invalid_percent: 100.0 * invalid as f64 / list.len().max(1) as f64,
            first_invalid_percent: 100.0 * first_invalid as f64 / first.len().max(1) as f64,
            truncated: list
                .iter()
                .filter(|a| a.finish == Some(Finish::Length))
                .count(),
            over_three_words: odd("over_three_words"),
            name_like: odd("name_like"),
            field_names: odd("field_name"),
            labelled: odd("labelled"),
            dropped: list.iter().map(|answer| answer.dropped.len()).sum(),
            given_up: reached.values().filter(|valid| !**valid).count(),
            attributes,
            duplicates: raw - attributes,
            reasons,
            samples: samples
                .into_iter()
                .flat_map(|outcome| list.iter().filter(outcome).take(SAMPLES))
                .cloned()
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Flag;

    fn answer(sample: usize, attempt: usize, valid: bool, repaired: bool) -> Answer {
        Answer {
            class: "cat".into(),
            class_index: 0,
            sample,
            attempt,
            prompt: "Name a feature.".into(),
            text: "{}".into(),
            token_ids: vec![],
            attributes: if valid {
                vec![format!("a{sample}")]
            } else {
                vec![]
            },
            valid,
            repaired,
            reason: (!valid).then(|| "not JSON".into()),
            ..Answer::default()
        }
    }

    #[test]
    fn a_retry_that_works_is_not_given_up() {
        let answers = Answers {
            answers: vec![
                answer(0, 0, false, false),
                answer(0, 1, true, true),
                answer(1, 0, true, false),
                answer(2, 0, false, false),
            ],
            classes: vec!["cat".into()],
        };
        let summary = AnswersSummary::of(&answers);
        assert_eq!(
            (summary.attempts, summary.valid, summary.repaired),
            (4, 1, 1)
        );
        assert_eq!(
            (summary.invalid, summary.given_up, summary.attributes),
            (2, 1, 2)
        );
        assert!((summary.invalid_percent - 50.0).abs() < 1e-12);
        // Two of the three first attempts.
        assert!((summary.first_invalid_percent - 200.0 / 3.0).abs() < 1e-12);
        assert_eq!(summary.reasons, [("not JSON".to_owned(), 2)]);
        assert!(!summary.samples[0].valid && summary.samples.len() == 4);
    }

    #[test]
    fn odd_attributes_and_cut_answers_are_counted() {
        let flag = |attribute: &str, odd: &[&str]| Flag {
            attribute: attribute.to_owned(),
            odd: odd.iter().map(|odd| (*odd).to_owned()).collect(),
        };
        let mut whole = answer(0, 0, true, false);
        whole.flags = vec![
            flag("fur_color", &["name_like"]),
            flag(
                "wing span: very very large",
                &["labelled", "over_three_words"],
            ),
        ];
        let mut cut = answer(1, 0, false, false);
        cut.finish = Some(Finish::Length);
        let summary = AnswersSummary::of(&Answers {
            answers: vec![whole, cut],
            classes: vec!["cat".into()],
        });
        let counts = [
            summary.truncated,
            summary.name_like,
            summary.labelled,
            summary.over_three_words,
            summary.field_names,
            summary.dropped,
        ];
        assert_eq!(counts, [1, 1, 1, 1, 0, 0]);
    }
}
