//! Archives and pickles that lie, written byte by byte: each is refused by name.

use std::io::Cursor;

use super::{super::*, crafted::*, open, torch::fixture};

#[test]
fn an_honest_archive_is_read() {
    let value = dict(&[
        ("x", tensor(("FloatStorage", 4, 1, &[3], &[1]))),
        ("y", tensor(("FloatStorage", 4, 0, &[2, 2], &[1, 2]))),
    ]);
    let mut weights = open(&archive(&value)).unwrap();
    assert_eq!(weights.take_f32("x", &[3]).unwrap(), [2.0, 3.0, 4.0]);
    let turned = weights.take_f32("y", &[2, 2]).unwrap();
    assert_eq!(turned, [1.0, 3.0, 2.0, 4.0]);
}

#[test]
fn tensors_that_lie_are_refused_by_name() {
    let big = 1 << 40;
    let cases: &[(Claim<'_>, &str)] = &[
        (
            ("FloatStorage", 100, 0, &[100], &[1]),
            "has 16 bytes instead of the 400",
        ),
        (
            ("FloatStorage", 3, 0, &[3], &[1]),
            "has 16 bytes instead of the 12",
        ),
        (
            ("HalfStorage", 4, 0, &[4], &[1]),
            "has 16 bytes instead of the 8",
        ),
        (
            ("FloatStorage", big << 30, 0, &[4], &[1]),
            "no possible length",
        ),
        (("FloatStorage", -4, 0, &[4], &[1]), "no possible length"),
        (
            ("QInt8Storage", 4, 0, &[4], &[1]),
            "`torch.QInt8Storage` is not read",
        ),
        (
            ("FloatStorage", 4, 0, &[5], &[1]),
            "does not fit its storage of 4",
        ),
        (("FloatStorage", 4, 1, &[4], &[1]), "at 1 does not fit"),
        (("FloatStorage", 4, 5, &[0], &[1]), "at 5 does not fit"),
        (("FloatStorage", 4, 0, &[2, 2], &[3, 1]), "does not fit"),
        (("FloatStorage", 4, 0, &[2], &[big << 22]), "does not fit"),
        (("FloatStorage", 4, 0, &[big, big], &[1, 1]), "does not fit"),
        (("FloatStorage", 4, 0, &[big, big], &[0, 0]), "does not fit"),
        (
            ("FloatStorage", 4, 0, &[big, big, 0], &[1, 1, 1]),
            "does not fit",
        ),
        (
            ("FloatStorage", 4, big << 40, &[1], &[1]),
            "offset is no whole number",
        ),
        (
            ("FloatStorage", 4, -1, &[1], &[1]),
            "offset is no whole number",
        ),
        (("FloatStorage", 4, 3, &[4], &[-1]), "strides are no list"),
        (("FloatStorage", 4, 0, &[-4], &[1]), "shape is no list"),
        (
            ("FloatStorage", 4, 0, &[2, 2], &[1]),
            "2 dimensions and 1 strides",
        ),
        (("FloatStorage", 4, 0, &[1; 9], &[1; 9]), "9 dimensions"),
        // One element again and again.
        (
            ("FloatStorage", 4, 0, &[4, 1 << 20], &[1, 0]),
            "repeats elements beyond the file's size",
        ),
    ];
    for (claim, reason) in cases {
        let bytes = archive(&dict(&[("head.weight", tensor(*claim))]));
        refused(&bytes, reason);
        refused(&bytes, "tensor `head.weight`: ");
    }
}

#[test]
fn dicts_that_hold_no_sound_tensors_are_refused() {
    let good = || tensor(("FloatStorage", 4, 0, &[4], &[1]));
    let call = |name: &str| format!("ctorch._utils\n{name}\n)R").into_bytes();
    let odd_key = [b"}(K\x01".as_slice(), &good(), b"u"].concat();
    let missing = [&good()[..], b"0"].concat();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (dict(&[("a", good()), ("a", good())]), "`a` is there twice"),
        (
            dict(&[("a", call("_rebuild_qtensor"))]),
            "`torch._utils._rebuild_qtensor`",
        ),
        (dict(&[("a", call("_rebuild_tensor_v2"))]), "of 0 arguments"),
        (
            dict(&[("a", b"cos\nsystem\n(Vls\ntR".to_vec())]),
            "a dict of `a`, no state dict",
        ),
        (dict(&[("epoch", b"K\x03".to_vec())]), "a dict of `epoch`"),
        (odd_key, "an int is a key"),
        (b"N".to_vec(), "it holds None"),
        ([&missing[..], b"N"].concat(), "it holds None"),
        (good(), "an object of `torch._utils._rebuild_tensor_v2`"),
        (b"(".to_vec(), "byte 3 of the pickle: "),
    ];
    for (value, reason) in cases {
        refused(&archive(&value), reason);
    }
}

#[test]
fn names_that_are_used_again_and_again_are_refused() {
    let tensor = tensor(("FloatStorage", 4, 0, &[4], &[1]));
    // A long name is remembered, and stands before many values that are no tensors.
    let long = [text(&"x".repeat(4000)), b"q\x00".to_vec(), tensor].concat();
    let state = |times| [b"}(", &long[..], &b"h\x00N".repeat(times), b"u"].concat();
    open(&archive(&state(10))).unwrap();
    refused(&archive(&state(100)), "its names have 16 times the bytes");

    // Modules hold one another, each under that name.
    let class = b"c__torch__\nM\n)\x81}(".as_slice();
    let nested = |depth: usize| {
        let inner = [class, b"h\x00"].concat().repeat(depth);
        let ends = b"ub".repeat(depth + 1);
        let module = [class, &long, b"h\x00", &inner, b"N", &ends].concat();
        let data: Vec<u8> = [1f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat();
        Zip::of(&[
            ("any/data.pkl", &pickled(&module)),
            ("any/code/__torch__.py", b""),
            ("any/data/0", &data),
        ])
        .end()
    };
    assert_eq!(open(&nested(2)).unwrap().tensors().len(), 1);
    refused(&nested(9), "its names have 16 times the bytes");
}

#[test]
fn wrappers_around_tensors_are_looked_through_but_not_for_ever() {
    let wrap = |inner: &[u8]| {
        let start = b"ctorch._utils\n_rebuild_parameter\n(".as_slice();
        [start, inner, b"\x88NtR"].concat()
    };
    let mut value = tensor(("FloatStorage", 4, 0, &[4], &[1]));
    value = wrap(&value);
    open(&archive(&dict(&[("a", value.clone())]))).unwrap();
    for _ in 0..9 {
        value = wrap(&value);
    }
    refused(&archive(&dict(&[("a", value)])), "too many wrappers");
    // A wrapper around itself.
    let cycle = b"]q\x00ctorch._utils\n_rebuild_parameter\n(h\x00h\x00h\x00tRq\x01ah\x01".to_vec();
    refused(
        &archive(&dict(&[("a", [&cycle[..], b"q\x020h\x02"].concat())])),
        "a key has no value",
    );
}

#[test]
fn elements_stored_conjugated_or_negated_are_refused() {
    let bits = |set: u8| {
        let mut value = tensor(("FloatStorage", 4, 0, &[4], &[1]));
        value.truncate(value.len() - 2);
        [
            value,
            b"}".to_vec(),
            text("neg"),
            vec![set],
            b"stR".to_vec(),
        ]
        .concat()
    };
    open(&archive(&dict(&[("a", bits(0x89))]))).unwrap();
    refused(
        &archive(&dict(&[("a", bits(0x88))])),
        "conjugated or negated",
    );
}

#[test]
fn views_of_one_storage_may_not_add_up_to_much_more_than_the_file() {
    let names: Vec<String> = (0..10_000).map(|i| i.to_string()).collect();
    let first = tensor(("FloatStorage", 1024, 0, &[1024], &[1]));
    let mut value = [b"}(".as_slice(), &text("first"), &first, b"q\x00"].concat();
    for name in &names {
        value.extend([&text(name)[..], b"h\x00"].concat());
    }
    value.extend(b"u");
    let data = [0; 4096];
    let pickle = pickled(&value);
    let zip = Zip::of(&[("any/data.pkl", &pickle), ("any/data/0", &data)]);
    // 40 MB of tensors in a file of 0.1 MB.
    refused(&zip.end(), "with it the tensors have 16 times the bytes");
}

#[test]
fn directories_that_lie_are_refused() {
    let value = dict(&[("x", tensor(("FloatStorage", 4, 0, &[4], &[1])))]);
    let pickle = pickled(&value);
    let good = || Zip::of(&[("any/data.pkl", &pickle), ("any/data/0", &[0; 16])]);
    open(&good().end()).unwrap();
    open(&commented(&good(), b"made by hand")).unwrap();

    let mut zip = good();
    zip.add("any/data/0", &[0; 16]);
    refused(&zip.end(), "`any/data/0` is there twice");
    zip = good();
    zip.add("other/data.pkl", b"N.");
    refused(&zip.end(), "two archives, `any` and `other`");
    refused(
        &Zip::of(&[("data.pkl", &pickle)]).end(),
        "without the `data.pkl`",
    );
    refused(
        &Zip::of(&[("any/data.pkl", &pickle)]).end(),
        "`data/0` is missing",
    );
    zip = good();
    zip.add("any/byteorder", b"big");
    refused(&zip.end(), "byte order is `big`");
    zip = Zip::of(&[("any/data.pkl", &pickle)]);
    zip.deflate("any/data/0", &[0; 16]);
    refused(&zip.end(), "`data/0` is compressed\nhint: save it again");
    zip = Zip::of(&[("any/data.pkl", &pickle)]);
    zip.add_as("any/data/0", &[0; 16], 16, 12);
    refused(&zip.end(), "compressed by method 12");
    zip = Zip::of(&[("any/data.pkl", &pickle)]);
    zip.add_as("any/data/0", &[0; 16], 99, 0);
    refused(&zip.end(), "contradicts itself about its length");

    let changed = |at: usize, to: &[u8]| {
        let mut zip = good();
        let entry = 46 + "any/data.pkl".len();
        zip.directory[entry + at..entry + at + to.len()].copy_from_slice(to);
        zip.end()
    };
    refused(&changed(8, &[1, 0]), "is encrypted");
    refused(&changed(42, &[0; 4]), "is not where the directory says");
    refused(
        &changed(42, &[0xff, 0xff, 0xff, 0x7f]),
        "does not lie in the file",
    );
    refused(&changed(42, &[0xff; 4]), "length is missing");
    refused(
        &changed(20, &[200, 0, 0, 0, 200, 0, 0, 0]),
        "does not lie in the file",
    );
    refused(&changed(46, b"\xff"), "not UTF-8");
    refused(&changed(46, b"A"), "another name at its place");
    refused(&changed(0, b"XX"), "directory is malformed");
    refused(&changed(28, &[0xff, 0xff]), "ends too early");

    // The first member is said to reach into the second.
    let mut zip = good();
    let len = (pickle.len() as u32 + 40).to_le_bytes();
    zip.directory[20..28].copy_from_slice(&[len, len].concat());
    refused(&zip.end(), "`any/data.pkl` and `any/data/0` overlap");

    let ended = |at: usize, to: u8| {
        let mut bytes = good().end();
        let end = bytes.len() - 22;
        bytes[end + at] = to;
        bytes
    };
    refused(&ended(4, 1), "split zip archive");
    refused(&ended(8, 3), "split zip archive");
    refused(&ended(12, 0), "not where it says");
    refused(&ended(15, 0x80), "which is too much");
    refused(&ended(16, 0), "not where it says");
    refused(&ended(20, 1), "no zip directory");
    let mut bytes = good().end();
    let end = bytes.len() - 22;
    bytes[end + 8..end + 12].copy_from_slice(&[1, 0, 1, 0]);
    refused(&bytes, "more members than it says");
    bytes = good().end();
    bytes.push(0);
    refused(&bytes, "no zip directory");
}

fn commented(zip: &Zip, comment: &[u8]) -> Vec<u8> {
    let mut bytes = zip.end();
    let len = bytes.len();
    bytes[len - 2..].copy_from_slice(&(comment.len() as u16).to_le_bytes());
    bytes.extend_from_slice(comment);
    bytes
}

#[test]
fn wide_directories_must_agree_with_narrow_ones() {
    let value = dict(&[("x", tensor(("FloatStorage", 4, 0, &[4], &[1])))]);
    let zip = Zip::of(&[("any/data.pkl", &pickled(&value)), ("any/data/0", &[0; 16])]);
    let wide = |count: u64, start: u64, at: u64| {
        let narrow = zip.end();
        let (before, end) = narrow.split_at(narrow.len() - 22);
        let mut bytes = before.to_vec();
        bytes.extend_from_slice(b"PK\x06\x06");
        bytes.extend_from_slice(&44u64.to_le_bytes());
        bytes.extend_from_slice(&[0; 12]);
        for number in [count, count, zip.directory.len() as u64, start] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(b"PK\x06\x07\0\0\0\0");
        bytes.extend_from_slice(&at.to_le_bytes());
        bytes.extend_from_slice(&[1, 0, 0, 0]);
        bytes.extend_from_slice(end);
        bytes
    };
    let (start, at) = (zip.data.len() as u64, zip.end().len() as u64 - 22);
    open(&wide(2, start, at)).unwrap();
    refused(&wide(3, start, at), "contradict each other");
    refused(&wide(2, start + 1, at), "contradict each other");
    refused(&wide(2, start, at - 1), "not where it says");
    refused(&wide(2, start, u64::MAX), "not where it says");
}

#[test]
fn bombs_of_compressed_source_or_pickle_stay_small() {
    let zeros = vec![0; 65 << 20];
    let mut zip = Zip::default();
    zip.deflate("any/data.pkl", &zeros);
    refused(&zip.end(), "`data.pkl` is longer than 67108864");
    zip = Zip::of(&[("any/data.pkl", &pickled(&module(&[])))]);
    zip.deflate("any/code/__torch__.py", &zeros);
    refused(&zip.end(), "`code/__torch__.py` is longer than 67108864");
}

fn module(attributes: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let start = b"c__torch__\nNet\n)\x81".to_vec();
    [start, dict(attributes), b"b".to_vec()].concat()
}

fn script(value: &[u8]) -> Vec<u8> {
    let mut zip = Zip::of(&[("any/data.pkl", &pickled(value)), ("any/data/0", &[0; 16])]);
    zip.add("any/constants.pkl", b"\x80\x02).");
    zip.end()
}

#[test]
fn modules_without_end_are_refused() {
    let leaf = || tensor(("FloatStorage", 4, 0, &[4], &[1]));
    let mut nested = module(&[("w", leaf())]);
    for _ in 0..64 {
        nested = module(&[("a", nested)]);
    }
    let name = format!("{}w", "a.".repeat(64));
    let weights = open(&script(&nested)).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), [name]);
    refused(&script(&module(&[("a", nested)])), "deeper than 64");
    // A module that is its own child.
    let cycle = b"c__torch__\nNet\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb";
    refused(&script(cycle), "deeper than 64");
    // Forty levels, each with two names for the one below.
    let mut laughs = [module(&[("w", leaf())]), b"q\x00".to_vec()].concat();
    for _ in 0..40 {
        let both = module(&[("a", b"h\x00".to_vec()), ("b", b"h\x00".to_vec())]);
        laughs = [laughs, b"0".to_vec(), both, b"q\x00".to_vec()].concat();
    }
    refused(&script(&laughs), "");
    let message = open(&script(&laughs)).unwrap_err().to_string();
    let bounded = [
        "more than 1048576 attributes",
        "times the bytes of the file",
    ];
    assert!(
        bounded.iter().any(|part| message.contains(part)),
        "{message}"
    );
}

#[test]
fn trees_that_are_no_modules_are_refused() {
    for (value, reason) in [
        (&b"K\x01"[..], "holds an int, not a TorchScript module"),
        (b"cos\nsystem\n)R", "holds an object, not a TorchScript"),
        (b"c__torch__\nNet\n)\x81", "module `` has no attributes"),
        (b"c__torch__\nNet\n)\x81}K\x01Nsb", "has an int as a name"),
    ] {
        refused(&script(value), reason);
    }
    let lying = tensor(("FloatStorage", 4, 0, &[5], &[1]));
    let value = module(&[("a", module(&[("w", lying)]))]);
    refused(&script(&value), "tensor `a.w`: shape [5]");
}

#[test]
fn pointers_and_other_pickles_are_named() {
    refused(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "a pointer of Git LFS",
    );
    let legacy = std::fs::read(fixture("legacy.pt")).unwrap();
    let mut bytes = legacy.clone();
    bytes[18] ^= 1;
    refused(&bytes, "its version is 1000, not 1001");
    bytes = legacy.clone();
    bytes.push(0);
    refused(&bytes, "1 bytes follow its storages");
    refused(&legacy[..legacy.len() - 1], "may be truncated");
}

/// Reads all tensors of what may be broken, if it can be opened.
fn try_all(bytes: &[u8]) -> bool {
    let mut file = Cursor::new(bytes);
    let Ok((_, found)) = open::read(&mut file, bytes.len() as u64) else {
        return false;
    };
    let all: usize = found.entries.values().map(Entry::len).sum();
    assert!(all <= 16 * bytes.len(), "{all} bytes of tensors");
    for (name, entry) in &found.entries {
        let mut len = 0;
        (entry.read(std::slice::from_mut(&mut file), |piece| len += piece.len())).expect(name);
        assert_eq!(len, entry.len(), "{name}");
    }
    true
}

#[test]
fn every_truncation_and_every_flipped_bit_of_an_archive_is_harmless() {
    let good = archive(&dict(&[
        ("x", tensor(("FloatStorage", 4, 1, &[3], &[1]))),
        ("y", tensor(("FloatStorage", 4, 0, &[2, 2], &[1, 2]))),
    ]));
    assert!(try_all(&good));
    for end in 0..good.len() {
        assert!(!try_all(&good[..end]), "{end}");
    }
    for bit in 0..8 * good.len() {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        try_all(&bytes);
    }
}

#[test]
fn every_truncation_and_flipped_byte_of_a_file_of_pytorch_is_harmless() {
    for name in ["torch.pt", "script.pt", "legacy.pt", "checkpoint.pt"] {
        let good = std::fs::read(fixture(name)).unwrap();
        assert!(try_all(&good));
        for end in 0..good.len() {
            assert!(!try_all(&good[..end]), "{name}: {end}");
        }
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            try_all(&bytes);
        }
    }
}
