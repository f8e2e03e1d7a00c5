//! Answers from a file instead of a model: what was recorded, or written by others.
//!
//! Two forms are read, told apart by the name's ending:
//!
//! - **JSON Lines** (any ending but `.json`): one object a line with `class` and
//!   `text`. `sample` counts the answers of a class from 0; where no line of a class
//!   has it, the order of its lines counts. `attempt` counts repeated tries at one
//!   answer from 0. Other fields are left alone, so an `answers.jsonl` of an earlier
//!   run can be given back as it is.
//! - **One JSON object** (`.json`): lists of texts by class, as `CuPL` (Pratt et al.,
//!   2023) and MPVR (Mirza et al., 2024) publish them. Each text is one answer.

use std::{
    collections::BTreeMap,
    fmt,
    io::{BufRead, BufReader, Read},
    marker::PhantomData,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;

/// Longest line that is read, in bytes.
const LONGEST_LINE: u64 = 4 << 20;
/// Largest file that is read, in bytes.
const LARGEST: u64 = 512 << 20;
/// Most classes that a message names.
const MOST_NAMED: usize = 8;
/// Fields that have a meaning here.
const FIELDS: &[&str] = &["class", "sample", "attempt", "text"];

/// Recorded answers, by class, answer and attempt.
#[derive(Clone, Debug)]
pub struct Replay {
    path: PathBuf,
    /// Class, in the order of names, to its answers, each a list of attempts.
    classes: BTreeMap<String, Vec<Vec<String>>>,
}

impl Replay {
    /// Reads a file whole.
    ///
    /// A byte order mark, `\r\n` and blank lines are tolerated.
    ///
    /// # Errors
    /// Names the line and what is wrong with it: no object, no `class`, no `text`,
    /// the same answer twice, or answers that are not numbered without gaps. Lines
    /// longer than 4 MiB and files larger than 512 MiB are refused.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = || format!("failed to read the answers in `{}`", path.display());
        let file = std::fs::File::open(path).with_context(failed)?;
        let size = file.metadata().with_context(failed)?.len();
        ensure!(
            size <= LARGEST,
            "{}: it has {size} bytes, and at most {LARGEST} are read",
            failed()
        );
        let reader = BufReader::new(file.take(LARGEST));
        let one_object = path
            .extension()
            .is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
        let classes = if one_object {
            read_object(reader)
        } else {
            read_lines(reader)
        }
        .with_context(failed)?;
        Ok(Self {
            path: path.to_owned(),
            classes,
        })
    }

    /// The file that was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The classes with how many answers each has, in the order of names.
    pub fn classes(&self) -> impl Iterator<Item = (&str, usize)> {
        self.classes
            .iter()
            .map(|(class, answers)| (class.as_str(), answers.len()))
    }

    /// Checks that every class has at least `answers` answers.
    ///
    /// # Errors
    /// Lists the classes that have fewer, with their counts.
    pub fn check<'a>(
        &self,
        classes: impl IntoIterator<Item = &'a str>,
        answers: usize,
    ) -> Result<()> {
        let mut short = Vec::new();
        for class in classes {
            let count = self.answers(class)?.len();
            if count < answers {
                short.push((class, count));
            }
        }
        let Some(fewest) = short.iter().map(|(_, count)| *count).min() else {
            return Ok(());
        };
        let mut listed: Vec<String> = short
            .iter()
            .take(MOST_NAMED)
            .map(|(class, count)| format!("{count} for `{class}`"))
            .collect();
        if short.len() > MOST_NAMED {
            listed.push(format!("too few for {} more", short.len() - MOST_NAMED));
        }
        bail!(
            "`{}` has fewer than the {answers} answers asked for: {}\n\
             hint: ask for at most {fewest}, or add answers to the file",
            self.path.display(),
            listed.join(", ")
        )
    }

    /// What was answered for `class`, in its answer number `sample` (0, 1, …), at
    /// try number `attempt` (0, 1, …); `None` where the file does not have it.
    pub fn answer(&self, class: &str, sample: usize, attempt: usize) -> Option<&str> {
        let attempts = self.classes.get(class)?.get(sample)?;
        attempts.get(attempt).map(String::as_str)
    }

    /// As [`Replay::answer`], where the file must have it.
    ///
    /// # Errors
    /// When the file has no such class, fewer answers for it, or fewer tries.
    pub fn needed(&self, class: &str, sample: usize, attempt: usize) -> Result<&str> {
        let answers = self.answers(class)?;
        let Some(attempts) = answers.get(sample) else {
            bail!(
                "`{}` has {} for class `{class}`, but number {} is asked for\n\
                 hint: ask for at most {}, or add answers to the file",
                self.path.display(),
                counted(answers.len()),
                sample + 1,
                answers.len()
            );
        };
        let Some(text) = attempts.get(attempt) else {
            bail!(
                "`{}` has no attempt {attempt} at answer {sample} of class `{class}`, only {}",
                self.path.display(),
                attempts.len()
            );
        };
        Ok(text)
    }

    fn answers(&self, class: &str) -> Result<&[Vec<String>]> {
        if let Some(answers) = self.classes.get(class) {
            return Ok(answers);
        }
        let near = self
            .classes
            .keys()
            .map(|name| {
                (
                    strsim::jaro_winkler(&name.to_lowercase(), &class.to_lowercase()),
                    name,
                )
            })
            .filter(|(likeness, _)| *likeness > 0.85)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let mut known: Vec<String> = self
            .classes
            .keys()
            .take(MOST_NAMED)
            .map(|name| format!("`{}`", short(name)))
            .collect();
        if self.classes.len() > MOST_NAMED {
            known.push(format!("{} more", self.classes.len() - MOST_NAMED));
        }
        let hint = match near {
            Some((_, name)) => format!("did it mean `{}`?", short(name)),
            None => format!("it has {}", known.join(", ")),
        };
        bail!(
            "`{}` has no answers for class `{class}`\nhint: {hint}",
            self.path.display()
        )
    }
}

fn counted(answers: usize) -> String {
    match answers {
        1 => "1 answer".to_owned(),
        many => format!("{many} answers"),
    }
}

/// The answers of one class while they are read: text and line by answer and attempt.
#[derive(Default)]
struct Gathered {
    answers: BTreeMap<(u64, u64), (String, usize)>,
    /// The first line, and whether it had a `sample`.
    first: Option<(usize, bool)>,
}

fn read_lines(mut reader: impl BufRead) -> Result<BTreeMap<String, Vec<Vec<String>>>> {
    let mut classes: BTreeMap<String, Gathered> = BTreeMap::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = (&mut reader)
            .take(LONGEST_LINE + 1)
            .read_until(b'\n', &mut line)
            .with_context(|| format!("line {number}"))?;
        if read == 0 {
            break;
        }
        ensure!(
            read as u64 <= LONGEST_LINE,
            "line {number}: longer than {LONGEST_LINE} bytes"
        );
        let text = match number {
            1 => line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line),
            _ => &line,
        };
        if !text.trim_ascii().is_empty() {
            gather(&mut classes, text, number).with_context(|| format!("line {number}"))?;
        }
    }
    ensure!(
        !classes.is_empty(),
        "it holds no answer\nhint: one object a line, such as {EXAMPLE}"
    );
    classes
        .into_iter()
        .map(|(class, gathered)| {
            let answers = numbered(&class, gathered)?;
            Ok((class, answers))
        })
        .collect()
}

const EXAMPLE: &str = r#"`{"class": "cat", "text": "…"}`"#;

fn gather(classes: &mut BTreeMap<String, Gathered>, text: &[u8], number: usize) -> Result<()> {
    let Pairs(pairs) = serde_json::from_slice::<Pairs<Value>>(text)
        .with_context(|| format!("not one JSON object\nhint: one a line, such as {EXAMPLE}"))?;
    let mut fields: BTreeMap<String, Value> = BTreeMap::new();
    for (name, value) in pairs {
        ensure!(
            !fields.contains_key(&name),
            "field `{}` twice",
            short(&name)
        );
        fields.insert(name, value);
    }
    for name in fields.keys() {
        let near = FIELDS
            .iter()
            .find(|field| !FIELDS.contains(&name.as_str()) && mistyped(name, field));
        if let Some(field) = near {
            bail!(
                "unknown field `{}`\nhint: did you mean `{field}`?",
                short(name)
            );
        }
    }
    let class = text_of(&mut fields, "class")?;
    let text = text_of(&mut fields, "text")?;
    let sample = number_of(&mut fields, "sample")?;
    let attempt = number_of(&mut fields, "attempt")?;
    let gathered = classes.entry(class.clone()).or_default();
    let &mut (first, has_sample) = gathered.first.get_or_insert((number, sample.is_some()));
    ensure!(
        has_sample == sample.is_some(),
        "class `{}` has `sample` in only one of this line and line {first}\n\
         hint: give it on all lines of a class, or on none",
        short(&class)
    );
    let sample = match sample {
        Some(sample) => sample,
        None => {
            ensure!(
                attempt.unwrap_or(0) == 0,
                "`attempt` is given without `sample`, so it is not known at which answer"
            );
            gathered.answers.len() as u64
        }
    };
    let attempt = attempt.unwrap_or(0);
    if let Some((_, earlier)) = gathered.answers.get(&(sample, attempt)) {
        bail!(
            "class `{}`, sample {sample}, attempt {attempt} is on line {earlier} too",
            short(&class)
        );
    }
    gathered.answers.insert((sample, attempt), (text, number));
    Ok(())
}

/// Whether an unknown name is one slip from a field's name.
fn mistyped(name: &str, field: &str) -> bool {
    name.eq_ignore_ascii_case(field) || strsim::osa_distance(name, field) == 1
}

fn text_of(fields: &mut BTreeMap<String, Value>, name: &str) -> Result<String> {
    match fields.remove(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => bail!("`{name}` is not a text"),
        None => bail!("no `{name}`\nhint: a line looks like {EXAMPLE}"),
    }
}

fn number_of(fields: &mut BTreeMap<String, Value>, name: &str) -> Result<Option<u64>> {
    match fields.remove(name) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(number) => Ok(Some(number)),
            None => bail!("`{name}` is not a number from 0 up"),
        },
    }
}

/// The answers of a class as lists, once it is sure that no number is left out.
fn numbered(class: &str, gathered: Gathered) -> Result<Vec<Vec<String>>> {
    let mut answers: Vec<Vec<String>> = Vec::new();
    for ((sample, attempt), (text, line)) in gathered.answers {
        if attempt == 0 {
            ensure!(
                sample == answers.len() as u64,
                "line {line}: class `{}` has sample {sample}, but no sample {}\n\
                 hint: `sample` counts the answers of a class from 0",
                short(class),
                answers.len()
            );
            answers.push(Vec::new());
        }
        let read = answers.len() as u64;
        match answers.last_mut() {
            Some(attempts)
                if sample.checked_add(1) == Some(read) && attempt == attempts.len() as u64 =>
            {
                attempts.push(text);
            }
            _ => bail!(
                "line {line}: class `{}`, sample {sample} has attempt {attempt}, but not the \
                 one before it\nhint: `attempt` counts the tries at one answer from 0",
                short(class)
            ),
        }
    }
    Ok(answers)
}

/// A name that a file gave, cut to a bound.
fn short(name: &str) -> String {
    const LONGEST: usize = 80;
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

fn read_object(mut reader: impl BufRead) -> Result<BTreeMap<String, Vec<Vec<String>>>> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let Pairs(pairs) = serde_json::from_slice::<Pairs<Vec<String>>>(text).context(
        "not one JSON object of lists of texts\n\
         hint: it looks like `{\"cat\": [\"…\", \"…\"], \"dog\": [\"…\"]}`; \
         a file with one object a line is named `.jsonl`",
    )?;
    let mut classes = BTreeMap::new();
    for (class, texts) in pairs {
        ensure!(
            !classes.contains_key(&class),
            "class `{}` twice",
            short(&class)
        );
        let answers = texts.into_iter().map(|text| vec![text]).collect();
        classes.insert(class, answers);
    }
    ensure!(!classes.is_empty(), "it holds no class");
    Ok(classes)
}

/// An object as a list, so that a repeated key is seen.
struct Pairs<V>(Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Pairs<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Visit<V> {
            type Value = Pairs<V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<V>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Visit(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn opened(name: &str, text: impl AsRef<[u8]>) -> Result<Replay> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Replay::open(&path)
    }

    fn lines(text: &str) -> Replay {
        opened("a.jsonl", text).unwrap()
    }

    fn refused(text: impl AsRef<[u8]>) -> String {
        format!("{:#}", opened("a.jsonl", text).unwrap_err())
    }

    const PLAIN: &str = r#"{"class": "cat", "text": "fur"}
{"class": "dog", "text": "tail"}
{"class": "cat", "text": "whiskers"}
"#;

    #[test]
    fn without_numbers_the_order_within_a_class_counts() {
        let replay = lines(PLAIN);
        assert_eq!(replay.answer("cat", 0, 0), Some("fur"));
        assert_eq!(replay.answer("cat", 1, 0), Some("whiskers"));
        assert_eq!(replay.answer("dog", 0, 0), Some("tail"));
        assert_eq!(replay.answer("dog", 0, 1), None);
        assert_eq!(
            replay.classes().collect::<Vec<_>>(),
            [("cat", 2), ("dog", 1)]
        );
    }

    #[test]
    fn numbers_count_and_lines_may_come_in_any_order() {
        let replay = lines(
            r#"{"class": "cat", "sample": 1, "text": "c"}
{"class": "cat", "sample": 0, "attempt": 1, "text": "b"}
{"class": "cat", "sample": 0, "attempt": 0, "text": "a"}"#,
        );
        assert_eq!(replay.answer("cat", 0, 0), Some("a"));
        assert_eq!(replay.answer("cat", 0, 1), Some("b"));
        assert_eq!(replay.answer("cat", 0, 2), None);
        assert_eq!(replay.answer("cat", 1, 0), Some("c"));
    }

    #[test]
    fn the_answers_of_an_earlier_run_are_read_as_they_are() {
        let replay = lines(
            r#"{"class":"cat","class_index":3,"sample":0,"attempt":0,"prompt":"name …","text":"{","token_ids":[1,2],"attributes":[],"valid":false,"repaired":false,"reason":"the JSON is not finished"}
{"class":"cat","class_index":3,"sample":0,"attempt":1,"prompt":"name …","text":"{\"feature1\": \"fur\"}","token_ids":[3],"attributes":["fur"],"valid":true,"repaired":false}
"#,
        );
        assert_eq!(replay.answer("cat", 0, 0), Some("{"));
        assert_eq!(replay.answer("cat", 0, 1), Some(r#"{"feature1": "fur"}"#));
    }

    #[test]
    fn marks_line_ends_and_blank_lines_are_tolerated() {
        let text = format!("\u{feff}\r\n{}\r\n\n  \n", PLAIN.replace('\n', "\r\n"));
        assert_eq!(lines(&text).answer("cat", 1, 0), Some("whiskers"));
        assert_eq!(
            lines("{\"class\":\"a\",\"text\":\"\"}").answer("a", 0, 0),
            Some("")
        );
        assert!(refused("{\"class\":\"a\",\"text\":\"\"}\n\u{feff}{}").contains("line 2"));
    }

    #[test]
    fn a_bad_line_is_named_with_what_is_wrong() {
        for (bad, reason) in [
            ("{\"class\": \"cat\"", "line 4: not one JSON object"),
            ("[1]", "line 4: not one JSON object"),
            ("cat: fur", "line 4: not one JSON object"),
            (
                "{\"class\":\"a\",\"text\":\"b\"} {}",
                "line 4: not one JSON object",
            ),
            ("{\"class\": \"cat\"}", "line 4: no `text`"),
            ("{\"text\": \"cat\"}", "line 4: no `class`"),
            (
                "{\"class\": \"cat\", \"text\": null}",
                "line 4: `text` is not a text",
            ),
            (
                "{\"class\": 3, \"text\": \"a\"}",
                "line 4: `class` is not a text",
            ),
            (
                "{\"class\": \"a\", \"text\": \"a\", \"text\": \"b\"}",
                "line 4: field `text` twice",
            ),
            (
                "{\"class\": \"a\", \"Text\": \"a\"}",
                "did you mean `text`?",
            ),
            (
                "{\"class\": \"a\", \"text\": \"a\", \"sampel\": 0}",
                "did you mean `sample`?",
            ),
            (
                "{\"class\": \"a\", \"text\": \"a\", \"sample\": -1}",
                "line 4: `sample` is not a number",
            ),
            (
                "{\"class\": \"a\", \"text\": \"a\", \"sample\": 0.5}",
                "line 4: `sample` is not a number",
            ),
            (
                "{\"class\": \"a\", \"text\": \"a\", \"attempt\": 1}",
                "line 4: `attempt` is given without",
            ),
            (
                "{\"class\": \"cat\", \"text\": \"a\", \"sample\": 2}",
                "only one of this line and line 1",
            ),
        ] {
            let error = refused(format!("{PLAIN}{bad}"));
            assert!(error.contains(reason), "{bad}: {error}");
        }
        assert!(refused(b"\xff\xfe{}").contains("line 1"));
        for empty in ["", "\n\n"] {
            assert!(refused(empty).contains("holds no answer"));
        }
        let deep = "[".repeat(1_000_000);
        assert!(refused(deep).contains("line 1: not one JSON object"));
    }

    #[test]
    fn answers_given_twice_or_with_gaps_are_refused() {
        let line = |sample: u64, attempt: u64| {
            format!(r#"{{"class":"cat","sample":{sample},"attempt":{attempt},"text":"a"}}"#)
        };
        let of = |list: &[(u64, u64)]| {
            let text: Vec<String> = list.iter().map(|&(s, a)| line(s, a)).collect();
            refused(text.join("\n"))
        };
        assert!(
            of(&[(0, 0), (1, 0), (0, 0)])
                .contains("line 3: class `cat`, sample 0, attempt 0 is on line 1 too")
        );
        assert!(
            of(&[(0, 0), (2, 0)]).contains("line 2: class `cat` has sample 2, but no sample 1")
        );
        assert!(of(&[(1, 0)]).contains("but no sample 0"));
        assert!(of(&[(0, 0), (0, 2)]).contains("line 2: class `cat`, sample 0 has attempt 2"));
        // The attempt must not be taken for one at the answer before it.
        assert!(of(&[(0, 0), (1, 1)]).contains("sample 1 has attempt 1, but not the one before"));
        assert!(of(&[(0, 1)]).contains("sample 0 has attempt 1"));
        assert!(of(&[(u64::MAX, u64::MAX)]).contains("line 1"));
    }

    #[test]
    fn a_line_beyond_the_bound_is_refused() {
        let fits = LONGEST_LINE as usize - PLAIN.len();
        let long = |length: usize| format!("{}\n{PLAIN}", " ".repeat(length));
        assert!(opened("a.jsonl", long(fits)).is_ok());
        assert!(
            refused(long(LONGEST_LINE as usize + 1)).contains("line 1: longer than 4194304 bytes")
        );
    }

    #[test]
    fn lists_by_class_are_read_from_a_json_file() {
        let replay = opened(
            "a.json",
            "\u{feff}{\"cat\": [\"\\nfur\", \"tail\"], \"dog\": []}",
        )
        .unwrap();
        assert_eq!(replay.answer("cat", 0, 0), Some("\nfur"));
        assert_eq!(replay.answer("cat", 1, 0), Some("tail"));
        assert_eq!(replay.classes().last(), Some(("dog", 0)));
        for (text, reason) in [
            (PLAIN, "named `.jsonl`"),
            ("{\"cat\": \"fur\"}", "not one JSON object of lists"),
            ("{\"cat\": [1]}", "line 1 column"),
            ("{\"cat\": [], \"cat\": []}", "class `cat` twice"),
            ("{}", "it holds no class"),
            ("", "not one JSON object of lists"),
        ] {
            let error = format!("{:#}", opened("a.JSON", text).unwrap_err());
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn an_answer_that_is_not_there_is_told_with_counts() {
        let replay = lines(PLAIN);
        let error = replay.needed("cat", 2, 0).unwrap_err().to_string();
        assert!(
            error.ends_with(
                "has 2 answers for class `cat`, but number 3 is asked for\n\
                 hint: ask for at most 2, or add answers to the file"
            ),
            "{error}"
        );
        let error = replay.needed("Cats", 0, 0).unwrap_err().to_string();
        assert!(
            error.ends_with("no answers for class `Cats`\nhint: did it mean `cat`?"),
            "{error}"
        );
        let error = replay.needed("zebra", 0, 0).unwrap_err().to_string();
        assert!(error.ends_with("hint: it has `cat`, `dog`"), "{error}");
        assert!(replay.check(["cat", "dog"], 1).is_ok());
        let error = replay.check(["cat", "dog"], 3).unwrap_err().to_string();
        assert!(
            error.contains("fewer than the 3 answers asked for: 2 for `cat`, 1 for `dog`\nhint: ask for at most 1"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = format!(
            "{:#}",
            Replay::open(Path::new("/no/such.jsonl")).unwrap_err()
        );
        assert!(error.contains("`/no/such.jsonl`"), "{error}");
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(text in "[\\{\\}\\[\\]\",: a-z0-9\n]{0,80}") {
            let _ = opened("a.jsonl", &text);
            let _ = opened("a.json", &text);
        }

        #[test]
        fn what_was_written_is_read_back(texts in proptest::collection::vec("\\PC{0,12}", 1..8)) {
            let file: Vec<String> = texts
                .iter()
                .map(|text| serde_json::json!({"class": "é", "text": text}).to_string())
                .collect();
            let replay = lines(&file.join("\n"));
            for (sample, text) in texts.iter().enumerate() {
                prop_assert_eq!(replay.answer("é", sample, 0), Some(text.as_str()));
            }
            prop_assert!(replay.needed("é", texts.len(), 0).is_err());
        }
    }
}
