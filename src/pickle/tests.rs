//! What Python wrote is read exactly; whatever is broken ends in an error.

use super::*;

fn fixture(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/weights");
    std::fs::read(folder.join(name)).unwrap()
}

fn read(bytes: &[u8]) -> Result<Pickle<'_>, PickleError> {
    Pickle::read(bytes, Limits::default())
}

fn ints(value: Value<'_>) -> Vec<i128> {
    let items = value.items().unwrap();
    items.map(|item| item.as_int().unwrap()).collect()
}

/// A set is a value of its own from protocol 4 on, a call before.
fn members(value: Value<'_>) -> Vec<i128> {
    match value.object() {
        Some(object) => ints(object.args.items().unwrap().next().unwrap()),
        None => ints(value),
    }
}

#[test]
fn every_protocol_gives_the_same_values() {
    for protocol in 0..=5 {
        let bytes = fixture(&format!("values-{protocol}.pkl"));
        let pickle = read(&bytes).unwrap();
        let root = pickle.root();
        let get = |key: &str| root.get(key).unwrap_or_else(|| panic!("{protocol}: {key}"));
        assert_eq!(root.entries().unwrap().len(), 15);
        assert!(get("none").is_none());
        let bools: Vec<_> = get("bools").items().unwrap().map(Value::as_bool).collect();
        assert_eq!(bools, [Some(true), Some(false)], "{protocol}");
        let expected = [0, 255, 256, 65536, -1, -(1 << 31), 1 << 31];
        assert_eq!(ints(get("ints"))[..7], expected);
        let large = [1 << 63, -(1i128 << 70), 0x1950_a86a_20f9_469c_fc6c];
        assert_eq!(ints(get("ints"))[7..], large);
        let floats: Vec<_> = (get("floats").items().unwrap())
            .map(|value| value.as_float().unwrap())
            .collect();
        assert_eq!(floats, [0.5, -1e300, f64::INFINITY]);
        assert_eq!(get("text").as_str(), Some("naïve ☃ 𝄞 \\ \n"), "{protocol}");
        assert_eq!(get("bytes").to_bytes().unwrap(), &b"\x00\xff\n'"[..]);
        assert_eq!(get("no bytes").to_bytes().unwrap(), &b""[..]);
        assert_eq!(get("bytearray").to_bytes().unwrap(), &b"\x01\xfe"[..]);
        let lengths: Vec<_> = get("tuples").items().unwrap().map(ints).collect();
        assert_eq!(lengths[4], [1, 2, 3, 4]);
        assert_eq!(
            lengths.iter().map(Vec::len).collect::<Vec<_>>(),
            [0, 1, 2, 3, 4]
        );
        assert_eq!(members(get("set")), [7], "{protocol}");
        assert_eq!(members(get("frozenset")), [8], "{protocol}");
        let ordered = get("ordered");
        let class = ordered.class().unwrap();
        assert_eq!(class.to_string(), "collections.OrderedDict");
        if protocol > 1 {
            assert_eq!(ordered.get("a").unwrap().as_int(), Some(2u8));
            let first = ordered.entries().unwrap().next().unwrap();
            assert_eq!(first.0.as_str(), Some("b"));
        }
        let twice: Vec<_> = get("twice").items().unwrap().map(Value::position).collect();
        assert_eq!(twice[0], twice[1]);
        let cycle = get("cycle");
        let inner = cycle.items().unwrap().nth(1).unwrap();
        assert_eq!(inner.position(), cycle.position());
        assert_eq!(get("class").global(), Some(class));
    }
}

#[test]
fn batches_of_python_2_are_read_with_their_pixels() {
    let all = fixture("cifar-pixels.bin");
    for protocol in 0..=2 {
        let bytes = fixture(&format!("cifar-{protocol}.pkl"));
        let pickle = read(&bytes).unwrap();
        let root = pickle.root();
        assert_eq!(ints(root.get("labels").unwrap()), [3, 8, 8]);
        let names = root.get("filenames").unwrap();
        let names: Vec<_> = names.items().unwrap().map(Value::as_str).collect();
        assert_eq!(names[2], Some("sea_boat_s_001456.png"));
        let pixels = numpy::Array::read(root.get("data").unwrap()).unwrap();
        let width = if protocol == 2 { 3072 } else { 64 };
        assert_eq!(pixels.shape, [3, width], "{protocol}");
        assert_eq!(
            (pixels.dtype, pixels.order, pixels.fortran),
            ("u1", '|', false)
        );
        let expected: Vec<u8> = (all.chunks(3072))
            .flat_map(|image| &image[..width])
            .copied()
            .collect();
        assert_eq!(*pixels.bytes, *expected, "{protocol}");
        // The pickle's bytes are borrowed, not copied.
        assert!(matches!(pixels.bytes, Cow::Borrowed(_)), "{protocol}");
    }
}

#[test]
fn arrays_of_numpy_2_are_read_from_every_protocol() {
    let pixels = fixture("cifar-pixels.bin");
    for protocol in [2, 4, 5] {
        let bytes = fixture(&format!("numpy-{protocol}.pkl"));
        let pickle = read(&bytes).unwrap();
        let get = |key| numpy::Array::read(pickle.root().get(key).unwrap()).unwrap();
        let order = get("order");
        assert_eq!((order.shape.as_slice(), order.fortran), (&[3, 4][..], true));
        let column: Vec<u8> = (0..3).map(|row| pixels[row * 3072]).collect();
        assert_eq!(order.bytes[..3], column);
        let big = get("f4");
        assert_eq!((big.dtype, big.order), ("f4", '>'));
        assert_eq!(big.bytes[..4], 0.5f32.to_be_bytes());
        let scalar = get("i8");
        assert_eq!((scalar.shape.len(), scalar.order), (0, '<'));
        assert_eq!(*scalar.bytes, 7i64.to_le_bytes());
    }
}

#[test]
fn an_array_that_lies_about_its_shape_is_refused() {
    let good = fixture("cifar-2.pkl");
    // BININT2 3072 of the shape becomes one more and 256 fewer.
    let at = good.windows(3).position(|w| w == b"M\x00\x0c").unwrap();
    for (byte, to) in [(at + 1, 1), (at + 2, 0x0b)] {
        let mut bytes = good.clone();
        bytes[byte] = to;
        let pickle = read(&bytes).unwrap();
        let error = numpy::Array::read(pickle.root().get("data").unwrap()).unwrap_err();
        assert!(error.contains("does not fit its 9216 bytes"), "{error}");
    }
    for (value, reason) in [
        (&b"K\x01."[..], "an int is no NumPy array"),
        (b"cnumpy\nndarray\n)R.", "`numpy.ndarray` is no NumPy array"),
        (b"cnumpy.core.multiarray\n_reconstruct\n)R.", "has no state"),
        (b"cnumpy.core.multiarray\n_reconstruct\n)R)b.", "five parts"),
    ] {
        let error = numpy::Array::read(read(value).unwrap().root()).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn calls_are_kept_as_names_and_arguments() {
    let cases: [(&[u8], &str); 5] = [
        (b"cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "REDUCE"),
        (b"cos\nsystem\nX\x02\x00\x00\x00ls\x85\x81.", "NEWOBJ"),
        (b"cos\nsystem\nX\x02\x00\x00\x00ls\x85}\x92.", "NEWOBJ_EX"),
        (b"(Vls\nios\nsystem\n.", "INST"),
        (b"(cos\nsystem\nVls\no.", "OBJ"),
    ];
    for (bytes, case) in cases {
        let pickle = read(bytes).unwrap();
        let object = pickle.root().object().expect(case);
        assert_eq!(object.class.global().unwrap().to_string(), "os.system");
        let args: Vec<_> = object.args.items().unwrap().map(Value::as_str).collect();
        assert_eq!(args, [Some("ls")], "{case}");
        assert_eq!(object.kwargs.is_some(), case == "NEWOBJ_EX");
        assert!(object.state.is_none());
    }
    let pickle = read(b"cm\nC\n)\x81}X\x01\x00\x00\x00aK\x05sb.").unwrap();
    let state = pickle.root().object().unwrap().state.unwrap();
    assert_eq!(state.get("a").unwrap().as_int(), Some(5u8));
}

#[test]
fn persistent_ids_are_kept() {
    let pickle = read(b"(U\x07storagecm\nS\nK\x03tQ.").unwrap();
    let id = pickle.root().persistent().unwrap();
    assert_eq!(
        id.items().unwrap().next().unwrap().as_str(),
        Some("storage")
    );
    let pickle = read(b"Pplace 5\n.").unwrap();
    assert_eq!(
        pickle.root().persistent().unwrap().as_str(),
        Some("place 5")
    );
}

#[test]
fn text_lines_and_escapes_of_protocol_0_are_read() {
    let text = |bytes: &[u8]| read(bytes).unwrap().root().to_bytes().unwrap().into_owned();
    assert_eq!(text(b"S'a\\x41\\n\\\\\"'\n."), b"aA\n\\\"");
    assert_eq!(text(b"S\"it's\"\n."), b"it's");
    assert_eq!(
        read(b"V\\u2603\xe9\\U0001d11e\\n\n.")
            .unwrap()
            .root()
            .as_str(),
        Some("☃é𝄞\\n")
    );
    assert_eq!(read(b"L-12L\n.").unwrap().root().as_int(), Some(-12));
    assert_eq!(read(b"I01\n.").unwrap().root().as_bool(), Some(true));
    assert_eq!(read(b"F-2.5\n.").unwrap().root().as_float(), Some(-2.5));
}

#[test]
fn numbers_do_not_pass_for_one_another() {
    let pickle = read(b"J\xff\xff\xff\xff.").unwrap();
    assert_eq!(pickle.root().as_int(), Some(-1i64));
    assert_eq!(pickle.root().as_int::<usize>(), None);
    assert_eq!(pickle.root().as_bool(), None);
    assert_eq!(pickle.root().as_float(), None);
    assert_eq!(read(b"\x88.").unwrap().root().as_int::<u8>(), None);
}

#[test]
fn a_key_set_twice_is_there_twice_and_the_later_one_is_got() {
    let pickle = read(b"}U\x01aK\x01sX\x01\x00\x00\x00aK\x02s.").unwrap();
    assert_eq!(pickle.root().entries().unwrap().len(), 2);
    assert_eq!(pickle.root().get("a").unwrap().as_int(), Some(2u8));
    assert!(pickle.root().get("b").is_none());
}

#[test]
fn broken_pickles_are_refused_with_the_byte() {
    let cases: &[(&[u8], usize, &str)] = &[
        (b"", 0, "may be truncated"),
        (b".", 0, "takes a value that is not there"),
        (b"NN.", 2, "values left over"),
        (b"N(.", 2, "takes a value that is not there"),
        (b"N..", 2, "1 bytes follow"),
        (b"\x80\x06N.", 0, "protocol 6"),
        (b"N\xff", 1, "no instruction 0xff"),
        (b"h\x05.", 0, "nothing is remembered as 5"),
        (b"q\x00.", 0, "uses a value that is not there"),
        (b"t.", 0, "a mark that is not there"),
        (b"0", 0, "a mark that is not there"),
        (b"N(0.", 3, ""),
        (b"(K\x01d.", 3, "a key has no value"),
        (b"]K\x01s.", 3, "uses a value"),
        (b"]NK\x01s.", 4, "cannot hold"),
        (b"NNa.", 2, "cannot hold"),
        (b"NN\x81.", 2, "not a tuple"),
        (b"N)N\x92.", 3, "not a dict"),
        (b"(o.", 1, "no class"),
        (b"NNb.", 2, "what is no object"),
        (b"N)RNbNb.", 6, "a second state"),
        (b"NN\x93.", 2, "not a text"),
        (b"X\xff\xff\xff\xff.", 0, "may be truncated"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", 0, "truncated"),
        (b"X\x01\x00\x00\x00\xff.", 0, "not UTF-8"),
        (b"\x8a\x11aaaaaaaaaaaaaaaaa.", 0, "17 bytes"),
        (b"\x8b\xff\xff\xff\x7f.", 0, "more than the 16"),
        (b"I1e3\n.", 0, "not a whole number"),
        (
            b"L9999999999999999999999999999999999999999999999L\n.",
            0,
            "128 bits",
        ),
        (b"Fx\n.", 0, "not a number"),
        (b"S'a\n.", 0, "not quoted"),
        (b"S'a\\q'\n.", 0, "not quoted"),
        (b"S'\n.", 0, "not quoted"),
        (b"V\\u12\n.", 0, "wrong escape"),
        (b"V\\ud800\n.", 0, "wrong escape"),
        (b"I1", 0, "has no end"),
        (b"\x95\x03\x00\x00\x00\x00\x00\x00\x00N.", 0, "a frame"),
        (b"\x95\xff\x00\x00\x00\x00\x00\x00\x00N.", 0, "a frame"),
        (b"\x82\x01.", 0, "extension codes"),
        (b"\x97.", 0, "buffers"),
    ];
    for (bytes, offset, reason) in cases {
        match read(bytes) {
            Ok(_) => assert_eq!(*reason, "", "{bytes:?}"),
            Err(error) => {
                assert!(!reason.is_empty(), "{bytes:?}: {error}");
                assert_eq!(error.offset, *offset, "{bytes:?}: {error}");
                assert!(error.to_string().contains(reason), "{bytes:?}: {error}");
            }
        }
    }
}

#[test]
fn values_below_a_mark_are_out_of_reach() {
    // Without the mark this would be a list of one.
    read(b"]K\x01(a.").unwrap_err();
    read(b"]K\x01a.").unwrap();
}

#[test]
fn every_truncation_and_every_flipped_byte_is_harmless() {
    let walk = |pickle: &Pickle<'_>| {
        for value in pickle.values() {
            let _ = (value.to_bytes(), value.class(), value.get("a"));
            let _ = (numpy::Array::read(value), format!("{value:?}"));
        }
    };
    for name in [
        "values-0.pkl",
        "values-2.pkl",
        "values-5.pkl",
        "numpy-4.pkl",
    ] {
        let good = fixture(name);
        for end in 0..good.len() {
            read(&good[..end]).expect_err(name);
        }
        for at in 0..good.len() {
            for flip in [1, 2, 0x20, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] ^= flip;
                if let Ok(pickle) = read(&bytes) {
                    walk(&pickle);
                }
            }
        }
    }
}

#[test]
fn bombs_stay_small() {
    let limits = Limits {
        bytes: 1 << 20,
        values: 10_000,
    };
    let fails = |bytes: &[u8], reason: &str| {
        let error = Pickle::read(bytes, limits).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    };
    fails(&vec![b'N'; (1 << 20) + 1], "more than the 1048576 allowed");
    for byte in [b'N', b'(', b']', b'}', b')'] {
        fails(&vec![byte; 20_000], "more values than the 10000");
    }
    let repeat = |start: &[u8], again: &[u8]| [start, &again.repeat(20_000)].concat();
    fails(&repeat(b"N", b"2"), "more values");
    fails(&repeat(b"Nq\x00", b"h\x00"), "more values");
    fails(&repeat(b"N", b"q\x00"), "more values");
    fails(&repeat(b"N", b"\x94"), "more values");
    // A thousand levels of a list that holds the one below a hundred times:
    // 100^1000 leaves, but a hundred thousand positions.
    let level = [&b"]("[..], &b"h\x00".repeat(100), b"eq\x00"].concat();
    let laughs = [&b"(]q\x00"[..], &level.repeat(1000), b"l."].concat();
    let pickle = read(&laughs).unwrap();
    assert!(pickle.nodes.len() < 1100, "{}", pickle.nodes.len());
}

#[test]
fn a_deep_tree_is_built_and_dropped_without_recursion() {
    let bytes = [b")".as_slice(), &b"\x85".repeat(1_000_000), b"."].concat();
    let pickle = read(&bytes).unwrap();
    let mut value = pickle.root();
    let mut depth = 0;
    while let Some(inner) = value.items().unwrap().next() {
        value = inner;
        depth += 1;
    }
    assert_eq!(depth, 1_000_000);
    // Debug shows a cycle without following it.
    let cycle = b"]q\x00h\x00a.";
    assert_eq!(format!("{:?}", read(cycle).unwrap().root()), "a list");
}

#[test]
fn a_pickle_is_read_from_the_start_of_a_longer_file() {
    let bytes = b"K\x01.K\x02.";
    let (first, len) = Pickle::read_prefix(bytes, Limits::default()).unwrap();
    assert_eq!((first.root().as_int(), len), (Some(1u8), 3));
    let second = read(&bytes[len..]).unwrap();
    assert_eq!(second.root().as_int(), Some(2u8));
}

#[test]
fn a_frame_ends_with_its_pickle_and_not_in_what_follows() {
    let framed = |frame: u8| [&[0x95, frame, 0, 0, 0, 0, 0, 0, 0], &b"K\x01.K\x02."[..]].concat();
    let bytes = framed(3);
    let (_, len) = Pickle::read_prefix(&bytes, Limits::default()).unwrap();
    assert_eq!(len, 12);
    for frame in [4, 6] {
        let error = Pickle::read_prefix(&framed(frame), Limits::default()).unwrap_err();
        assert_eq!(error.reason, "it ends before its frame does");
    }
}

#[test]
fn a_value_costs_what_the_limits_promise() {
    assert!(size_of::<Node<'_>>() + size_of::<Parts>() <= 110);
}
