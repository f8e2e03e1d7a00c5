//! Broken and hostile `SentencePiece` files.

use super::*;

/// A field of a protobuf message.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 0x7F {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
    let mut piece = field(1, text.as_bytes());
    piece.push(2 << 3 | 5);
    piece.extend(score.to_le_bytes());
    piece.extend([3 << 3, kind]);
    field(1, &piece)
}

fn open_pieces(bytes: &[u8]) -> Result<Tokenizer> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("tokenizer.model");
    fs::write(&path, bytes)?;
    Tokenizer::open(&path)
}

#[test]
fn mistakes_in_pieces_are_named() {
    let bpe = field(2, &[3 << 3, 2]);
    let unknown = piece("<unk>", 0.0, 2);
    let good = [
        unknown.clone(),
        piece("a", -1.0, 1),
        piece("b", -2.0, 1),
        bpe.clone(),
    ]
    .concat();
    let tokenizer = open_pieces(&good).unwrap();
    assert_eq!(tokenizer.encode("ab?? b").unwrap(), [0, 1, 2, 0, 2]);
    // A piece of a user's own is whole, whatever could be made of it.
    let own = [piece("ab", 0.0, 4), piece("abb", 0.0, 1)].concat();
    let tokenizer = open_pieces(&[good.clone(), own].concat()).unwrap();
    assert_eq!(tokenizer.encode("abb").unwrap(), [0, 3, 2]);
    for (file, part) in [
        (vec![], "`model_type` is unigram"),
        (field(2, &[3 << 3, 1]), "`model_type` is unigram"),
        (field(2, &[3 << 3, 4]), "`model_type` is char"),
        (bpe.clone(), "no piece is of the type `unknown`"),
        (
            [&unknown[..], &piece("?", 0.0, 2), &bpe].concat(),
            "two pieces are of the type `unknown`",
        ),
        (
            [&unknown[..], &piece("<unk>", 0.0, 1), &bpe].concat(),
            "`<unk>` is there twice",
        ),
        (
            [&piece("a", 0.0, 1)[..], &good].concat(),
            "`a` is there twice",
        ),
        (piece("a", f32::NAN, 1), "piece 0: its score is NaN"),
        (piece("a", f32::INFINITY, 1), "its score is inf"),
        (piece("a", 0.0, 9), "its type 9"),
        (piece("", 0.0, 1), "it is empty"),
        (piece(&"a".repeat(2000), 0.0, 1), "longer than the 1024"),
        (field(1, &field(1, b"\xff")), "not UTF-8"),
        (field(1, &[1 << 3, 0]), "should be text"),
        (field(1, &[2 << 3, 0]), "should be a float"),
        (
            vec![1 << 3 | 2, 0xFF, 0xFF, 0xFF, 0x0F, 1],
            "are announced where 1 are left",
        ),
        (vec![0xFF; 11], "more than 64 bits"),
        (
            vec![
                1 << 3 | 2,
                0xFF,
                0xFF,
                0xFF,
                0xFF,
                0xFF,
                0xFF,
                0xFF,
                0xFF,
                0xFF,
                1,
            ],
            "are announced",
        ),
        (vec![1 << 3 | 3], "wire type 3"),
        (vec![2, 0], "number 0"),
        (
            [&piece("<0x41>", 0.0, 6)[..], &good].concat(),
            "no `byte_fallback`",
        ),
        (
            [&piece("<0xGG>", 0.0, 6)[..], &good].concat(),
            "`<0xGG>` is no byte",
        ),
        (
            [&good[..], &field(2, &[0x98, 2, 1])].concat(),
            "no piece for the byte 0x00",
        ),
        (
            [&good[..], &field(2, &[0xC0, 1, 1])].concat(),
            "`treat_whitespace_as_suffix`",
        ),
        (
            [&good[..], &field(3, &[5 << 3, 0])].concat(),
            "`escape_whitespaces`",
        ),
        (
            [&good[..], &field(5, &field(2, b"x"))].concat(),
            "`denormalizer_spec`",
        ),
        (
            [&good[..], &field(3, &field(2, b"x"))].concat(),
            "`precompiled_charsmap`",
        ),
        (
            [&good[..], &field(3, &field(2, &[255; 40]))].concat(),
            "`precompiled_charsmap`",
        ),
    ] {
        let error = format!("{:#}", open_pieces(&file).unwrap_err());
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn broken_files_of_pieces_never_panic() {
    for name in ["ruled", "unused"] {
        let whole = fs::read(fixture(&format!("tokenizer/{name}.model"))).unwrap();
        let mut broken = 0;
        let mut check = |bytes: &[u8]| match sentencepiece::Model::read(bytes) {
            Ok(model) => {
                model.encode("The fix: a long cat é ﬁ AAA\u{3000}\u{FDFA} ▁ 🐈", true);
            }
            Err(_) => broken += 1,
        };
        for end in (0..whole.len()).step_by(3) {
            check(&whole[..end]);
        }
        let mut bytes = whole.clone();
        for at in (0..whole.len()).step_by(7) {
            for bit in [1, 0x80, 0xFF] {
                bytes[at] ^= bit;
                check(&bytes);
                bytes[at] ^= bit;
            }
        }
        assert!(broken > whole.len() / 3, "{broken} of {}", whole.len());
    }
}

#[test]
fn huge_files_are_refused_soon() {
    let start = Instant::now();
    let many: Vec<u8> = (0..=1 << 20)
        .flat_map(|i| piece(&format!("{i:x}"), 0.0, 1))
        .collect();
    let error = format!("{:#}", open_pieces(&many).unwrap_err());
    assert!(error.contains("1048576 pieces allowed"), "{error}");
    let controls: Vec<u8> = (0..20_000)
        .flat_map(|i| piece(&format!("<{i}>"), 0.0, 3))
        .chain(piece("<unk>", 0.0, 2))
        .chain(field(2, &[3 << 3, 2]))
        .collect();
    let error = format!("{:#}", open_pieces(&controls).unwrap_err());
    assert!(error.contains("tokens of their own"), "{error}");
    let error = format!("{:#}", open_pieces(&vec![0; (64 << 20) + 1]).unwrap_err());
    assert!(error.contains("longer than"), "{error}");
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );
}
