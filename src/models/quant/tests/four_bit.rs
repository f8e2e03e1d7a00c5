//! NF4 against bitsandbytes, and against what CUDA's source says.

use super::*;

fn nf4(fixture: &Fixture, case: &str) -> Nf4 {
    let name = format!("{case}.weight");
    let blocksize = fixture.bytes(&format!("{case}.blocksize"))[..8].try_into();
    let blocksize = i64::from_le_bytes(blocksize.unwrap()) as usize;
    let values = fixture.f32s(&name);
    Nf4::from_values(&values, fixture.shape(&name), blocksize, Round::F32).unwrap()
}

#[test]
fn four_bit_codes_and_scales_are_those_of_bitsandbytes() {
    let fixture = Fixture::open("quant/nf4.safetensors");
    for case in fixture.cases("weight") {
        let made = nf4(&fixture, &case);
        assert_eq!(
            made.codes(),
            fixture.bytes(&format!("{case}.codes")),
            "{case}"
        );
        assert_same(
            &made.absmax(),
            &fixture.f32s(&format!("{case}.absmax")),
            &case,
        );
    }
}

#[test]
fn four_bit_weights_come_back_as_from_bitsandbytes() {
    let fixture = Fixture::open("quant/nf4.safetensors");
    for case in fixture.cases("weight") {
        let made = nf4(&fixture, &case);
        for (kind, round) in TYPES {
            let name = format!("{case}.{kind}");
            if !fixture.has(&name) {
                assert!(case.starts_with("block"), "{case}");
                continue;
            }
            assert_same(&made.dequantize(round), &fixture.f32s(&name), &name);
        }
    }
}

#[test]
fn the_table_and_its_midpoints_are_those_of_bitsandbytes() {
    let fixture = Fixture::open("quant/nf4.safetensors");
    assert_same(&NF4, &fixture.f32s("table"), "table");
    assert_same(&nf4::MIDPOINTS, &fixture.f32s("midpoints"), "midpoints");
}

/// The numbers in CUDA's decision tree, in order.
#[expect(clippy::excessive_precision, reason = "as they are in the source")]
const CUDA_TREE: [f32; 15] = [
    -0.8480964004993439,
    -0.6106329262256622,
    -0.4599952697753906,
    -0.33967943489551544,
    -0.23460740596055984,
    -0.13791173323988914,
    -0.045525018125772476,
    0.03979014977812767,
    0.1202552504837513,
    0.2035212516784668,
    0.2920137718319893,
    0.3893125355243683,
    0.5016634166240692,
    0.6427869200706482,
    0.8614784181118011,
];

#[test]
fn cudas_numbers_are_the_midpoints_or_next_to_them() {
    // Where the sum of two numbers of the table is a tie, the decimals in CUDA's
    // source are on the other side of it.
    let off = differing(&nf4::MIDPOINTS, &CUDA_TREE);
    assert_eq!(off, [0, 8, 12, 14]);
    for &i in &off {
        let (ours, cudas) = (nf4::MIDPOINTS[i], CUDA_TREE[i]);
        assert!([ours.next_up(), ours.next_down()].contains(&cudas));
    }
}

/// CUDA's code of a number, 1/absmax being `inverse`.
fn in_cuda(x: f32, inverse: f32) -> u8 {
    CUDA_TREE.partition_point(|&bound| x * inverse > bound) as u8
}

/// How many pairs of a number x and a scale, with significands of `bits` bits,
/// might have another code on CUDA, whose fast division is off by up to a unit
/// in the last place.
///
/// For a scale only the numbers around `bound·scale` can be in doubt.
fn pairs_in_doubt(bits: u32) -> usize {
    let doubtful = |scale: f32, x: f32| {
        let inverse = 1.0 / scale;
        [inverse.next_down(), inverse, inverse.next_up()]
            .into_iter()
            .any(|near| in_cuda(x, near) != nf4::nearest(x * inverse))
    };
    let of_bound = |scale: f32, bound: f32| {
        let target = f64::from(bound) * f64::from(scale);
        let unit = 2f64.powi(target.abs().log2().floor() as i32 + 1 - bits as i32);
        let first = (target / unit).floor();
        [-1.0, 0.0, 1.0, 2.0]
            .into_iter()
            .filter(|step| doubtful(scale, ((first + step) * unit) as f32))
            .count()
    };
    let first = 1u32 << (bits - 1);
    (first..2 * first)
        .flat_map(|scale| CUDA_TREE.map(|bound| of_bound(scale as f32, bound)))
        .sum()
}

#[test]
fn cuda_gives_weights_of_bf16_the_same_codes() {
    assert_eq!(pairs_in_doubt(8), 0);
}

#[test]
fn cuda_gives_nearly_all_weights_of_f16_the_same_codes() {
    // Of millions.
    assert_eq!(pairs_in_doubt(11), 1);
}

#[test]
fn mistakes_with_four_bits_would_be_noticed() {
    let fixture = Fixture::open("quant/nf4.safetensors");
    let encode = |nearest: &dyn Fn(f32) -> u8| -> Vec<u8> {
        let values = fixture.f32s("midpoints.weight");
        (values.as_chunks::<2>().0.iter())
            .map(|pair| nearest(pair[0]) << 4 | nearest(pair[1]))
            .collect()
    };
    let right = fixture.bytes("midpoints.codes");
    assert_eq!(encode(&nf4::nearest), right);
    let up = |x| nf4::MIDPOINTS.partition_point(|&midpoint| x >= midpoint) as u8;
    assert_ne!(encode(&up), right, "a tie goes up");
    let swapped: Vec<u8> = right.iter().map(|byte| byte.rotate_left(4)).collect();
    assert_ne!(encode(&nf4::nearest), swapped, "the first in the low half");
    let cuda = |x| in_cuda(x, 1.0);
    assert_ne!(encode(&cuda), right, "CUDA's numbers");
}

#[test]
fn many_rows_in_pieces_are_the_same_as_one_by_one() {
    // Rows that divide a piece, that do not, and that are longer than one.
    for (shape, blocksize) in [
        ([70, 1024], 64),
        ([300, 333], 4096),
        ([2, 70_001], 64),
        ([1, 5], 32),
    ] {
        let value = |i: usize| ((i * 2_654_435_761) % 1_000_003) as f32 / 5e5 - 1.0;
        let ins = shape[1];
        let row = |r: usize, out: &mut [f32]| {
            for (c, out) in out.iter_mut().enumerate() {
                *out = value(r * ins + c);
            }
        };
        let made = Nf4::quantize(shape, blocksize, Round::F32, row).unwrap();
        let values: Vec<f32> = (0..shape[0] * ins).map(value).collect();
        let mut codes = Vec::new();
        let mut scales = Vec::new();
        for block in values.chunks(blocksize) {
            let scale = absmax(block);
            scales.push(scale);
            let inverse = 1.0 / scale;
            let short = block.len() < blocksize;
            let nearest = |&x: &f32| nf4::nearest(if short { x / scale } else { x * inverse });
            codes.extend(block.iter().map(nearest));
        }
        assert_same(&made.absmax(), &scales, "scales");
        let packed: Vec<u8> = (codes.chunks(2))
            .map(|pair| pair[0] << 4 | pair.get(1).unwrap_or(&7))
            .collect();
        assert!(made.codes() == packed, "{shape:?}");
        let back = made.dequantize(Round::Bf16);
        for (i, x) in back.iter().enumerate() {
            let x_expected = Round::Bf16.of(NF4[usize::from(codes[i])] * scales[i / blocksize]);
            assert_eq!(x.to_bits(), x_expected.to_bits(), "{i}");
        }
    }
}
