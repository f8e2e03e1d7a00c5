//! Credentials that lie in the user's own files: profiles of AWS, and `.netrc`.
//!
//! They are looked at where the environment says nothing, in the order and by the rules of the
//! tools whose files they are: the [AWS CLI] and [curl].
//!
//! [AWS CLI]: https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html
//! [curl]: https://everything.curl.dev/usingcurl/netrc.html

use std::{
    collections::HashMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use ini::{Ini, ParseOption, Properties};

/// The most bytes of such a file.
const LONGEST: u64 = 1 << 20;
/// What a profile says: the names of it in the files and as variables.
const SETTINGS: [(&str, &str, &[&str]); 2] = [
    (
        "region",
        "aws_region",
        &["AWS_REGION", "AWS_DEFAULT_REGION"],
    ),
    (
        "endpoint_url",
        "aws_endpoint_url",
        &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"],
    ),
];
/// The parts of a credential, by the same two names.
const SECRETS: [(&str, &str); 3] = [
    ("aws_access_key_id", "aws_access_key_id"),
    ("aws_secret_access_key", "aws_secret_access_key"),
    ("aws_session_token", "aws_session_token"),
];
/// Variables that say where credentials come from: a profile is then not asked for them.
const ELSEWHERE: [&str; 3] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_SKIP_SIGNATURE",
];
/// Settings of a profile that name another way to credentials, which is not gone here.
const OTHER_WAYS: [&str; 5] = [
    "sso_session",
    "sso_start_url",
    "credential_process",
    "role_arn",
    "login_session",
];

type Env = HashMap<String, OsString>;

/// What the profile of AWS that `env` names (else `default`) adds to `env`: names of settings as
/// `object_store` knows them, and their values.
///
/// # Errors
/// Why the profile cannot be used. Nothing that a file holds is in the text but names.
pub(super) fn aws(env: &Env) -> Result<Vec<(String, String)>, String> {
    let named = text(env, "AWS_PROFILE").or_else(|| text(env, "AWS_DEFAULT_PROFILE"));
    let profile = named.unwrap_or("default");
    let credentials = file(env, "AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials");
    let config = file(env, "AWS_CONFIG_FILE", ".aws/config");
    let credentials = read_ini(credentials)?;
    let config = read_ini(config)?;
    let from_credentials = section(credentials.as_ref(), &[profile.to_owned()]);
    let long = format!("profile {profile}");
    let from_config = match profile {
        "default" => section(config.as_ref(), &[long, profile.to_owned()]),
        _ => section(config.as_ref(), &[long]),
    };
    let elsewhere = ELSEWHERE.iter().any(|name| text(env, name).is_some());
    if named.is_some() && from_credentials.is_none() && from_config.is_none() && !elsewhere {
        return Err(format!(
            "`AWS_PROFILE` names `{profile}`, and there is no such profile\n\
             hint: `aws configure list-profiles` lists them"
        ));
    }
    let mut found = Vec::new();
    for (name, setting, variables) in SETTINGS {
        let said = variables.iter().any(|name| text(env, name).is_some());
        let value = (from_config.and_then(|section| section.get(name)))
            .or_else(|| from_credentials.and_then(|section| section.get(name)));
        if let (false, Some(value)) = (said, value) {
            found.push((setting.to_owned(), value.to_owned()));
        }
    }
    if elsewhere {
        return Ok(found);
    }
    // All parts come from one place: those of two belong to two keys.
    let whole = |section: &&Properties| {
        section.contains_key("aws_access_key_id") && section.contains_key("aws_secret_access_key")
    };
    let sections = [from_credentials, from_config];
    if let Some(section) = sections.into_iter().flatten().find(whole) {
        for (name, setting) in SECRETS {
            if let Some(value) = section.get(name) {
                found.push((setting.to_owned(), value.to_owned()));
            }
        }
        return Ok(found);
    }
    let other = |name: &&str| (sections.iter().flatten()).any(|section| section.contains_key(name));
    match OTHER_WAYS.iter().find(|name| other(name)) {
        Some(way) => Err(format!(
            "the profile `{profile}` of AWS gets its credentials by `{way}`, which runner does not do\n\
             hint: `eval \"$(aws configure export-credentials --profile {profile} --format env)\"` \
             puts them into the environment"
        )),
        // A machine in the cloud has some of its own.
        None => Ok(found),
    }
}

/// The user and the password that the user's `.netrc` has for the server `host`.
///
/// # Errors
/// Why the file cannot be read.
pub(super) fn netrc(env: &Env, host: &str) -> Result<Option<(String, String)>, String> {
    let Some(text) = read(file(env, "NETRC", ".netrc"))? else {
        return Ok(None);
    };
    Ok(login(&text, host))
}

/// The first `machine` called `host` of a `.netrc` that has a login and a password. The entry
/// `default` is for servers in general, which a shared cache is not.
fn login(text: &str, host: &str) -> Option<(String, String)> {
    let mut words = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.split_whitespace().take_while(|w| !w.starts_with('#'));
        let line: Vec<&str> = line.collect();
        // A macro goes on until an empty line.
        let macros = line.iter().position(|word| *word == "macdef");
        words.extend(&line[..macros.unwrap_or(line.len())]);
        if macros.is_some() {
            let _ = lines.find(|line| line.trim().is_empty());
        }
    }
    let mut words = words.into_iter();
    let (mut ours, mut user, mut password) = (false, None, None);
    while let Some(word) = words.next() {
        match word {
            "machine" | "default" => {
                let name = if word == "machine" {
                    words.next()
                } else {
                    None
                };
                ours = name.is_some_and(|name| name.eq_ignore_ascii_case(host));
                (user, password) = (None, None);
            }
            "login" => user = words.next(),
            "password" => password = words.next(),
            "account" => drop(words.next()),
            _ => {}
        }
        if let (true, Some(user), Some(password)) = (ours, user, password) {
            return Some((user.to_owned(), password.to_owned()));
        }
    }
    None
}

/// A variable that is set to something.
fn text<'a>(env: &'a Env, name: &str) -> Option<&'a str> {
    env.get(name)?.to_str().filter(|text| !text.is_empty())
}

/// The file that a variable names, else the one in the user's home.
fn file(env: &Env, variable: &str, usual: &str) -> Option<PathBuf> {
    let home = || text(env, "HOME").map(|home| Path::new(home).join(usual));
    text(env, variable).map(PathBuf::from).or_else(home)
}

/// The text of a file, if there is one.
fn read(path: Option<PathBuf>) -> Result<Option<String>, String> {
    let Some(path) = path else { return Ok(None) };
    let failed = |reason: &str| {
        format!(
            "`{}` cannot be read: {reason}\n\
             hint: put the credentials into the environment, or repair the file",
            path.display()
        )
    };
    match std::fs::metadata(&path) {
        Ok(metadata) if !metadata.is_file() => return Err(failed("it is no file")),
        Ok(metadata) if metadata.len() > LONGEST => return Err(failed("it is too long")),
        _ => {}
    }
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&error.to_string())),
    }
}

fn read_ini(path: Option<PathBuf>) -> Result<Option<Ini>, String> {
    let shown = path.clone().unwrap_or_default();
    let Some(text) = read(path)? else {
        return Ok(None);
    };
    let options = ParseOption {
        enabled_quote: false,
        enabled_escape: false,
        ..ParseOption::default()
    };
    // What is wrong may be a secret: only its line is told.
    let read = Ini::load_from_str_opt(&text, options).map_err(|error| {
        format!(
            "`{}` cannot be read: something is wrong in line {}\n\
             hint: put the credentials into the environment, or repair the file",
            shown.display(),
            error.line
        )
    })?;
    Ok(Some(read))
}

/// The first section of one of the names; spaces and quotes within a name do not count.
fn section<'a>(file: Option<&'a Ini>, names: &[String]) -> Option<&'a Properties> {
    let plain = |name: &str| {
        let words = name.split_whitespace().map(|word| word.trim_matches('"'));
        words.collect::<Vec<_>>().join(" ")
    };
    let file = file?;
    names.iter().find_map(|name| {
        let mut sections = file.iter();
        sections.find_map(|(section, properties)| (plain(section?) == *name).then_some(properties))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "\
        # of ana\n\
        [default]\n\
        aws_access_key_id = AKIDEFAULT\n\
        aws_secret_access_key = a/b+c=#d\n\
        \n\
        [lab]\n\
        aws_access_key_id=AKILAB\n\
        aws_secret_access_key=\"q\\n\n\
        aws_session_token=token\n";
    const CONFIG: &str = "\
        [default]\n\
        region = eu-central-1\n\
        s3 =\n  \
          max_concurrent_requests = 20\n\
        [profile lab]\n\
        region = us-west-2\n\
        endpoint_url = http://127.0.0.1:9000\n\
        [profile \"by sso\"]\n\
        sso_session = lab\n\
        [profile whole]\n\
        aws_access_key_id = AKIWHOLE\n\
        aws_secret_access_key = w\n\
        [profile half]\n\
        aws_access_key_id = AKIHALF\n\
        [plain]\n\
        region = nowhere\n";

    fn home() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        std::fs::write(home.path().join(".aws/credentials"), CREDENTIALS).unwrap();
        std::fs::write(home.path().join(".aws/config"), CONFIG).unwrap();
        home
    }

    fn of(home: &Path, more: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
        let mut env: Env = HashMap::from([("HOME".to_owned(), home.into())]);
        for (name, value) in more {
            env.insert((*name).to_owned(), value.into());
        }
        let mut found = aws(&env)?;
        found.sort();
        Ok(found)
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn a_profile_of_aws_gives_what_the_environment_does_not() {
        let home = home();
        let default = [
            ("aws_access_key_id", "AKIDEFAULT"),
            ("aws_region", "eu-central-1"),
            ("aws_secret_access_key", "a/b+c=#d"),
        ];
        assert_eq!(of(home.path(), &[]).unwrap(), pairs(&default));
        let lab = [
            ("aws_access_key_id", "AKILAB"),
            ("aws_endpoint_url", "http://127.0.0.1:9000"),
            ("aws_region", "us-west-2"),
            ("aws_secret_access_key", "\"q\\n"),
            ("aws_session_token", "token"),
        ];
        let profile = ("AWS_PROFILE", "lab");
        assert_eq!(of(home.path(), &[profile]).unwrap(), pairs(&lab));
        let whole = [
            ("aws_access_key_id", "AKIWHOLE"),
            ("aws_secret_access_key", "w"),
        ];
        let found = of(home.path(), &[("AWS_PROFILE", "whole")]).unwrap();
        assert_eq!(found, pairs(&whole));
        // Half of a key is none, and what is no profile is none either.
        assert_eq!(of(home.path(), &[("AWS_PROFILE", "half")]).unwrap(), []);
        assert!(of(home.path(), &[("AWS_PROFILE", "plain")]).is_err());
        // The environment goes first, part by part of what is no secret, and whole of what is.
        let env = [
            profile,
            ("AWS_ACCESS_KEY_ID", "AKIENV"),
            ("AWS_SECRET_ACCESS_KEY", "e"),
            ("AWS_DEFAULT_REGION", "here"),
        ];
        let found = of(home.path(), &env).unwrap();
        assert_eq!(found, pairs(&lab[1..2]));
        let env = [
            profile,
            ("AWS_ENDPOINT_URL", "http://there"),
            ("AWS_REGION", ""),
        ];
        let found = of(home.path(), &env).unwrap();
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "aws_access_key_id",
                "aws_region",
                "aws_secret_access_key",
                "aws_session_token"
            ]
        );
        // Other files, and none.
        let other = home.path().join("other");
        std::fs::write(&other, CREDENTIALS.replace("AKIDEFAULT", "AKIOTHER")).unwrap();
        let other = ("AWS_SHARED_CREDENTIALS_FILE", other.to_str().unwrap());
        let found = of(home.path(), &[other]).unwrap();
        assert_eq!(found[0].1, "AKIOTHER");
        assert_eq!(of(Path::new("/nowhere"), &[]).unwrap(), []);
    }

    #[test]
    fn a_profile_that_cannot_be_used_says_why_and_shows_no_secret() {
        let home = home();
        let error = of(home.path(), &[("AWS_PROFILE", "by sso")]).unwrap_err();
        assert!(error.contains("by `sso_session`"), "{error}");
        assert!(
            error.contains("export-credentials --profile by sso"),
            "{error}"
        );
        let error = of(home.path(), &[("AWS_PROFILE", "typo")]).unwrap_err();
        assert!(error.contains("no such profile"), "{error}");
        let bad = "[default]\naws_access_key_id = A\nSECRETSECRET\n";
        std::fs::write(home.path().join(".aws/credentials"), bad).unwrap();
        let error = of(home.path(), &[]).unwrap_err();
        assert!(error.contains("credentials` cannot be read"), "{error}");
        assert!(!error.contains("SECRET"), "{error}");
        std::fs::remove_file(home.path().join(".aws/credentials")).unwrap();
        std::fs::create_dir(home.path().join(".aws/credentials")).unwrap();
        let error = of(home.path(), &[]).unwrap_err();
        assert!(error.contains("it is no file"), "{error}");
    }

    #[test]
    fn a_netrc_is_read_as_curl_reads_it() {
        let text = "\
            # machine dav.example login no password no\n\
            machine other.example login bob password b\n\
            macdef init\n\
            machine dav.example login evil password e\n\
            \n\
            machine DAV.example\n  login ana # here\n  account x\n  password p#1\n\
            machine dav.example login late password l\n\
            machine half.example login ana\n\
            default login anonymous password guest\n";
        let found = |host: &str| login(text, host);
        let ana = Some(("ana".to_owned(), "p#1".to_owned()));
        assert_eq!(found("dav.example"), ana);
        assert_eq!(found("other.example").unwrap().0, "bob");
        for none in ["half.example", "elsewhere.example", "default", "init"] {
            assert_eq!(found(none), None, "{none}");
        }
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(".netrc"), text).unwrap();
        let env = HashMap::from([("HOME".to_owned(), home.path().into())]);
        assert_eq!(netrc(&env, "dav.example").unwrap(), ana);
        let env = HashMap::from([("NETRC".to_owned(), "/nowhere/at/all".into())]);
        assert_eq!(netrc(&env, "dav.example").unwrap(), None);
    }
}
