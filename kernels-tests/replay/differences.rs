//! The cases that differ on purpose, from the table that users read.

use std::collections::BTreeMap;

const DOCUMENT: &str = include_str!("../../docs/differences-from-ollama.md");

/// Case to reason: the rows of the form `` | `area/case`, `area/case` | reason | ``.
pub fn read() -> BTreeMap<String, String> {
    let rows = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut cases = BTreeMap::new();
    for (names, reason) in rows.filter_map(|row| row.split_once(" | ")) {
        for name in names.split(", ") {
            let name = name.trim_matches('`').to_owned();
            assert!(
                name.contains('/'),
                "docs/differences-from-ollama.md: {name:?} is no case"
            );
            cases.insert(name, reason.trim_end_matches('|').trim().to_owned());
        }
    }
    cases
}
