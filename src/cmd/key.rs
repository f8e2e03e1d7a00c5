//! `runner key`: the own key, and those of teammates.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;

use super::{Exit, print, print_json};
use crate::trust::{self, Domain, PublicKey, Trust, TrustError};

/// Keys, and whose results are believed.
#[derive(Subcommand, Debug)]
pub enum KeyCommand {
    /// Make a key that signs your results.
    ///
    /// The first is called after you, as in `ana-1`. A further one, `ana-2`,
    /// signs from then on; the older ones stay trusted.
    ///
    /// Example: runner key new
    New(NewArgs),
    /// Show your key, whom you trust, and whom no more.
    ///
    /// Example: runner key show
    Show(ShowArgs),
    /// Believe results that a teammate's key signed.
    ///
    /// Example: runner key trust bob-1:3q2+7w…
    Trust(TrustArgs),
    /// Refuse whatever a key signed, and will sign: for one that was stolen.
    ///
    /// Example: runner key revoke bob-1
    Revoke(RevokeArgs),
    /// Forget a key that you trusted.
    ///
    /// Example: runner key untrust bob-1
    Untrust(UntrustArgs),
}

/// Arguments of `new`.
#[derive(Args, Debug)]
pub struct NewArgs {
    /// Whose key it is, without a number: ana [default: as before, else your user name].
    #[arg(long)]
    name: Option<String>,
    /// Where your results go in a shared cache [default: as before, else the name].
    #[arg(long)]
    domain: Option<String>,
}

/// Arguments of `show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `trust`.
#[derive(Args, Debug)]
pub struct TrustArgs {
    /// The key: the line that `runner key show` prints for your teammate.
    #[arg(value_name = "NAME:BASE64")]
    key: String,
    /// Where its results lie in a shared cache [default: the name without its number].
    #[arg(long)]
    domain: Option<String>,
}

/// Arguments of `revoke`.
#[derive(Args, Debug)]
pub struct RevokeArgs {
    /// The name of a key that you have, or the whole line of any.
    #[arg(value_name = "NAME|NAME:BASE64")]
    key: String,
}

/// Arguments of `untrust`.
#[derive(Args, Debug)]
pub struct UntrustArgs {
    /// The key's name.
    name: String,
}

/// Runs one of them.
pub(super) fn run(command: &KeyCommand) -> Result<ExitCode> {
    let result = match command {
        KeyCommand::New(args) => new(args),
        KeyCommand::Show(args) => show(args),
        KeyCommand::Trust(args) => believe(args),
        KeyCommand::Revoke(args) => revoke(args),
        KeyCommand::Untrust(args) => untrust(args),
    };
    result.map(|()| ExitCode::SUCCESS).map_err(told)
}

/// Gives an error of the command line its exit code.
fn told(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<TrustError>() {
        Some(wrong) if wrong.is_usage() => Exit::usage(wrong.to_string()),
        _ => error,
    }
}

fn folder() -> Result<PathBuf, TrustError> {
    Trust::folder().ok_or(TrustError::NoFolder)
}

fn new(args: &NewArgs) -> Result<()> {
    let folder = folder()?;
    let trust = Trust::load(&folder)?;
    let owner = match (&args.name, own_key(&trust)) {
        (Some(name), _) => name.clone(),
        (None, Some(key)) => key.owner().to_owned(),
        (None, None) => user()?,
    };
    let made = trust::create(&folder, &owner, args.domain.as_deref())?;
    let name = made.public.name();
    let mut text = format!(
        "made the key `{name}`; it signs your results, in the domain `{}`\n\
         its secret half is `{}`: keep that to yourself\n",
        made.domain,
        made.secret.display()
    );
    if let Some(before) = made.before {
        text.push_str(&format!(
            "`{before}` signs no more; what it signed stays trusted\n"
        ));
    }
    text.push_str(&format!(
        "\n{}\n\ngive this line to your teammates:\n  {}\n",
        made.public,
        invitation(&made.public, &made.domain)
    ));
    print(&text)
}

/// The command with which teammates trust `key`.
fn invitation(key: &PublicKey, domain: &str) -> String {
    if domain == key.owner() {
        format!("runner key trust {key}")
    } else {
        format!("runner key trust {key} --domain {domain}")
    }
}

/// The user's name, as far as it can be a key's.
fn user() -> Result<String> {
    let user = ["USER", "LOGNAME"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .map(|name| reduced(&name))
        .find(|name| !name.is_empty());
    user.ok_or_else(|| {
        Exit::usage("a key needs a name\nhint: give yours, as in `runner key new --name ana`")
    })
}

/// `name` in small letters, without what a key's name cannot have.
fn reduced(name: &str) -> String {
    let plain = |c: char| match c {
        'a'..='z' | '0'..='9' | '.' | '_' => c,
        _ => '_',
    };
    let text: String = name
        .chars()
        .map(|c| plain(c.to_ascii_lowercase()))
        .collect();
    let text = text.trim_matches(['_', '.']);
    text.chars().take(40).collect()
}

/// The key that signs own results.
fn own_key(trust: &Trust) -> Option<&PublicKey> {
    let own = trust.own()?;
    let name = own.write_as.as_deref();
    own.keys.iter().find(|key| Some(key.name()) == name)
}

fn show(args: &ShowArgs) -> Result<()> {
    let folder = folder()?;
    let trust = Trust::load(&folder)?;
    if args.json {
        return print_json(&as_json(&trust, &folder));
    }
    let mut text = String::new();
    match (own_key(&trust), trust.own()) {
        (Some(key), Some(domain)) => {
            text.push_str(&format!(
                "your key, which signs in the domain `{}`:\n  {key}\nfor your teammates:\n  {}\n",
                domain.name,
                invitation(key, &domain.name)
            ));
        }
        _ => text.push_str("you have no key; `runner key new` makes one\n"),
    }
    if let Some(reason) = trust.cannot_write() {
        text.push_str(&format!("nothing is signed: {reason}\n"));
    }
    if trust.all_domains().is_empty() {
        text.push_str("you trust nobody; `runner key trust NAME:BASE64` changes that\n");
    } else {
        text.push_str("trusted, in the order in which they are asked:\n");
    }
    for domain in trust.all_domains() {
        text.push_str(&in_lines(domain, &trust));
    }
    if !trust.revoked().is_empty() {
        text.push_str("revoked:\n");
        for key in trust.revoked() {
            text.push_str(&format!("  {key}\n"));
        }
    }
    if !trust.require_signatures() {
        text.push_str("results without a signature are believed (`require_signatures = false`)\n");
    }
    print(&text)
}

fn in_lines(domain: &Domain, trust: &Trust) -> String {
    let mut text = format!("  {}\n", domain.name);
    for key in &domain.keys {
        let note = if trust.is_revoked(key.name()) {
            "  revoked"
        } else {
            ""
        };
        text.push_str(&format!("    {key}{note}\n"));
    }
    text
}

fn as_json(trust: &Trust, folder: &std::path::Path) -> serde_json::Value {
    let texts = |keys: &[PublicKey]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
    let domains = trust.all_domains().iter();
    let own = own_key(trust).zip(trust.own());
    json!({
        "folder": folder,
        "require_signatures": trust.require_signatures(),
        "own": own.map(|(key, domain)| json!({
            "key": key.to_string(),
            "domain": domain.name,
            "signs": trust.writer().is_some(),
        })),
        "domains": domains
            .map(|domain| json!({"name": domain.name, "keys": texts(&domain.keys)}))
            .collect::<Vec<_>>(),
        "revoked": texts(trust.revoked()),
    })
}

fn believe(args: &TrustArgs) -> Result<()> {
    let key: PublicKey = args.key.trim().parse()?;
    let domain = args.domain.as_deref().unwrap_or(key.owner());
    let name = key.name();
    let text = if trust::add(&folder()?, &key, domain)? {
        format!("trusted `{name}` in the domain `{domain}`\n")
    } else {
        format!("`{name}` was trusted in the domain `{domain}` already\n")
    };
    print(&text)
}

fn revoke(args: &RevokeArgs) -> Result<()> {
    let revoked = trust::revoke(&folder()?, args.key.trim())?;
    let name = revoked.public.name();
    if revoked.already {
        return print(&format!("`{name}` was revoked already\n"));
    }
    let mut text = format!(
        "revoked `{name}`: nothing that it signed is believed here\n\
         tell your teammates:\n  runner key revoke {}\n",
        revoked.public
    );
    if revoked.own {
        text.push_str("it was your key; `runner key new` makes another\n");
    }
    print(&text)
}

fn untrust(args: &UntrustArgs) -> Result<()> {
    let domains = trust::remove(&folder()?, args.name.trim())?;
    print(&format!(
        "forgot `{}`, which was trusted in the domain `{}`\n",
        args.name.trim(),
        domains.join("`, `")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_name_becomes_that_of_a_key() {
        for (user, name) in [
            ("ana", "ana"),
            ("Jean-Luc", "jean_luc"),
            ("EXAMPLE\\bob", "example_bob"),
            ("-", ""),
            ("..", ""),
            ("é", ""),
        ] {
            assert_eq!(reduced(user), name, "{user}");
        }
        assert_eq!(reduced(&"x".repeat(300)).len(), 40);
    }
}
