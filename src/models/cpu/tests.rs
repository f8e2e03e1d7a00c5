//! The kernels against their definitions in f64.

use std::cell::Cell;

use super::{
    activation::{exp, silu},
    *,
};

/// How wide vectors may be in a test.
#[derive(Clone, Copy, Debug)]
pub(super) enum Vectors {
    /// As wide as they come.
    Widest,
    /// Of eight numbers (AVX2), where that exists.
    #[cfg(target_arch = "x86_64")]
    Eight,
    /// None.
    Single,
}

const ALL: &[Vectors] = &[
    Vectors::Widest,
    #[cfg(target_arch = "x86_64")]
    Vectors::Eight,
    Vectors::Single,
];

thread_local! {
    pub(super) static VECTORS: Cell<Vectors> = const { Cell::new(Vectors::Widest) };
}

/// Does `work` with narrower vectors if the test wants that; else gives it back.
pub(super) fn narrowed<W: WithSimd>(work: W) -> Result<W::Output, W> {
    match VECTORS.get() {
        Vectors::Widest => Err(work),
        #[cfg(target_arch = "x86_64")]
        Vectors::Eight => match pulp::x86::V3::try_new() {
            Some(simd) => Ok(pulp::Simd::vectorize(simd, work)),
            None => Err(work),
        },
        Vectors::Single => Ok(pulp::Simd::vectorize(pulp::Scalar, work)),
    }
}

/// Runs a test once for each width of vectors.
pub(super) fn at_every_width(test: impl Fn()) {
    for vectors in ALL {
        VECTORS.set(*vectors);
        test();
    }
    VECTORS.set(Vectors::Widest);
}

pub(super) fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// ‖a - b‖ / ‖b‖; where all is zero, ‖a‖.
pub(super) fn error(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let off: f64 = (a.iter().zip(b))
        .map(|(a, b)| (f64::from(*a) - b).powi(2))
        .sum();
    let size: f64 = b.iter().map(|b| b * b).sum();
    (off / if size > 0.0 { size } else { 1.0 }).sqrt()
}

#[test]
fn a_product_equals_its_definition_at_every_remainder() {
    at_every_width(|| {
        for m in [1, 2, 5, 12, 13, 29] {
            for (k, n) in [(1, 1), (7, 5), (64, 32), (33, 70), (128, 64), (600, 40)] {
                let (a, b) = (numbers(m * (k + 3), 1), numbers(n * k, 2));
                let (bias, rest) = (numbers(n, 3), numbers(m * n, 4));
                let packed = Packed::of_linear(&b, k, n);
                let stride = n + 2;
                let mut out = vec![7.0; m * stride];
                let finish = Finish {
                    bias: Some(&bias),
                    add: Some(&rest),
                    activation: Activation::Relu,
                };
                let rows = Rows {
                    data: &a,
                    stride: k + 3,
                };
                packed.product(rows, m, finish, &mut out, stride);
                let mut ours = Vec::new();
                let mut expected = Vec::new();
                for i in 0..m {
                    assert_eq!(out[i * stride + n..][..2], [7.0, 7.0], "the gap is left");
                    for j in 0..n {
                        let sum: f64 = (0..k)
                            .map(|l| f64::from(a[i * (k + 3) + l]) * f64::from(b[j * k + l]))
                            .sum();
                        let all = sum + f64::from(bias[j]) + f64::from(rest[i * n + j]);
                        ours.push(out[i * stride + j]);
                        expected.push(all.max(0.0));
                    }
                }
                assert!(error(&ours, &expected) < 1e-6, "{m} {k} {n}");
            }
        }
    });
}

fn convolved(x: &[f32], weight: &[f32], bias: &[f32], [n, h, w, input]: [usize; 4]) -> Vec<f64> {
    let mut out = Vec::new();
    for image in 0..n {
        for y in 0..h {
            for column in 0..w {
                for (o, bias) in bias.iter().enumerate() {
                    let mut sum = f64::from(*bias);
                    for dy in 0..3 {
                        for dx in 0..3 {
                            let (y, x_) = (y + dy, column + dx);
                            if y < 1 || y > h || x_ < 1 || x_ > w {
                                continue;
                            }
                            let pixel = ((image * h + y - 1) * w + x_ - 1) * input;
                            for i in 0..input {
                                sum += f64::from(x[pixel + i])
                                    * f64::from(weight[(o * input + i) * 9 + dy * 3 + dx]);
                            }
                        }
                    }
                    out.push(sum);
                }
            }
        }
    }
    out
}

#[test]
fn a_convolution_equals_its_definition_at_every_border() {
    at_every_width(|| {
        for (h, w) in [(1, 1), (4, 4), (7, 7), (5, 9), (14, 3)] {
            for (input, output) in [(1, 1), (3, 5), (16, 32), (40, 24)] {
                let x = numbers(2 * h * w * input, 1);
                let weight = numbers(output * input * 9, 2);
                let bias = numbers(output, 3);
                let conv = Conv3x3::new(&weight, input, bias.clone());
                let mut out = vec![0.0; 2 * h * w * output];
                let mut scratch = Scratch::default();
                conv.forward(&x, [h, w], Activation::Identity, &mut out, &mut scratch);
                let expected = convolved(&x, &weight, &bias, [2, h, w, input]);
                let found = error(&out, &expected);
                assert!(found < 2e-6, "{h}×{w} {input}→{output}: {found:e}");
                let expected: Vec<f32> = out.iter().map(|x| x.max(0.0)).collect();
                conv.forward(&x, [h, w], Activation::Relu, &mut out, &mut scratch);
                assert_eq!(out, expected);
            }
        }
    });
}

#[test]
fn the_exponential_is_good_to_a_unit_in_the_last_place() {
    for i in -8700..=8800 {
        let x = i as f32 / 100.0;
        let exact = f64::from(x).exp();
        let off = (f64::from(exp(x)) - exact).abs() / exact;
        assert!(off < 1.5e-7, "{x}: {off:e}");
    }
    assert!(exp(f32::NEG_INFINITY) < 1e-37);
}

#[test]
fn activations_are_their_definitions() {
    let xs: Vec<f32> = (-1000..=1000).map(|i| i as f32 / 100.0).collect();
    let activated = |activation: Activation| {
        let mut ys = xs.clone();
        activation.apply(&mut ys);
        ys
    };
    for (x, y) in xs.iter().zip(activated(Activation::QuickGelu)) {
        let exact = f64::from(*x) / (1.0 + (-1.702 * f64::from(*x)).exp());
        assert!((f64::from(y) - exact).abs() < 1e-6, "{x}");
    }
    for x in &xs {
        let exact = f64::from(*x) / (1.0 + (-f64::from(*x)).exp());
        assert!((f64::from(silu(*x)) - exact).abs() < 1e-6, "{x}");
    }
    // scipy.stats.norm.cdf(x) * x.
    for (x, exact) in [
        (0.0, 0.0),
        (1.0, 0.841_344_746_068_542_9),
        (-1.0, -0.158_655_253_931_457_05),
        (-3.0, -0.004_049_694_095_042_56),
        (2.5, 2.484_475_837_325_347),
        (-9.0, -1.015_730_528_e-18),
    ] {
        let mut y = [x];
        Activation::Gelu.apply(&mut y);
        assert!((f64::from(y[0]) - exact).abs() < 4e-7, "{x}: {}", y[0]);
    }
}

#[test]
fn rows_are_normalised_and_weighed_as_defined() {
    at_every_width(|| {
        for width in [1, 5, 16, 77] {
            let (x, weight, bias) = (numbers(3 * width, 1), numbers(width, 2), numbers(width, 3));
            let mut ours = x.clone();
            layer_norm(&mut ours, &weight, &bias, 1e-5);
            let mut expected = Vec::new();
            for row in x.chunks(width) {
                let n = width as f64;
                let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
                let off = |x: &f32| f64::from(*x) - mean;
                let variance = row.iter().map(|x| off(x).powi(2)).sum::<f64>() / n;
                expected.extend((row.iter().zip(&weight).zip(&bias)).map(|((x, w), b)| {
                    off(x) / (variance + 1e-5).sqrt() * f64::from(*w) + f64::from(*b)
                }));
            }
            assert!(error(&ours, &expected) < 1e-6, "{width}");

            let mut ours = vec![0.0; x.len()];
            rms_norm(&x, &weight, 1e-5, &mut ours);
            let mut expected = Vec::new();
            for row in x.chunks(width) {
                let square = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
                let size = (square / width as f64 + 1e-5).sqrt();
                let scaled = |(x, w): (&f32, &f32)| f64::from(*x) / size * f64::from(*w);
                expected.extend(row.iter().zip(&weight).map(scaled));
            }
            assert!(error(&ours, &expected) < 1e-6, "{width}");

            let mut ours = x[..width].to_vec();
            let seen = width.div_ceil(2);
            softmax(&mut ours, seen, 3.0);
            let terms = x[..seen].iter().map(|x| (3.0 * f64::from(*x)).exp());
            let all: f64 = terms.clone().sum();
            let expected: Vec<f64> = (terms.map(|t| t / all))
                .chain(std::iter::repeat_n(0.0, width - seen))
                .collect();
            assert!(error(&ours, &expected) < 1e-6, "{width}");
        }
    });
}
