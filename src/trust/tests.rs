//! The table of what is believed and what is refused.

use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};

use super::*;
use crate::digest::Digest;

const LINE: &str = r#"{"domain":"ana","key":"00"}"#;

/// The key of this name; the same in every test.
fn key(name: &str) -> SecretKey {
    SecretKey::from_bytes(name, Digest::of(name.as_bytes()).as_bytes()).unwrap()
}

fn domain(name: &str, keys: &[&str]) -> Domain {
    Domain {
        name: name.to_owned(),
        keys: keys.iter().map(|name| key(name).public()).collect(),
        write_as: None,
    }
}

fn trust() -> Trust {
    Trust {
        domains: vec![
            domain("ana", &["ana-1", "ana-2", "carol-1"]),
            domain("bob", &["bob-1"]),
            domain("carol", &["carol-1"]),
        ],
        revoked: vec![key("carol-1").public()],
        ..Trust::default()
    }
}

fn sign(name: &str) -> String {
    key(name).sign(Subject::Record, LINE)
}

fn check(lines: &[&str]) -> Result<String, String> {
    trust()
        .check(Subject::Record, "ana", LINE, lines)
        .map(|signer| signer.name)
        .map_err(|refusal| refusal.to_string())
}

/// The order of the group, as 32 bytes from the lowest; a scalar and that plus this are one.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// `line` with another signature for which the same equation holds: its number is too large.
fn twisted(line: &str) -> String {
    let (name, signature) = key::signature(line).unwrap();
    let mut bytes = signature.to_bytes();
    let mut carry = 0;
    for (byte, order) in bytes[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    with_bytes(name, &bytes)
}

fn with_bytes(name: &str, bytes: &[u8; 64]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    format!("sig {name}:{text}")
}

#[test]
fn what_is_believed_and_what_is_refused() {
    let ana = sign("ana-1");
    let two = sign("ana-2");
    let bob = sign("bob-1");
    let carol = sign("carol-1");
    let dave = sign("dave-1");
    let other_text = key("ana-1").sign(Subject::Record, &LINE.replace("00", "01"));
    let pack = key("ana-1").sign(Subject::Pack, LINE);
    let run = key("ana-1").sign(Subject::Run, LINE);
    let stranger = dave.replace("dave-1", "ana-1");
    let twisted = twisted(&ana);
    let sixteen = [vec![dave.as_str(); 15], vec![ana.as_str()]].concat();
    let seventeen = [vec![dave.as_str(); 16], vec![ana.as_str()]].concat();
    let wrong = Err("its signature by `ana-1` is wrong");
    let unreadable = Err("its signatures cannot be read");
    let revoked = Err("it is signed by `carol-1`, whose key was revoked");
    let unknown = |name| match name {
        "bob-1" => Err("it is signed by `bob-1`, which is no trusted key of its domain"),
        _ => Err("it is signed by `dave-1`, which is no trusted key of its domain"),
    };
    let table: &[(&str, &[&str], Result<&str, &str>)] = &[
        ("good", &[&ana], Ok("ana-1")),
        ("another key of the domain", &[&two], Ok("ana-2")),
        ("the first good one", &[&dave, &two, &ana], Ok("ana-2")),
        ("unsigned", &[], Err("it is not signed")),
        ("unknown", &[&dave], unknown("dave-1")),
        ("of another domain", &[&bob], unknown("bob-1")),
        ("revoked", &[&carol], revoked),
        ("revoked beside a good one", &[&carol, &ana], Ok("ana-1")),
        ("wrong beside a good one", &[&other_text, &two], Ok("ana-2")),
        ("replayed over another text", &[&other_text], wrong),
        ("of a pack", &[&pack], wrong),
        ("of a run", &[&run], wrong),
        ("same name, other key", &[&stranger], wrong),
        ("malleable", &[&twisted], wrong),
        ("the gravest reason", &[&dave, &carol, &pack], wrong),
        ("the graver reason", &[&dave, &carol], revoked),
        ("sixteen", &sixteen, Ok("ana-1")),
        ("seventeen", &seventeen, unreadable),
        ("empty line", &[&ana, ""], unreadable),
        ("no name", &[&ana.replace("ana-1", "")], unreadable),
        ("no number", &[&ana.replace("ana-1", "ana")], unreadable),
        ("large letters", &[&ana.replace("ana", "ANA")], unreadable),
        ("no colon", &[&ana.replace(':', "")], unreadable),
        ("cut off", &[&ana[..ana.len() - 1]], unreadable),
        ("not padded", &[ana.trim_end_matches('=')], unreadable),
        ("too long", &[&format!("{ana}A")], unreadable),
        ("a blank after it", &[&format!("{ana} ")], unreadable),
        ("a return after it", &[&format!("{ana}\r")], unreadable),
        ("not base 64", &[&ana.replacen(':', ":-", 1)], unreadable),
        (
            "letters beyond",
            &[&format!("sig ana-1:{}", "é".repeat(44))],
            unreadable,
        ),
        ("no sig", &[&ana[4..]], unreadable),
        (
            "a key",
            &[&format!("sig {}", key("ana-1").public())],
            unreadable,
        ),
        (
            "long name",
            &[&ana.replace("ana", &"a".repeat(99))],
            unreadable,
        ),
    ];
    for (what, lines, expected) in table {
        let found = check(lines);
        let found = found.as_deref().map_err(String::as_str);
        assert_eq!(found, *expected, "{what}");
    }
}

#[test]
fn the_domain_counts() {
    let trust = trust();
    let bob = sign("bob-1");
    let in_domain = |domain, line: &str| trust.check(Subject::Record, domain, LINE, &[line]);
    assert_eq!(in_domain("bob", &bob).unwrap().name, "bob-1");
    let refusal = in_domain("dave", &bob).unwrap_err();
    assert_eq!(refusal, Refusal::UnknownDomain);
    assert_eq!(refusal.to_string(), "its domain is none that you trust");
    let nobody = Trust::default();
    let refusal = nobody.check(Subject::Record, "bob", LINE, &[&bob]);
    assert_eq!(refusal, Err(Refusal::UnknownDomain));
    // All keys of the domain `carol` were revoked: there is nothing to read in it.
    assert_eq!(trust.domains().collect::<Vec<_>>(), ["ana", "bob"]);
}

#[test]
fn where_signatures_are_not_required_only_their_absence_is_let_through() {
    let trust = Trust {
        unsigned: true,
        ..trust()
    };
    let check = |lines: &[&str]| trust.check(Subject::Record, "ana", LINE, lines);
    assert_eq!(check(&[]).unwrap().name, "nobody");
    assert_eq!(check(&[&sign("ana-1")]).unwrap().name, "ana-1");
    let wrong = key("ana-1").sign(Subject::Pack, LINE);
    let refusal = Refusal::WrongSignature("ana-1".into());
    assert_eq!(check(&[&wrong]), Err(refusal));
    let refusal = Refusal::Revoked("carol-1".into());
    assert_eq!(check(&[&sign("carol-1")]), Err(refusal));
    assert_eq!(check(&["sig"]), Err(Refusal::Malformed));
    let other = trust.check(Subject::Record, "dave", LINE, &[]);
    assert_eq!(other, Err(Refusal::UnknownDomain));
}

#[test]
fn every_flipped_bit_of_a_signature_and_of_its_line_is_found() {
    let good = sign("ana-1");
    let (name, signature) = key::signature(&good).unwrap();
    for bit in 0..512 {
        let mut bytes = signature.to_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let refusal = check(&[&with_bytes(name, &bytes)]).unwrap_err();
        assert_eq!(refusal, "its signature by `ana-1` is wrong", "bit {bit}");
    }
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone().into_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(line) = String::from_utf8(bytes) {
            assert!(check(&[&line]).is_err(), "bit {bit}: {line}");
        }
    }
    for bit in 0..LINE.len() * 8 {
        let mut bytes = LINE.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(line) = String::from_utf8(bytes) {
            let refusal = trust().check(Subject::Record, "ana", &line, &[&good]);
            assert!(refusal.is_err(), "bit {bit}: {line}");
        }
    }
}

#[test]
fn a_key_for_which_anybody_can_sign_is_none() {
    // The neutral element: under a check that is not strict, this signature is good for any text.
    let mut bytes = [0; 32];
    bytes[0] = 1;
    let weak = VerifyingKey::from_bytes(&bytes).unwrap();
    let mut signature = [0; 64];
    signature[0] = 1;
    assert!(
        weak.verify(b"any text", &Signature::from_bytes(&signature))
            .is_ok()
    );
    let public = PublicKey {
        name: "ana-3".to_owned(),
        key: weak,
    };
    let refusal = public.to_string().parse::<PublicKey>().unwrap_err();
    assert!(
        refusal.to_string().contains("anybody could sign for it"),
        "{refusal}"
    );
    // Should one ever get in, its signatures are refused.
    let mut trust = trust();
    trust.domains[0].keys.push(public);
    let line = with_bytes("ana-3", &signature);
    let refusal = trust.check(Subject::Record, "ana", LINE, &[&line]);
    assert_eq!(refusal, Err(Refusal::WrongSignature("ana-3".into())));
}

/// Made by another program, from the secret key of 32 bytes 7 and the published BLAKE3 of `abc`.
/// Every later version must write and take the same.
#[test]
fn keys_and_signatures_are_written_as_ever() {
    let key = SecretKey::from_bytes("ana-1", &[7; 32]).unwrap();
    assert_eq!(
        key.public().to_string(),
        "ana-1:6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw="
    );
    for (subject, text) in [
        (
            Subject::Record,
            "sFEoG5OWkrLUX9r2PJv4RVv1YhVo1xIO11ZzpkbRepSlWE989oGmiapThdfDppOfJLyDcV+H9X3++TzxhpcxAA==",
        ),
        (
            Subject::Pack,
            "KBjJzwcR5SzsX34Vn2+j8fKTST0mR/WeB5L7Ib4w6uQ6Zp++kmjYTqQz7EottttQsmYM0W1In6lV0jw+foWDDw==",
        ),
        (
            Subject::Run,
            "xJAmd0Tv0beDBf4AxlG6qoX6B6l8zxbpU8vFXuDgLM34W4ZweHhO+7qOC+7Mwd0TgjaxBQoKZCyecGU4LinADw==",
        ),
    ] {
        assert_eq!(key.sign(subject, "abc"), format!("sig ana-1:{text}"));
    }
    assert_eq!(
        *key.to_file(),
        "runner-secret ana-1:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n"
    );
}

#[test]
fn texts_that_are_no_public_key_say_why() {
    let good = key("ana-1").public().to_string();
    assert_eq!(good.parse::<PublicKey>().unwrap(), key("ana-1").public());
    for (text, reason) in [
        (String::new(), "there is no `:` in it"),
        (good.replace("ana-1", "Ana"), "as a key's name"),
        (good.replace("ana-1", "../ana-1"), "as a key's name"),
        (good.replace("ana-1", "-1"), "as a key's name"),
        (good.replace("ana-1", "ana-"), "as a key's name"),
        (good.replace("ana-1", "ana-1-x"), "as a key's name"),
        (good.replace("ana", &"a".repeat(63)), "as a key's name"),
        (good.replace('=', ""), "not base 64"),
        (format!("{good}\n"), "not base 64"),
        (good.replace(':', ":AAAA"), "not 32 bytes"),
        // A `y` for which no point lies on the curve.
        (format!("ana-1:Ag{}=", "A".repeat(41)), "no key"),
    ] {
        let error = text.parse::<PublicKey>().unwrap_err();
        assert!(error.to_string().contains(reason), "{text}: {error}");
        assert!(error.is_usage());
    }
    // What was pasted by mistake is in no message.
    let secret = key("ana-1").to_file();
    let error = secret.parse::<PublicKey>().unwrap_err().to_string();
    assert!(error.contains("keep that file to yourself"), "{error}");
    assert!(!error.contains(&secret[20..40]), "{error}");
}

#[test]
fn a_secret_key_shows_only_its_name() {
    let key = key("ana-1");
    assert_eq!(format!("{key:?}"), "SecretKey(ana-1)");
    let trust = Trust {
        secret: Some(key.clone()),
        ..trust()
    };
    let bytes = key.to_file();
    let text = bytes.trim_end().rsplit(':').next().unwrap();
    assert!(!format!("{trust:?}").contains(text));
    // Two new keys are two.
    let new = || SecretKey::new("ana-1").unwrap().public();
    assert_ne!(new(), new());
}
