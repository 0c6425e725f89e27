//! Recorded answers of a real Ollama, asked again of this server: the real program, over a socket, with the real models.
//!
//! Every case of `golden/ollama/transcripts.jsonl` is sent to a server started as its own; answers must equal the
//! recorded ones but for what `golden/ollama/README.md` calls variable or informative. A case that differs on purpose
//! stands in the table of `docs/differences-from-ollama.md`, which is read here, so that table and behaviour cannot
//! drift apart: a listed case that no longer differs fails too. `REPLAY=chat/` limits a run to names that contain it.

mod case;
mod client;
mod compare;
mod differences;
#[path = "../models.rs"]
mod models;
mod server;

use case::Case;
use std::collections::BTreeMap;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_answers() {
    let differences = differences::read();
    let cases: Vec<Case> = case::read().into_iter().filter(Case::is_wanted).collect();
    let mut left_out: BTreeMap<String, usize> = BTreeMap::new();
    let mut failures = Vec::new();
    let mut n_equal = 0;
    let mut servers = server::Servers::new();
    for case in &cases {
        if let Some(reason) = case.left_out() {
            *left_out.entry(reason).or_default() += 1;
            continue;
        }
        let found = case.replay(servers.get(&case.server).await).await;
        match (found.is_empty(), differences.get(&case.name)) {
            (true, None) => n_equal += 1,
            (false, Some(_)) => *left_out.entry("differs as documented".into()).or_default() += 1,
            (true, Some(reason)) => {
                failures.push(format!(
                    "{}: listed as different ({reason}), but equal",
                    case.name
                ));
            }
            (false, None) => failures.push(format!("{}:\n    {}", case.name, found.join("\n    "))),
        }
    }
    let unknown = differences
        .keys()
        .filter(|name| !case::read().iter().any(|c| c.name == **name));
    failures.extend(unknown.map(|name| format!("{name}: listed as different, but no such case")));
    eprintln!(
        "{n_equal} of {} cases equal; left out: {left_out:#?}",
        cases.len()
    );
    assert!(
        failures.is_empty(),
        "{} cases failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(n_equal > 0, "no case was replayed");
}
