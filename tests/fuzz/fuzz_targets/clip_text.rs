//! See `checks/clip_text.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    runner_fuzz::checks::clip_text::check(bytes);
});
