//! What a bench was called with.

use std::str::FromStr;

/// Arguments in order, each with a default for a measurement and one for `cargo test`, which leaves Cargo's
/// `--bench` away: then a bench runs once and small, to show that it runs.
pub struct Arguments {
    given: std::vec::IntoIter<String>,
    measures: bool,
}

impl Arguments {
    pub fn read() -> Arguments {
        let (flags, given): (Vec<String>, Vec<String>) =
            std::env::args().skip(1).partition(|arg| arg == "--bench");
        Arguments {
            given: given.into_iter(),
            measures: !flags.is_empty(),
        }
    }

    /// The next argument.
    ///
    /// # Panics
    /// If it is given and cannot be read.
    pub fn next<T: FromStr>(&mut self, measured: T, once: T) -> T {
        match self.given.next() {
            Some(text) => match text.parse() {
                Ok(value) => value,
                Err(_) => panic!("{text:?} is no {}", std::any::type_name::<T>()),
            },
            None if self.measures => measured,
            None => once,
        }
    }
}
