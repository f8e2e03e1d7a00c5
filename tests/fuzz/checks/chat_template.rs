//! Chat templates: an error or a text, in bounded time and memory, and always the same text.

use std::time::{Duration, Instant};

use runner::models::chat::ChatTemplate;

/// A template that takes longer is not rendered again.
const LONG: Duration = Duration::from_secs(1);

/// The bytes are a template.
pub fn check(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let token = |name: &str| Some(name.to_owned());
    let Ok(template) = ChatTemplate::compile(&text, "it", token("<s>"), token("</s>")) else {
        return false;
    };
    let _ = template.depends_on_date();
    let start = Instant::now();
    let render = || template.render("Name a <s> cat.\n", Some("Be brief."));
    let rendered = render();
    if start.elapsed() < LONG {
        let shown = |result: anyhow::Result<String>| result.map_err(|error| format!("{error:#}"));
        assert_eq!(shown(render()), shown(rendered));
        let _ = template.render("", None);
    }
    true
}
