//! What to download by hand, and where to put it, in words.

use super::{
    Job, Settings, Source,
    hub::{self, Want},
    names,
};

/// Most files that are listed one by one.
const LISTED: usize = 50;

/// What a person downloads in place of [`super::fetch`]: addresses, paths, digests.
///
/// No server is asked, so that of names with `*` only the page is given that lists
/// the files.
pub fn by_hand(job: &Job, settings: &Settings) -> String {
    text(job, settings, None)
}

/// The same, with all files where the hub's list is known.
pub(super) fn text(job: &Job, settings: &Settings, wants: Option<&[Want]>) -> String {
    let to = job.to.display();
    match &job.source {
        Source::Url { url, sha256, md5 } => {
            let mut text = format!("download by hand\n  {url}\n  to `{to}`");
            for (kind, digest) in [("sha256", sha256), ("md5", md5)] {
                if let Some(digest) = digest {
                    text.push_str(&format!("\n  {kind} {digest} (`{kind}sum {to}` prints it)"));
                }
            }
            text
        }
        Source::HuggingFace {
            repo,
            revision,
            files,
            sha256,
        } => {
            let hub = settings.hf_endpoint.as_str();
            let mut text = format!(
                "on a machine that reaches the hub:\n  {}\nor download by hand into `{to}`",
                command(job, repo, revision, files)
            );
            if let Some(wants) = wants {
                for want in wants.iter().take(LISTED) {
                    let digest = want.pins.first().map(ToString::to_string);
                    text.push_str(&format!(
                        "\n  {}\n    to `{}`, {} bytes, {}",
                        want.url,
                        job.to.join(&want.file).display(),
                        want.size.unwrap_or_default(),
                        digest.unwrap_or_default()
                    ));
                }
                if wants.len() > LISTED {
                    text.push_str(&format!("\n  and {} more files", wants.len() - LISTED));
                }
                return text;
            }
            for file in files.iter().filter(|file| names::is_plain(file)) {
                text.push_str(&format!(
                    "\n  {}\n    to `{}`",
                    hub::file_url(hub, repo, revision, file),
                    job.to.join(file).display()
                ));
                if let Some(digest) = sha256.get(file) {
                    text.push_str(&format!(", sha256 {digest}"));
                }
            }
            let page = format!("{}/tree/{revision}", hub::page(hub, repo));
            let patterns: Vec<String> = (files.iter().filter(|file| !names::is_plain(file)))
                .map(|pattern| format!("`{pattern}`"))
                .collect();
            if files.is_empty() {
                text.push_str(&format!("\n  all files of {page}"));
            } else if !patterns.is_empty() {
                text.push_str(&format!("\n  {} of {page}", patterns.join(", ")));
            }
            for (file, digest) in sha256.iter().filter(|(file, _)| !files.contains(file)) {
                text.push_str(&format!("\n    `{file}` has sha256 {digest}"));
            }
            text
        }
    }
}

/// The command of `huggingface_hub` that downloads the same.
fn command(job: &Job, repo: &str, revision: &str, files: &[String]) -> String {
    let (kind, bare) = match repo.strip_prefix("datasets/") {
        Some(bare) => (" --repo-type dataset", bare),
        None => ("", repo),
    };
    let plain = files.iter().all(|file| names::is_plain(file));
    let chosen: String = files
        .iter()
        .map(|file| {
            if plain {
                format!(" {}", quoted(file))
            } else {
                format!(" --include {}", quoted(file))
            }
        })
        .collect();
    format!(
        "hf download {bare}{chosen}{kind} --revision {} --local-dir {}",
        quoted(revision),
        quoted(&job.to.display().to_string())
    )
}

/// A word for a POSIX shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
