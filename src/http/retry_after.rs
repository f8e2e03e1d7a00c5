//! How long a server asks to be left alone.

use std::time::Duration;

use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};

/// The wait that the headers of a reply ask for, if they do.
///
/// `retry_after` is a number of seconds or an HTTP date (RFC 9110, 10.2.3). A date
/// is compared with the server's own `Date` where it sent one, so that two clocks
/// need not agree. `milliseconds` is `OpenAI`'s `retry-after-ms`.
pub(crate) fn wait(
    retry_after: Option<&str>,
    milliseconds: Option<&str>,
    date: Option<&str>,
    now: Timestamp,
) -> Option<Duration> {
    if let Some(ms) = milliseconds.and_then(|text| seconds(text, 1000.0)) {
        return Some(ms);
    }
    let text = retry_after?.trim();
    if let Some(wait) = seconds(text, 1.0) {
        return Some(wait);
    }
    let then = timestamp(text)?;
    let now = date.and_then(timestamp).unwrap_or(now);
    Some(Duration::from_secs(
        (then.as_second() - now.as_second()).max(0) as u64,
    ))
}

fn seconds(text: &str, per_second: f64) -> Option<Duration> {
    let number: f64 = text.trim().parse().ok()?;
    (number >= 0.0).then_some(())?;
    Some(Duration::try_from_secs_f64(number / per_second).unwrap_or(Duration::MAX))
}

fn timestamp(text: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn seconds_milliseconds_and_dates_are_read() {
        let now = at("1994-11-06T08:49:37Z");
        let later = Some("Sun, 06 Nov 1994 08:50:07 GMT");
        assert_eq!(
            wait(Some("12"), None, None, now),
            Some(Duration::from_secs(12))
        );
        assert_eq!(
            wait(Some(" 0.5 "), None, None, now),
            Some(Duration::from_millis(500))
        );
        assert_eq!(
            wait(Some("9"), Some("250"), None, now),
            Some(Duration::from_millis(250))
        );
        assert_eq!(wait(later, None, None, now), Some(Duration::from_secs(30)));
        assert_eq!(
            wait(later, None, None, at("1999-01-01T00:00:00Z")),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn a_date_is_measured_by_the_servers_own_clock() {
        let date = Some("Sun, 06 Nov 1994 08:50:00 GMT");
        let wait = wait(
            Some("Sun, 06 Nov 1994 08:50:07 GMT"),
            None,
            date,
            at("2026-01-01T00:00:00Z"),
        );
        assert_eq!(wait, Some(Duration::from_secs(7)));
    }

    #[test]
    fn nonsense_is_no_wait_and_a_huge_one_stays_huge() {
        let now = at("1994-11-06T08:49:37Z");
        for text in ["", "soon", "-3", "NaN", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(wait(Some(text), None, None, now), None, "{text}");
        }
        assert_eq!(wait(None, None, None, now), None);
        assert_eq!(wait(Some("1e300"), None, None, now), Some(Duration::MAX));
        assert_eq!(wait(Some("inf"), None, None, now), Some(Duration::MAX));
    }
}
