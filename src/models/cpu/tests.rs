//! The kernels against their definitions in f64.

use super::*;

fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// ‖a - b‖ / ‖b‖; where all is zero, ‖a‖.
fn error(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let off: f64 = (a.iter().zip(b))
        .map(|(a, b)| (f64::from(*a) - b).powi(2))
        .sum();
    let size: f64 = b.iter().map(|b| b * b).sum();
    (off / if size > 0.0 { size } else { 1.0 }).sqrt()
}

#[test]
fn a_product_equals_its_definition_at_every_remainder() {
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
