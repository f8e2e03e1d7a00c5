//! See `checks/tokenizer_json.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: runner_fuzz::start_catching(), |bytes: &[u8]| {
    runner_fuzz::checks::tokenizer_json::check(bytes);
});
