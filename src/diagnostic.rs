//! Located errors with a hint, and their one renderer.

use std::{
    fmt::{self, Write as _},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use annotate_snippets::{
    AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str,
};
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

/// Errors that are printed in full; the others are counted.
const SHOWN: usize = 50;

/// Lines between two underlined places that still share one excerpt.
const NEAR: usize = 30;

/// A text with its name: a file, or what stood on the command line.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceText {
    /// Absolute path; empty for the command line.
    pub path: PathBuf,
    /// How people see it: the path as they would type it.
    pub shown: String,
    /// The text; empty when it could not be read.
    pub text: String,
}

impl SourceText {
    /// The text of the file at `path`, which people know as `shown`.
    pub fn new(path: &Path, shown: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            path: path.to_owned(),
            shown: shown.into(),
            text: text.into(),
        })
    }

    /// Line and column of the byte at `offset`, both from 1; columns count characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..self.boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }

    /// The nearest character boundary at or before `offset`.
    fn boundary(&self, offset: usize) -> usize {
        self.text.floor_char_boundary(offset)
    }

    /// `span` inside the text, on character boundaries, never back to front.
    fn clamp(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.boundary(span.start);
        start..self.boundary(span.end).max(start)
    }
}

/// A span of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The text.
    pub source: Arc<SourceText>,
    /// Bytes of it.
    pub span: Range<usize>,
}

impl Place {
    /// The bytes `span` of `source`.
    pub fn new(source: &Arc<SourceText>, span: Range<usize>) -> Self {
        Self {
            source: source.clone(),
            span,
        }
    }
}

/// Another place that has to do with an error, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Where.
    pub place: Place,
    /// What is there.
    pub text: String,
}

/// One error: where, what is wrong, how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file.
    pub source: Arc<SourceText>,
    /// The underlined bytes; `None` when it concerns the file as a whole.
    pub span: Option<Range<usize>>,
    /// What is wrong, in one line.
    pub message: String,
    /// A few words under the line; may be empty.
    pub label: String,
    /// The fix, where one is known.
    pub hint: Option<String>,
    /// Other places.
    pub notes: Vec<Note>,
}

impl Diagnostic {
    /// `message` about `place`.
    pub fn at(place: Place, message: impl Into<String>) -> Self {
        Self {
            span: Some(place.span),
            ..Self::whole(&place.source, message)
        }
    }

    /// `message` about a file as a whole.
    pub fn whole(source: &Arc<SourceText>, message: impl Into<String>) -> Self {
        Self {
            source: source.clone(),
            span: None,
            message: message.into(),
            label: String::new(),
            hint: None,
            notes: Vec::new(),
        }
    }

    /// With words under the line.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// With a fix; nothing changes when `hint` is `None`.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Option<String>>) -> Self {
        self.hint = hint.into().or(self.hint);
        self
    }

    /// With another place.
    #[must_use]
    pub fn note(mut self, place: Place, text: impl Into<String>) -> Self {
        self.notes.push(Note {
            place,
            text: text.into(),
        });
        self
    }

    fn start(&self) -> usize {
        self.span.as_ref().map_or(0, |span| span.start)
    }

    fn render(&self, renderer: &Renderer) -> String {
        let mut group = Level::ERROR
            .primary_title(normalize_untrusted_str(&self.message))
            .elements(self.excerpts());
        if self.span.is_none() {
            group = group.element(Origin::path(self.source.shown.as_str()));
        }
        if let Some(hint) = &self.hint {
            let hint = normalize_untrusted_str(hint);
            group = group.element(Level::HELP.with_name("hint").message(hint));
        }
        let groups: [Group<'_>; 1] = [group];
        renderer.render(&groups)
    }

    /// Excerpts of the files around the underlined places: near ones share one.
    fn excerpts(&self) -> Vec<Snippet<'_, annotate_snippets::Annotation<'_>>> {
        let Some(span) = &self.span else {
            return Vec::new();
        };
        let mut marks = vec![(&*self.source, self.source.clamp(span), &self.label, true)];
        marks.extend(self.notes.iter().map(|note| {
            let source = &*note.place.source;
            (source, source.clamp(&note.place.span), &note.text, false)
        }));
        let mut excerpts = Vec::new();
        while !marks.is_empty() {
            let (source, mut window) = (marks[0].0, lines_around(marks[0].0, &marks[0].1));
            let (mut here, mut rest) = (Vec::new(), Vec::new());
            for mark in marks {
                let joined = window.start.min(mark.1.start)..window.end.max(mark.1.end);
                // The place that the excerpt is for is in it, however long it is.
                if here.is_empty()
                    || std::ptr::eq(mark.0, source)
                        && lines_in(&source.text[joined.clone()]) <= NEAR
                {
                    window = lines_around(source, &joined);
                    here.push(mark);
                } else {
                    rest.push(mark);
                }
            }
            let first_line = source.position(window.start).0;
            let annotations = here.into_iter().map(|(_, span, text, primary)| {
                let kind = if primary {
                    AnnotationKind::Primary
                } else {
                    AnnotationKind::Context
                };
                let text = (!text.is_empty()).then(|| normalize_untrusted_str(text));
                kind.span(span.start - window.start..span.end - window.start)
                    .label(text)
            });
            excerpts.push(
                Snippet::source(&source.text[window.clone()])
                    .path(source.shown.as_str())
                    .line_start(first_line)
                    .annotations(annotations.collect::<Vec<_>>()),
            );
            marks = rest;
        }
        excerpts
    }
}

fn lines_in(text: &str) -> usize {
    text.bytes()
        .filter(|byte| *byte == b'\n')
        .take(NEAR + 1)
        .count()
}

/// `span` widened to whole lines.
fn lines_around(source: &SourceText, span: &Range<usize>) -> Range<usize> {
    let start = source.text[..span.start].rfind('\n').map_or(0, |i| i + 1);
    let end = source.text[span.end..]
        .find('\n')
        .map_or(source.text.len(), |i| span.end + i);
    start..end
}

impl Serialize for Diagnostic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (line, column) = self.source.position(self.start());
        let end = self.span.as_ref().map_or(0, |span| span.end);
        let (end_line, end_column) = self.source.position(end);
        let mut out = serializer.serialize_struct("Diagnostic", 9)?;
        out.serialize_field("file", &self.source.shown)?;
        out.serialize_field("line", &line)?;
        out.serialize_field("column", &column)?;
        out.serialize_field("end_line", &end_line)?;
        out.serialize_field("end_column", &end_column)?;
        out.serialize_field("message", &self.message)?;
        out.serialize_field("label", &self.label)?;
        out.serialize_field("hint", &self.hint)?;
        out.serialize_field("notes", &self.notes)?;
        out.end()
    }
}

impl Serialize for Note {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (line, column) = self.place.source.position(self.place.span.start);
        let mut out = serializer.serialize_struct("Note", 4)?;
        out.serialize_field("file", &self.place.source.shown)?;
        out.serialize_field("line", &line)?;
        out.serialize_field("column", &column)?;
        out.serialize_field("text", &self.text)?;
        out.end()
    }
}

/// All errors of one load, by file and position.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Sorts by file and position and drops what is said twice.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.0.sort_by(|a, b| {
            let files = a.source.shown.cmp(&b.source.shown);
            files.then(a.start().cmp(&b.start()))
        });
        self.0.dedup();
        self
    }

    /// The text for a terminal `width` columns wide, with colour or without;
    /// the count of errors is its last line.
    pub fn render(&self, colour: bool, width: usize) -> String {
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let renderer = renderer.term_width(width.max(40));
        let mut out = String::new();
        for diagnostic in self.0.iter().take(SHOWN) {
            out += &diagnostic.render(&renderer);
            out += "\n\n";
        }
        if self.0.len() > SHOWN {
            let _ = write!(out, "and {} more\n\n", self.0.len() - SHOWN);
        }
        let plural = if self.0.len() == 1 { "" } else { "s" };
        let _ = writeln!(out, "{} error{plural}", self.0.len());
        out
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false, 140).trim_end())
    }
}

impl std::error::Error for Diagnostics {}

impl From<Diagnostic> for Diagnostics {
    fn from(one: Diagnostic) -> Self {
        Self(vec![one])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Arc<SourceText> {
        SourceText::new(
            Path::new("/x/a.toml"),
            "a.toml",
            "version = 1\nnäme = 2\nseed = 3\n",
        )
    }

    #[test]
    fn positions_count_characters_from_one() {
        let source = source();
        assert_eq!(source.position(0), (1, 1));
        assert_eq!(source.position(12), (2, 1));
        assert_eq!(source.position(15), (2, 3), "after the two bytes of ä");
        assert_eq!(source.position(14), (2, 2), "inside ä");
        assert_eq!(source.position(10_000), (4, 1));
    }

    #[test]
    fn a_diagnostic_shows_line_label_hint_and_notes() {
        let source = source();
        let all = Diagnostics::from(
            Diagnostic::at(Place::new(&source, 12..17), "unknown field `näme`")
                .label("no such field")
                .hint("did you mean `name`?".to_owned())
                .note(Place::new(&source, 0..7), "the version is here"),
        );
        insta::assert_snapshot!(all.render(false, 80), @r"
        error: unknown field `näme`
         --> a.toml:2:1
          |
        1 | version = 1
          | ------- the version is here
        2 | näme = 2
          | ^^^^ no such field
          |
          = hint: did you mean `name`?

        1 error
        ");
        assert!(all.render(true, 80).contains("\u{1b}["));
    }

    #[test]
    fn spans_outside_the_text_do_no_harm() {
        let source = source();
        for span in [0..0, 14..15, 500..900, 30..usize::MAX] {
            let all = Diagnostics::from(Diagnostic::at(Place::new(&source, span), "odd"));
            assert!(all.render(false, 80).contains("odd"));
        }
        let backwards = Range { start: 20, end: 3 };
        let all = Diagnostics::from(Diagnostic::at(Place::new(&source, backwards), "odd"));
        assert!(all.render(false, 80).contains("odd"));
    }

    #[test]
    fn a_place_of_many_lines_is_shown_once() {
        let text = format!("start\n{}end\n", "more\n".repeat(100));
        let source = SourceText::new(Path::new("/x/a.toml"), "a.toml", text);
        let all = Diagnostics::from(
            Diagnostic::at(Place::new(&source, 0..509), "a long key")
                .note(Place::new(&source, 506..509), "it ends here"),
        );
        insta::assert_snapshot!(all.render(false, 80), @r"
        error: a long key
           --> a.toml:1:1
            |
          1 | / start
          2 | | more
          3 | | more
          4 | | more
        ...   |
        101 | | more
        102 | | end
            | |___^
            |
           ::: a.toml:102:1
            |
        102 |   end
            |   --- it ends here

        1 error
        ");
    }

    #[test]
    fn json_has_lines_and_columns() {
        let all = Diagnostics::from(
            Diagnostic::at(Place::new(&source(), 12..17), "unknown").label("here"),
        );
        assert_eq!(
            serde_json::to_value(&all).unwrap(),
            serde_json::json!([{
                "file": "a.toml", "line": 2, "column": 1, "end_line": 2, "end_column": 5,
                "message": "unknown", "label": "here", "hint": null, "notes": []
            }])
        );
    }

    #[test]
    fn errors_are_sorted_and_said_once() {
        let (a, b) = (source(), SourceText::new(Path::new("/b"), "b", "xx"));
        let at = |s: &Arc<SourceText>, i: usize| Diagnostic::at(Place::new(s, i..i + 1), "no");
        let all = Diagnostics(vec![at(&b, 1), at(&a, 5), at(&b, 0), at(&a, 5)]).sorted();
        let order: Vec<_> = all
            .0
            .iter()
            .map(|d| (d.source.shown.as_str(), d.start()))
            .collect();
        assert_eq!(order, [("a.toml", 5), ("b", 0), ("b", 1)]);
    }
}
