//! How times, counts and foreign text are written for people.

use std::time::Duration;

use crate::table;

/// A time to about three digits: `84 ms`, `2.3 s`, `4 min 05 s`, `2 h 03 min`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let whole = seconds.round() as u64;
    match seconds {
        s if s < 0.0995 => format!("{:.0} ms", s * 1000.0),
        s if s < 0.9995 => format!("{s:.2} s"),
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 99.5 => format!("{s:.0} s"),
        s if s < 3599.5 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Items in a second: `0.31/s`, `12.3/s`, `1,240/s`.
pub fn rate(per_second: f64) -> String {
    match per_second {
        r if r < 1.0 => format!("{r:.2}/s"),
        r if r < 100.0 => format!("{r:.1}/s"),
        r => format!("{}/s", count(r.round() as u64)),
    }
}

/// A count with commas between thousands.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count with its noun: `1 node`, `2 nodes`.
pub fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number as u64))
}

/// A size in bytes: `812 B`, `4.1 KB`, `1.2 GB` (powers of 1000).
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KB", "MB", "GB"] {
        if value < 999.5 {
            return match unit {
                "B" => format!("{bytes} B"),
                _ if value < 9.95 => format!("{value:.1} {unit}"),
                _ => format!("{value:.0} {unit}"),
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// Text of others, line by line, without characters that steer a terminal.
pub fn clean_lines(text: &str) -> impl Iterator<Item = String> {
    text.lines()
        .map(|line| table::one_line(line).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_about_three_digits() {
        let written = |s: f64| duration(Duration::from_secs_f64(s));
        assert_eq!(written(0.0841), "84 ms");
        assert_eq!(written(0.251), "0.25 s");
        assert_eq!(written(2.34), "2.3 s");
        assert_eq!(written(9.96), "10 s");
        assert_eq!(written(59.7), "60 s");
        assert_eq!(written(245.0), "4 min 05 s");
        assert_eq!(written(3599.6), "1 h 00 min");
        assert_eq!(written(7380.0), "2 h 03 min");
    }

    #[test]
    fn counts_rates_and_sizes_read_easily() {
        assert_eq!(
            (count(999), count(1_234_567)),
            ("999".into(), "1,234,567".into())
        );
        assert_eq!(
            (counted(1, "node"), counted(1200, "node")),
            ("1 node".into(), "1,200 nodes".into())
        );
        assert_eq!(
            (rate(0.314), rate(12.34), rate(1240.2)),
            ("0.31/s".into(), "12.3/s".into(), "1,240/s".into())
        );
        assert_eq!(
            (size(812), size(4096), size(102_400_000)),
            ("812 B".into(), "4.1 KB".into(), "102 MB".into())
        );
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        let lines: Vec<_> = clean_lines("a\u{1b}[2J\r\nb\u{7}").collect();
        assert_eq!(lines, ["a\u{fffd}[2J", "b\u{fffd}"]);
    }
}
