//! Records of the store: only the record that was asked for is read, all names in it are plain,
//! and what was read is written as it was.

use std::path::{Component, Path};

use runner::{digest::Digest, store::fuzz};
use serde_json::Value;

const DOMAIN: &str = "local";

/// Bytes are tried as a whole file, and as the first line of one: no mutation finds the hash that
/// must follow.
pub fn check(bytes: &[u8]) -> bool {
    let whole = read(bytes);
    let sealed = str::from_utf8(bytes).is_ok_and(|line| read(&fuzz::seal(line)));
    whole || sealed
}

fn read(bytes: &[u8]) -> bool {
    // The key is the file's own where there is one, so that the rest is looked at too.
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap();
    let value: Option<Value> = serde_json::from_slice(line).ok();
    let written = value.as_ref().and_then(|value| value["key"].as_str());
    let key: Option<Digest> = written.and_then(|key| key.parse().ok());
    let other = Digest::of(b"another key");
    assert!(key == Some(other) || fuzz::read(bytes, &other, DOMAIN).is_err());
    let Some(key) = key else { return false };
    let Ok(record) = fuzz::read(bytes, &key, DOMAIN) else {
        return false;
    };
    assert_eq!(record.key, key);
    assert!(fuzz::read(bytes, &key, "ci").is_err());
    for output in &record.outputs {
        let path = Path::new(&output.name);
        let plain = |part| matches!(part, Component::Normal(_));
        assert!(path.components().all(plain), "{}", output.name);
        assert!(
            path.components().count() == output.name.split('/').count(),
            "{}",
            output.name
        );
        assert!(!output.name.contains('\0'), "{}", output.name);
    }
    match fuzz::write(&record, DOMAIN) {
        Ok(again) => {
            assert_eq!(fuzz::read(&again, &key, DOMAIN).unwrap(), record);
            assert_eq!(fuzz::write(&record, DOMAIN).unwrap(), again);
        }
        // Numbers are written out where they were short.
        Err(reason) => assert!(reason.contains("more than 65536"), "{reason}"),
    }
    true
}
