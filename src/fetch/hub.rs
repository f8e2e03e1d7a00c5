//! Files of a repository as a Hugging Face hub lists them.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use ureq::http::HeaderMap;

use super::{
    Event, Job, Source,
    attempt::Attempts,
    desk::Desk,
    names,
    pin::Pin,
    problem::{Problem, shortened},
    url::{Address, encode_path, encode_piece},
};

/// Most files of a repository that are listed.
const MOST_FILES: usize = 100_000;
/// Most files that a message names.
const NAMED: usize = 20;
/// What the names of repositories of data begin with, as in their pages' addresses.
const DATASETS: &str = "datasets/";

/// One file that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Want {
    /// Its name in the repository, or the last part of its path.
    pub(super) file: String,
    pub(super) url: String,
    /// Size in bytes, if it is known.
    pub(super) size: Option<u64>,
    /// What it must have; at least one.
    pub(super) pins: Vec<Pin>,
}

/// The files that a job wants.
pub(super) struct Wanted {
    pub(super) commit: Option<String>,
    pub(super) files: Vec<Want>,
}

/// Checks `owner/name`, `name`, and both after `datasets/`.
pub(super) fn check_repo(repo: &str) -> Result<()> {
    let bare = repo.strip_prefix(DATASETS).unwrap_or(repo);
    let pieces: Vec<&str> = bare.split('/').collect();
    let is_piece = |piece: &&str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        !piece.is_empty() && !piece.starts_with('.') && piece.bytes().all(plain)
    };
    ensure!(
        pieces.len() <= 2 && pieces.iter().all(is_piece) && repo.len() <= 200,
        "`{repo}` is not the name of a repository\n\
         hint: `owner/name`, as in the address of its page; `datasets/owner/name` for a data set"
    );
    Ok(())
}

/// Checks that a text can be a commit, tag or branch.
pub(super) fn check_revision(revision: &str) -> Result<()> {
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && !"~^:?*[\\".contains(c);
    ensure!(
        !revision.is_empty()
            && revision.len() <= 250
            && revision.chars().all(plain)
            && !revision.contains("..")
            && !revision.starts_with(['/', '-']),
        "`{revision}` is not a commit, tag or branch\n\
         hint: copy the commit (40 hexadecimal digits) from the repository's history"
    );
    Ok(())
}

/// Whether a revision is a commit, which never moves.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Address of a repository's page.
pub(super) fn page(hub: &str, repo: &str) -> String {
    format!("{hub}/{repo}")
}

/// Address of a file's bytes.
pub(super) fn file_url(hub: &str, repo: &str, revision: &str, file: &str) -> String {
    let revision = encode_piece(revision);
    format!("{hub}/{repo}/resolve/{revision}/{}", encode_path(file))
}

/// Address of the hub's interface for a repository.
fn interface(hub: &str, repo: &str) -> String {
    match repo.strip_prefix(DATASETS) {
        Some(bare) => format!("{hub}/api/datasets/{bare}"),
        None => format!("{hub}/api/models/{repo}"),
    }
}

/// Finds out what a job wants; asks the hub where there is one.
pub(super) fn wanted(desk: &Desk, job: &Job) -> Result<Wanted> {
    let (repo, revision) = match &job.source {
        Source::HuggingFace { repo, revision, .. } => (repo, revision),
        Source::Url { url, .. } => {
            let name = job.to.file_name().unwrap_or_default();
            let files = vec![Want {
                file: name.to_string_lossy().into_owned(),
                url: url.clone(),
                size: None,
                pins: job.url_pins()?,
            }];
            return Ok(Wanted {
                commit: None,
                files,
            });
        }
    };
    let hub = &desk.settings.hf_endpoint;
    desk.tell(Event::Listing {
        hub: hub.clone(),
        repo: repo.clone(),
    });
    if desk.client.withholds_token() {
        desk.tell(Event::Warning {
            text: format!("`{hub}` is not reached over `https`, so the token is not sent to it"),
        });
    }
    let commit = if is_commit(revision) {
        revision.to_ascii_lowercase()
    } else {
        let commit = Attempts::new(desk, repo).until(|| resolve(desk, repo, revision))?;
        desk.tell(Event::Moving {
            revision: revision.clone(),
            commit: commit.clone(),
        });
        commit
    };
    let entries = Attempts::new(desk, repo).until(|| list(desk, repo, &commit))?;
    let files = pick(job, hub, &commit, entries)
        .with_context(|| format!("failed to choose files of `{repo}`"))?;
    Ok(Wanted {
        commit: Some(commit),
        files,
    })
}

/// The commit that a tag or branch stands for.
fn resolve(desk: &Desk, repo: &str, revision: &str) -> Result<String, Problem> {
    let hub = &desk.settings.hf_endpoint;
    let url = format!(
        "{}/revision/{}",
        interface(hub, repo),
        encode_piece(revision)
    );
    let (value, _) = desk.client.json(&url, &page(hub, repo))?;
    match value.get("sha").and_then(Value::as_str) {
        Some(commit) if is_commit(commit) => Ok(commit.to_ascii_lowercase()),
        _ => Err(Problem::last(format!(
            "the hub does not say which commit `{revision}` of `{repo}` is"
        ))),
    }
}

/// An entry of the hub's list.
#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// All pages of the list of a commit's files.
fn list(desk: &Desk, repo: &str, commit: &str) -> Result<Vec<Entry>, Problem> {
    let hub = &desk.settings.hf_endpoint;
    let mut url = format!("{}/tree/{commit}?recursive=true", interface(hub, repo));
    let mut all: Vec<Entry> = Vec::new();
    loop {
        let (value, headers) = desk.client.json(&url, &page(hub, repo))?;
        let entries: Vec<Entry> = serde_json::from_value(value).map_err(|error| {
            Problem::last(format!(
                "the hub's list of `{repo}` is not of the known form: {}",
                shortened(&error.to_string())
            ))
        })?;
        let none = entries.is_empty();
        all.extend(entries);
        if all.len() > MOST_FILES {
            return Err(Problem::last(format!(
                "`{repo}` has more than {MOST_FILES} files"
            )));
        }
        match next(&url, &headers)? {
            Some(more) if !none && more != url => url = more,
            _ => return Ok(all),
        }
    }
}

/// The address of the list's next page, which must be at the same server.
fn next(url: &str, headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let refused = |error: anyhow::Error| Problem::last(format!("{error:#}"));
    let links = headers
        .get_all("link")
        .iter()
        .filter_map(|link| link.to_str().ok());
    for link in links.flat_map(|links| links.split(',')) {
        let Some((target, parameters)) = link.split_once('>') else {
            continue;
        };
        let is_next = parameters.split(';').any(|parameter| {
            let parameter: String = parameter.split_whitespace().collect();
            matches!(parameter.as_str(), "rel=\"next\"" | "rel=next")
        });
        let Some((_, target)) = target.split_once('<').filter(|_| is_next) else {
            continue;
        };
        let here = Address::parse(url).map_err(refused)?;
        let there = here.join(target).map_err(refused)?;
        if there.origin() != here.origin() {
            return Err(Problem::last(format!(
                "the list goes on at another server, `{}`",
                there.host
            )));
        }
        return Ok(Some(there.text().to_owned()));
    }
    Ok(None)
}

/// The entries that the job wants, each with what it must have, sorted by name.
fn pick(job: &Job, hub: &str, commit: &str, entries: Vec<Entry>) -> Result<Vec<Want>> {
    let Source::HuggingFace {
        repo,
        files: patterns,
        sha256,
        ..
    } = &job.source
    else {
        return Ok(Vec::new());
    };
    let files: Vec<Entry> = (entries.into_iter())
        .filter(|entry| entry.kind == "file")
        .collect();
    for pattern in patterns {
        if !files
            .iter()
            .any(|entry| names::matches(pattern, &entry.path))
        {
            bail!(
                "it has no file `{pattern}`\nhint: {}",
                what_there_is(&files)
            );
        }
    }
    let mut wants = Vec::new();
    for entry in files {
        let is_wanted = |pattern: &String| names::matches(pattern, &entry.path);
        if patterns.is_empty() || patterns.iter().any(is_wanted) {
            names::check(&entry.path)?;
            wants.push(Want {
                url: file_url(hub, repo, commit, &entry.path),
                size: Some(entry.lfs.as_ref().map_or(entry.size, |lfs| lfs.size)),
                pins: pins(&entry, sha256.get(&entry.path).map(String::as_str))?,
                file: entry.path,
            });
        }
    }
    names::check_together(wants.iter().map(|want| want.file.as_str()))?;
    wants.sort_by(|a, b| a.file.cmp(&b.file));
    if let Some(file) = sha256.keys().find(|f| !wants.iter().any(|w| w.file == **f)) {
        bail!("`sha256` names `{file}`, which is not among the files to fetch");
    }
    ensure!(!wants.is_empty(), "it has no files");
    Ok(wants)
}

fn what_there_is(files: &[Entry]) -> String {
    if files.is_empty() {
        return "there are no files at this revision".to_owned();
    }
    let named: Vec<String> = (files.iter().take(NAMED))
        .map(|entry| format!("`{}`", shortened(&entry.path)))
        .collect();
    let more = match files.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("there are {}{more}", named.join(", "))
}

/// What a file must have: the pipeline's pin first, then what the hub lists.
fn pins(entry: &Entry, pinned: Option<&str>) -> Result<Vec<Pin>> {
    let path = &entry.path;
    let listed = match &entry.lfs {
        Some(lfs) => Pin::sha256(&lfs.oid).ok(),
        None => Pin::git_blob(&entry.oid),
    };
    let Some(listed) = listed else {
        bail!("the hub lists `{path}` without a digest");
    };
    let Some(pinned) = pinned else {
        return Ok(vec![listed]);
    };
    let pinned = Pin::sha256(pinned)?;
    if let Pin::Sha256(_) = listed {
        ensure!(
            pinned == listed,
            "`{path}` is pinned as {pinned}, but the hub lists it as {listed}\n\
             hint: another file is at this revision than the one that was pinned"
        );
        return Ok(vec![pinned]);
    }
    Ok(vec![pinned, listed])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_and_revisions_are_checked() {
        for repo in [
            "a/b",
            "gpt2",
            "datasets/a/b",
            "datasets/squad",
            "O.w-n/N_4.2",
        ] {
            check_repo(repo).unwrap();
        }
        for repo in [
            "",
            "a/b/c",
            "/a",
            "a/",
            "../a",
            "a b/c",
            "https://h/a",
            "datasets/a/b/c",
        ] {
            assert!(check_repo(repo).is_err(), "{repo}");
        }
        for revision in ["main", "v1.0", "refs/pr/1", &"a".repeat(40)] {
            check_revision(revision).unwrap();
        }
        for revision in ["", "a b", "../x", "/x", "-x", "x?y", "a\0"] {
            assert!(check_revision(revision).is_err(), "{revision}");
        }
        assert!(is_commit(&"aF0".repeat(14)[..40]) && !is_commit("main"));
    }

    #[test]
    fn addresses_are_those_of_the_hub() {
        let hub = "https://huggingface.co";
        assert_eq!(
            file_url(hub, "a/b", "refs/pr/1", "x y/z.bin"),
            "https://huggingface.co/a/b/resolve/refs%2Fpr%2F1/x%20y/z.bin"
        );
        assert_eq!(
            interface(hub, "a/b"),
            "https://huggingface.co/api/models/a/b"
        );
        assert_eq!(
            interface(hub, "datasets/a/b"),
            "https://huggingface.co/api/datasets/a/b"
        );
    }

    #[test]
    fn the_next_page_is_at_the_same_server_or_refused() {
        let url = "https://h.org/api/models/a/b/tree/c?recursive=true";
        let found = |link: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("link", link.parse().unwrap());
            next(url, &headers)
        };
        assert_eq!(
            found("<https://h.org/x?cursor=a%3D>; rel=\"next\"")
                .unwrap()
                .unwrap(),
            "https://h.org/x?cursor=a%3D"
        );
        assert_eq!(
            found("</y?p=2>;rel=next").unwrap().unwrap(),
            "https://h.org/y?p=2"
        );
        assert_eq!(
            found("<https://h.org/a>; rel=\"prev\", <https://h.org/b>; rel=\"next\"")
                .unwrap()
                .unwrap(),
            "https://h.org/b"
        );
        assert_eq!(found("<https://h.org/x>; rel=\"last\"").unwrap(), None);
        assert_eq!(found("nonsense").unwrap(), None);
        assert!(found("<https://evil.org/x>; rel=\"next\"").is_err());
    }
}
