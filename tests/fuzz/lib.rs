//! What the fuzz targets share: the checks, a bound on memory, and which panics are findings.

use std::alloc::System;

use cap::Cap;

pub mod checks;

/// What all values alive at once may take, in bytes. Inputs have a few kilobytes, and no reader
/// may believe them more than that; a part is for vocabularies and compiled patterns.
const MOST_MEMORY: usize = 256 << 20;

/// Where memory comes from: past the limit there is none, and the process ends as a finding.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, MOST_MEMORY);

/// Lets panics of other crates pass, which readers of tokenizers and templates catch; libFuzzer
/// itself takes every panic for a finding. One that nobody catches ends the process all the same.
pub fn start_catching() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let file = panic.location().map_or("", std::panic::Location::file);
        if !file.contains("/registry/") {
            loud(panic);
        }
    }));
}
