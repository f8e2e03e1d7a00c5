//! See `checks/sentencepiece.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    runner_fuzz::checks::sentencepiece::check(bytes);
});
