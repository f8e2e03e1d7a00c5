//! See `checks/pickle.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    runner_fuzz::checks::pickle::check(bytes);
});
