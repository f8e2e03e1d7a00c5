//! See `checks/pipeline.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    runner_fuzz::checks::pipeline::check(bytes);
});
