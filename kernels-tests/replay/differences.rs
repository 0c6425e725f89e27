//! The cases that differ on purpose, from the tables that users read.

use std::collections::BTreeMap;

/// First line of a table of cases; other tables of the document are for people alone.
const HEADER: &str = "| case | reason |";

/// Case to reason: the rows of the form `` | `area/case`, `area/case` | reason | ``.
pub fn read() -> BTreeMap<String, String> {
    let path = format!(
        "{}/docs/differences-from-ollama.md",
        env!("CARGO_MANIFEST_DIR")
    );
    let document = std::fs::read_to_string(path).expect("the document is part of the repository");
    let mut cases = BTreeMap::new();
    for table in document.split(HEADER).skip(1) {
        let rows = table
            .lines()
            .skip(1)
            .take_while(|line| line.starts_with('|'));
        for row in rows.filter_map(|line| line.strip_prefix("| `")) {
            let (names, reason) = row.split_once(" | ").expect("two columns");
            for name in names.split(", ") {
                let reason = reason.trim_end_matches('|').trim().to_owned();
                cases.insert(name.trim_matches('`').to_owned(), reason);
            }
        }
    }
    cases
}
