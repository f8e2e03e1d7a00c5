//! LLM.int8 against bitsandbytes: weights and products.

use super::*;

/// As integers without sign, to be compared with bytes.
fn unsigned(codes: &[i8]) -> Vec<u8> {
    codes.iter().map(|&code| code as u8).collect()
}

#[test]
fn eight_bit_codes_and_scales_are_those_of_bitsandbytes() {
    let fixture = Fixture::open("quant/int8.safetensors");
    for case in fixture.cases("weight") {
        let made = int8(&fixture, &case);
        let codes = fixture.bytes(&format!("{case}.codes"));
        assert_eq!(unsigned(made.codes()), codes, "{case}");
        assert_same(
            made.scales(),
            &fixture.f32s(&format!("{case}.scales")),
            &case,
        );
        for (kind, round) in TYPES {
            let name = format!("{case}.{kind}");
            assert_same(&made.dequantize(round), &fixture.f32s(&name), &name);
        }
    }
}

#[test]
fn mistakes_with_eight_bits_would_be_noticed() {
    let fixture = Fixture::open("quant/int8.safetensors");
    let encoded =
        |case: &str, half: bool, inverted: bool, nearest: &dyn Fn(f32) -> f32| -> Vec<u8> {
            let values = fixture.f32s(&format!("{case}.weight"));
            let ins = fixture.shape(&format!("{case}.weight"))[1];
            (values.chunks(ins))
                .flat_map(|row| {
                    let round = if half { Round::F16 } else { Round::F32 };
                    let row: Vec<f32> = row.iter().map(|&x| round.of(x)).collect();
                    let factor = if inverted {
                        1.0 / absmax(&row) * 127.0
                    } else {
                        127.0 / absmax(&row)
                    };
                    (row.into_iter())
                        .map(|x| nearest(x * factor) as i8 as u8)
                        .collect::<Vec<_>>()
                })
                .collect()
        };
    let codes = |case: &str| fixture.bytes(&format!("{case}.codes"));
    let even = &f32::round_ties_even;
    let ties = codes("halves");
    assert_eq!(encoded("halves", true, true, even), ties);
    assert_ne!(
        encoded("halves", true, true, &f32::round),
        ties,
        "away from zero"
    );
    assert_ne!(
        encoded("halves", true, false, even),
        ties,
        "127/absmax at once"
    );
    let random = codes("random");
    assert_ne!(
        encoded("random", true, true, &f32::trunc),
        random,
        "truncation"
    );
    let tiny = codes("tiny");
    assert_ne!(
        encoded("tiny", false, true, even),
        tiny,
        "without rounding to f16"
    );
}

/// One product with the reference's result.
fn product(
    fixture: &Fixture,
    case: &str,
    way: &str,
    change: impl Fn(&mut Forward),
) -> [Vec<f32>; 2] {
    let parts: Vec<&str> = way.split('.').collect();
    let (round, rows, threshold) = match parts[..] {
        [kind, rows, threshold] => {
            let round = TYPES.iter().find(|(name, _)| *name == kind).unwrap().1;
            (round, rows, threshold.parse().unwrap())
        }
        _ => (Round::F32, "together", 6.0),
    };
    let weight = int8(fixture, case);
    let of_type = |name: &str| -> Vec<f32> {
        let values = fixture.f32s(&format!("{case}.{name}"));
        values.iter().map(|&x| round.of(x)).collect()
    };
    let (mut x, bias) = (of_type("x"), of_type("bias"));
    if rows == "alone" {
        x.truncate(weight.shape()[1]);
    }
    let mut forward = Forward {
        threshold,
        activations: round,
        bias: (way != "no_bias").then_some(bias.as_slice()),
        kernels: Kernels::Cpu,
    };
    change(&mut forward);
    let rows = x.len() / weight.shape()[1];
    let y = weight.linear(&x, rows, forward).unwrap();
    [y, fixture.f32s(&format!("{case}.{way}"))]
}

#[test]
fn eight_bit_products_are_those_of_bitsandbytes() {
    let fixture = Fixture::open("quant/int8.safetensors");
    for case in fixture.cases("x") {
        let mut ways = vec!["no_bias".to_owned()];
        for kind in ["f32", "bf16", "f16"] {
            for rows in ["together", "alone"] {
                ways.extend([0, 6].map(|threshold| format!("{kind}.{rows}.{threshold}")));
            }
        }
        for way in ways {
            let [ours, theirs] = product(&fixture, &case, &way, |_| {});
            let what = format!("{case}.{way}");
            // PyTorch's order of summing outliers only shows where nothing is
            // rounded afterwards.
            if way == "no_bias" || (way.starts_with("f32") && way.ends_with('6')) {
                let most = absmax(&theirs);
                for (a, b) in ours.iter().zip(&theirs) {
                    assert!((a - b).abs() <= most * f32::EPSILON, "{what}: {a:e} {b:e}");
                }
            } else {
                assert_same(&ours, &theirs, &what);
            }
        }
    }
}

#[test]
fn mistakes_in_eight_bit_products_would_be_noticed() {
    let fixture = Fixture::open("quant/int8.safetensors");
    let differs = |case: &str, way: &str, change: &dyn Fn(&mut Forward)| {
        let [ours, theirs] = product(&fixture, case, way, change);
        assert!(!differing(&ours, &theirs).is_empty(), "{case}.{way}");
    };
    differs("random", "f32.together.6", &|forward| {
        forward.threshold = 0.0;
    });
    differs("random", "f32.together.6", &|forward| {
        forward.threshold = 6.01;
    });
    differs("random", "f32.together.6", &|forward| forward.bias = None);
    differs("random", "f32.together.6", &|forward| {
        forward.kernels = Kernels::Cuda;
    });
    let bf16 = "bf16.together.6";
    differs("random", bf16, &|forward| forward.activations = Round::F16);
}

#[test]
fn cuda_products_differ_by_little() {
    let fixture = Fixture::open("quant/int8.safetensors");
    for way in ["f32.together.6", "bf16.together.6", "f16.alone.0"] {
        let [ours, theirs] = product(&fixture, "random", way, |forward| {
            forward.kernels = Kernels::Cuda;
        });
        let most = absmax(&theirs);
        for (a, b) in ours.iter().zip(&theirs) {
            assert!((a - b).abs() <= most / 128.0, "{way}: {a} {b}");
        }
    }
}

#[test]
fn what_cannot_be_quantised_is_refused() {
    let fill = |_: usize, out: &mut [f32]| out.fill(1.0);
    assert!(Nf4::quantize([0, 4], 64, Round::F32, fill).is_err());
    assert!(Nf4::quantize([usize::MAX, 2], 64, Round::F32, fill).is_err());
    let error = Nf4::quantize([4, 4], 48, Round::F32, fill)
        .unwrap_err()
        .to_string();
    assert!(error.contains("a block of 48 numbers"), "{error}");
    assert!(Nf4::from_values(&[1.0; 7], [2, 4], 64, Round::F32).is_err());
    assert!(Int8::quantize([4, 0], fill).is_err());
    let weight = Int8::quantize([2, 3], fill).unwrap();
    let forward = Forward {
        threshold: 6.0,
        activations: Round::F32,
        bias: None,
        kernels: Kernels::Cpu,
    };
    assert!(weight.linear(&[1.0; 5], 2, forward).is_err());
    assert!(weight.linear(&[1.0; 6], usize::MAX, forward).is_err());
    let short = Forward {
        bias: Some(&[1.0]),
        ..forward
    };
    assert!(weight.linear(&[1.0; 6], 2, short).is_err());
    let wrong = Forward {
        threshold: f32::NAN,
        ..forward
    };
    assert!(weight.linear(&[1.0; 6], 2, wrong).is_err());
}
