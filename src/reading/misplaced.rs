//! Fields that belong in another file, and which one: a project says where
//! results are shared, a pipeline what is computed, and only a person whom
//! they trust.

const TRUST: &str = "whom you trust is said in your own `trust.toml`, see `runner key trust`";

/// A hint about `word`, a field that a `runner.toml` does not have.
pub(crate) fn in_project(word: &str) -> Option<&'static str> {
    trust(word).or(match word {
        "version" | "name" | "title" | "extends" | "seed" | "params" | "exec" | "data"
        | "models" | "nodes" | "rounds" | "sweep" | "profiles" | "tables" => {
            Some("this belongs in a pipeline file; a `runner.toml` is about the whole project")
        }
        _ => None,
    })
}

/// A hint about `word`, a field that a pipeline does not have.
pub(crate) fn in_pipeline(word: &str) -> Option<&'static str> {
    trust(word).or(match word {
        "remote" | "remotes" => Some(
            "remotes are named in `runner.toml` in the project's root, see `runner remote add`",
        ),
        "cache" => Some("limits of the cache are said in `runner.toml` in the project's root"),
        _ => None,
    })
}

/// A hint about `word`, a field that a `[[remote]]` does not have.
pub(crate) fn in_remote(word: &str) -> Option<&'static str> {
    let lower = word.to_lowercase();
    let secret = [
        "password",
        "passwd",
        "secret",
        "token",
        "credential",
        "access_key",
        "account_key",
        "user",
        "sas",
    ];
    trust(word).or_else(|| {
        secret
            .iter()
            .any(|part| lower.contains(part))
            .then_some(CREDENTIALS)
    })
}

/// Where credentials come from.
pub(crate) const CREDENTIALS: &str =
    "credentials come from the environment or the usual credential files, never from the project";

fn trust(word: &str) -> Option<&'static str> {
    matches!(
        word,
        "trust"
            | "trusted"
            | "key"
            | "keys"
            | "trusted_keys"
            | "trusted_key"
            | "write_as"
            | "domain"
            | "domains"
            | "revoked"
            | "require_signatures"
    )
    .then_some(TRUST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_sends_to_the_others() {
        for word in ["trust", "keys", "trusted_keys", "write_as"] {
            for place in [in_project, in_pipeline, in_remote] {
                assert_eq!(place(word), Some(TRUST), "{word}");
            }
        }
        assert!(in_project("nodes").unwrap().contains("pipeline file"));
        assert!(in_pipeline("remote").unwrap().contains("runner.toml"));
        assert_eq!(in_remote("AWS_SECRET_ACCESS_KEY"), Some(CREDENTIALS));
        assert_eq!(in_remote("urll"), None);
    }
}
