//! Every input the fuzzers found worth keeping, through every target; and each cut short and with bits flipped.
#![forbid(unsafe_code)]

#[path = "../fuzz/targets.rs"]
mod targets;

use std::{fs, path::Path};

#[test]
fn every_kept_input_passes() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in targets::TARGETS {
        let mut count = 0;
        for entry in fs::read_dir(corpus.join(name)).unwrap_or_else(|error| panic!("corpus/{name}: {error}"))
        {
            let path = entry.expect("a directory entry").path();
            let input = fs::read(&path).expect("an input");
            count += 1;
            target(&input);
            for end in 0..input.len().min(512) {
                target(&input[..end]);
                for bit in [1, 0x10, 0x80] {
                    let mut flipped = input.clone();
                    flipped[end] ^= bit;
                    target(&flipped);
                }
            }
        }
        assert!(count > 0, "corpus/{name} is empty");
        println!("{name}: {count} inputs");
    }
}
