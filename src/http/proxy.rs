//! Which proxy a server is reached through, by the environment's usual variables.

use std::{ffi::OsString, net::IpAddr};

use anyhow::{Result, anyhow, ensure};
use ureq::Proxy;

/// A proxy and the variable that named it.
pub(crate) struct Chosen {
    pub(crate) proxy: Proxy,
    pub(crate) variable: &'static str,
}

/// The proxy for a host, if one is set.
///
/// `https_proxy` or `http_proxy` by the address's scheme, else `all_proxy`; small
/// letters before capital ones. `no_proxy` lists hosts, domains, addresses and
/// networks that are reached directly, `*` for all. This machine always is.
///
/// # Errors
/// When the variable holds no usable address; it is named, but not shown, since it
/// may hold a password.
pub(crate) fn choose(
    https: bool,
    host: &str,
    port: u16,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<Chosen>> {
    let host = host
        .trim_matches(['[', ']'])
        .trim_end_matches('.')
        .to_ascii_lowercase();
    let set = |names: &[&'static str]| {
        names.iter().find_map(|&name| {
            let value = env(name)?.to_string_lossy().trim().to_owned();
            (!value.is_empty()).then_some((name, value))
        })
    };
    let without = set(&["no_proxy", "NO_PROXY"])
        .map(|(_, list)| list)
        .unwrap_or_default();
    if is_this_machine(&host) || is_listed(&host, port, &without) {
        return Ok(None);
    }
    let names: &[&'static str] = if https {
        &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    } else {
        &["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]
    };
    let Some((variable, value)) = set(names) else {
        return Ok(None);
    };
    let proxy = Proxy::new(&value)
        .map_err(|_| anyhow!("the environment variable `{variable}` holds no proxy's address"))?;
    let scheme = value.split_once("://").map_or("http", |(scheme, _)| scheme);
    ensure!(
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"),
        "the environment variable `{variable}` names a proxy that is not an HTTP one\n\
         hint: to reach `{host}` directly, add it to `no_proxy`"
    );
    Ok(Some(Chosen { proxy, variable }))
}

/// Whether a host, in small letters and without brackets, is the machine itself.
pub(crate) fn is_this_machine(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback() || ip.is_unspecified())
}

fn is_listed(host: &str, port: u16, list: &str) -> bool {
    list.split([',', ' ', '\t'])
        .map(|entry| entry.trim().to_ascii_lowercase())
        .filter(|entry| !entry.is_empty())
        .any(|entry| matches(host, port, &entry))
}

fn matches(host: &str, port: u16, entry: &str) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some(inside) = in_network(host, entry) {
        return inside;
    }
    let (name, wanted) = match entry.rsplit_once(':') {
        // An IPv6 address has more colons than one.
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => {
            match digits.parse::<u16>() {
                Ok(number) => (name, Some(number)),
                Err(_) => (entry, None),
            }
        }
        _ => (entry, None),
    };
    if wanted.is_some_and(|wanted| wanted != port) {
        return false;
    }
    let name = name.trim_matches(['[', ']']);
    let name = name.strip_prefix('*').unwrap_or(name).trim_matches('.');
    !name.is_empty()
        && (host == name
            || host
                .strip_suffix(name)
                .is_some_and(|rest| rest.ends_with('.')))
}

/// Whether a host is in a network such as `10.0.0.0/8`; `None` where either is not
/// an address.
fn in_network(host: &str, entry: &str) -> Option<bool> {
    let (network, bits) = entry.split_once('/')?;
    let bits: u32 = bits.parse().ok()?;
    let same = |a: u128, b: u128, width: u32| {
        bits <= width && (bits == 0 || (a ^ b) >> (width - bits) == 0)
    };
    match (host.parse().ok()?, network.parse().ok()?) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            Some(same(u128::from(a.to_bits()), u128::from(b.to_bits()), 32))
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => Some(same(a.to_bits(), b.to_bits(), 128)),
        _ => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(url: (bool, &str), variables: &[(&str, &str)]) -> Option<&'static str> {
        let env = |name: &str| {
            let found = variables.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| OsString::from(value))
        };
        choose(url.0, url.1, 8000, &env)
            .unwrap()
            .map(|c| c.variable)
    }

    #[test]
    fn the_variable_of_the_scheme_comes_before_that_for_all() {
        let all = [
            ("ALL_PROXY", "http://all:1"),
            ("HTTPS_PROXY", "http://s:1"),
            ("http_proxy", "h:1"),
        ];
        assert_eq!(chosen((true, "a.org"), &all), Some("HTTPS_PROXY"));
        assert_eq!(chosen((false, "a.org"), &all), Some("http_proxy"));
        assert_eq!(chosen((false, "a.org"), &all[..2]), Some("ALL_PROXY"));
        assert_eq!(chosen((true, "a.org"), &[("http_proxy", "h:1")]), None);
        assert_eq!(chosen((true, "a.org"), &[("https_proxy", " ")]), None);
    }

    #[test]
    fn this_machine_is_never_reached_through_a_proxy() {
        let all = [("all_proxy", "http://p:1")];
        for host in [
            "localhost",
            "LocalHost",
            "a.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "0.0.0.0",
        ] {
            assert_eq!(chosen((false, host), &all), None, "{host}");
        }
        assert_eq!(chosen((false, "mylocalhost"), &all), Some("all_proxy"));
    }

    #[test]
    fn hosts_domains_ports_and_networks_can_be_excepted() {
        for (host, list, direct) in [
            ("llm.uni.edu", "uni.edu", true),
            ("llm.uni.edu", ".uni.edu", true),
            ("llm.uni.edu", "*.uni.edu, other", true),
            ("llm.uni.edu", "llm.uni.edu:8000", true),
            ("llm.uni.edu", "llm.uni.edu:9000", false),
            ("llmuni.edu", "uni.edu", false),
            ("10.1.2.3", "10.0.0.0/8", true),
            ("11.1.2.3", "10.0.0.0/8", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "0.0.0.0/0", true),
            ("[fd00::1]", "fd00::/8", true),
            ("[fd00::1]", "fd00::1", true),
            ("a.org", "10.0.0.0/99,*", true),
            ("10.1.2.3", "10.0.0.0/99", false),
            ("a.org", ",. ,", false),
        ] {
            let set = [("HTTP_PROXY", "http://p:1"), ("NO_PROXY", list)];
            assert_eq!(
                chosen((false, host), &set).is_none(),
                direct,
                "{host} and {list}"
            );
        }
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_named_but_not_shown() {
        for value in [
            "socks5://me:secret@p:1",
            "http://me:secret@",
            "ftp://secret",
        ] {
            let env = |name: &str| (name == "ALL_PROXY").then(|| OsString::from(value));
            let error = choose(true, "a.org", 443, &env).err().unwrap().to_string();
            assert!(
                error.contains("`ALL_PROXY`") && !error.contains("secret"),
                "{error}"
            );
        }
    }
}
