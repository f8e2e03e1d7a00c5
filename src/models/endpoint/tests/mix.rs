//! Hundreds of requests over a random mix of faults.

use super::*;

/// A number from a seed, a text and an attempt, spread evenly.
fn mixed(seed: u64, text: &str, attempt: usize) -> u64 {
    let mut x = seed ^ (attempt as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in text.bytes() {
        x = (x ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    x ^= x >> 31;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 29)
}

fn random_fault(number: u64, seen: &Seen) -> Act {
    let right = completion(&format!("echo of {}", seen.prompt));
    let wrong = completion("echo of another prompt");
    let whole = reply(200, "", &right);
    match number % 14 {
        0 => Act::Status(503, String::new(), "busy".to_owned()),
        1 => Act::Status(429, "retry-after: 0.01\r\n".to_owned(), String::new()),
        2 => Act::Status(500, String::new(), wrong),
        3 => Act::Body("<html></html>".to_owned()),
        4 => Act::Body(right[..right.len() / 2].to_owned()),
        5 => Act::Raw(whole[..whole.len() - 1].to_vec()),
        6 => Act::Reset(whole[..whole.len() / 2].to_vec()),
        7 => Act::Raw(b"\x16\x03\x01\x02".to_vec()),
        8 => Act::Body(right.replace("\"stop\"", "null")),
        9 => Act::Body(format!("{{\"error\":{{\"message\":{right:?}}}}}")),
        10 => Act::Raw(format!("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{right}").into_bytes()),
        11 => Act::Hang,
        12 => Act::Drip(whole, Duration::from_millis(20)),
        _ => Act::Status(502, String::new(), wrong),
    }
}

#[test]
fn over_a_random_mix_of_faults_nothing_is_lost_and_nothing_wrong_accepted() {
    const COUNT: usize = 300;
    let poisoned = |prompt: &str| mixed(7, prompt, 0).is_multiple_of(50);
    for seed in 0..2 {
        let begun = Instant::now();
        let server = Faulty::start(move |seen| {
            if poisoned(&seen.prompt) {
                return Act::Status(400, String::new(), "never".to_owned());
            }
            let number = mixed(seed, &seen.prompt, seen.attempt);
            if number % 100 < 30 && seen.attempt < 6 {
                return random_fault(number / 100, seen);
            }
            Act::After(Duration::from_millis(number % 5), Box::new(echo(seen)))
        });
        let mut settings = quick(&server.url());
        settings.timeout = Duration::from_millis(250);
        let got = ask_until(settings, COUNT, &|| false);
        let (bad, good): (Vec<usize>, Vec<usize>) =
            (0..COUNT).partition(|i| poisoned(&format!("prompt {i}")));
        assert!(!bad.is_empty());
        assert_eq!(got.failed(), bad, "{}", got.error());
        assert_eq!(got.texts.keys().copied().collect::<Vec<_>>(), good);
        assert_eq!(got.order.len(), good.len());
        for (index, text) in &got.texts {
            assert_eq!(text, &format!("echo of prompt {index}"));
        }
        // What was answered properly once is not asked again.
        let faults = server.seen().len() - COUNT;
        assert!((60..200).contains(&faults), "{faults}");
        assert!(
            begun.elapsed() < Duration::from_mins(1),
            "{:?}",
            begun.elapsed()
        );
    }
}
