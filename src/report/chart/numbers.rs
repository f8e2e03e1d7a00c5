//! How numbers are written in drawings.

use crate::report::words;

/// A number with `decimals` digits after the point, commas between thousands
/// and a true minus sign.
pub(super) fn fixed(number: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", number.abs());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let whole = match whole.parse::<u64>() {
        Ok(whole) if whole >= 10_000 => words::count(whole),
        _ => whole.to_owned(),
    };
    let zero = text.bytes().all(|b| b == b'0' || b == b'.');
    let sign = if number < 0.0 && !zero { "−" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}")
}

/// A number to about four significant digits: `61.31`, `0.2624`, `1e-5`.
pub(super) fn short(number: f64) -> String {
    let size = number.abs();
    if size > 0.0 && !(0.001..1e7).contains(&size) {
        return scientific(number);
    }
    if number.fract() == 0.0 {
        return fixed(number, 0);
    }
    let decimals = match size {
        s if s < 0.01 => 5,
        s if s < 1.0 => 4,
        s if s < 10.0 => 3,
        s if s < 100.0 => 2,
        s if s < 1000.0 => 1,
        _ => 0,
    };
    let text = fixed(number, decimals);
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// A number with a power of ten and up to three digits: `2.5e-5`.
pub(super) fn scientific(number: f64) -> String {
    let text = format!("{number:.2e}");
    let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    format!("{digits}e{power}").replacen('-', "−", usize::from(number < 0.0))
}

/// Digits after the point with which all of `numbers` can be told apart.
pub(super) fn decimals(numbers: &[f64]) -> usize {
    let whole = numbers.iter().all(|n| n.fract() == 0.0);
    let largest = numbers.iter().fold(0.0, |m: f64, n| m.max(n.abs()));
    match largest {
        _ if whole => 0,
        l if l < 0.1 => 4,
        l if l < 1.0 => 3,
        l if l < 1000.0 => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_few_digits_and_no_negative_zero() {
        assert_eq!(fixed(-0.001, 2), "0.00");
        assert_eq!(fixed(-12_345.67, 1), "−12,345.7");
        assert_eq!(
            [61.314, 0.262_41, 3.0, -1234.4, 0.000_01, -2.5e-5, 5e9].map(short),
            ["61.31", "0.2624", "3", "−1234", "1e-5", "−2.5e-5", "5e9"]
        );
        assert_eq!(
            (
                decimals(&[3.0, 10.0]),
                decimals(&[0.26, 0.3]),
                decimals(&[61.5])
            ),
            (0, 3, 2)
        );
    }
}
