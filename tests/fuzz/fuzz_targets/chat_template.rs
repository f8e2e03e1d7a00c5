//! See `checks/chat_template.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: runner_fuzz::start_catching(), |bytes: &[u8]| {
    runner_fuzz::checks::chat_template::check(bytes);
});
