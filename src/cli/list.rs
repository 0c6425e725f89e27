//! `list` and `ps`: the models of the store, and those in memory, as tables.

use super::client::{Client, Error};
use super::format;
use super::table::Table;
use crate::api::{ListReply, ListedModel, LoadedModel, PsReply};
use chrono::{DateTime, TimeDelta, Utc};

/// Digits of a digest that name a model in a table.
const ID_DIGITS: usize = 12;

/// The table of models whose name begins with `prefix` in any letter case.
pub async fn list(client: &Client, prefix: &str) -> Result<String, Error> {
    let reply: ListReply = client.get("/api/tags").await?;
    Ok(listed(&reply.models, prefix, Utc::now()))
}

/// The table of loaded models whose name begins with `prefix`, letter case as given.
pub async fn ps(client: &Client, prefix: &str) -> Result<String, Error> {
    let reply: PsReply = client.get("/api/ps").await?;
    Ok(loaded(&reply.models, prefix, Utc::now()))
}

fn listed(models: &[ListedModel], prefix: &str, now: DateTime<Utc>) -> String {
    let prefix = prefix.to_lowercase();
    let mut table = Table::with_header(&["NAME", "ID", "SIZE", "MODIFIED"]);
    for model in models {
        if model.name.to_lowercase().starts_with(&prefix) {
            table.row([
                model.name.clone(),
                id(&model.digest),
                format::size(model.size),
                format::relative(&model.modified_at, now),
            ]);
        }
    }
    table.render()
}

fn loaded(models: &[LoadedModel], prefix: &str, now: DateTime<Utc>) -> String {
    let mut table = Table::with_header(&["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]);
    for model in models.iter().filter(|model| model.name.starts_with(prefix)) {
        table.row([
            model.name.clone(),
            id(&model.digest),
            format::size(model.size),
            processor(model.size, model.size_vram),
            model.context_length.to_string(),
            until(&model.expires_at, now),
        ]);
    }
    table.render()
}

fn id(digest: &str) -> String {
    digest.chars().take(ID_DIGITS).collect()
}

/// Where a model's bytes lie.
fn processor(size: u64, size_vram: u64) -> String {
    match size_vram {
        0 => "100% CPU".to_owned(),
        vram if vram == size => "100% GPU".to_owned(),
        vram if vram > size => "Unknown".to_owned(),
        vram => {
            let cpu = ((size - vram) as f64 / size as f64 * 100.0).round();
            format!("{cpu}%/{}% CPU/GPU", 100.0 - cpu)
        }
    }
}

fn until(expires_at: &str, now: DateTime<Utc>) -> String {
    match format::time(expires_at) {
        Some(time) if time < now => "Stopping...".to_owned(),
        Some(time) if time - now > TimeDelta::days(20 * 365) => "Forever".to_owned(),
        _ => format::relative(expires_at, now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        format::time("2026-01-01T00:00:00Z").unwrap()
    }

    #[test]
    fn list_filters_by_prefix_in_any_case() {
        let model = |name: &str| ListedModel {
            name: name.into(),
            size: 98_280_000,
            digest: "fd5f44c0b5af999".into(),
            modified_at: "2025-12-31T23:43:00Z".into(),
            ..Default::default()
        };
        let models = [model("smollm2:latest"), model("gemma:latest")];
        assert_eq!(
            listed(&models, "SMOL", now()),
            "NAME              ID              SIZE     MODIFIED       \n\
             smollm2:latest    fd5f44c0b5af    98 MB    17 minutes ago    \n"
        );
    }

    #[test]
    fn ps_says_where_and_until_when() {
        let model = LoadedModel {
            name: "smollm2:latest".into(),
            size: 209_000_000,
            digest: "fd5f44c0b5af999".into(),
            expires_at: "2026-01-01T00:04:59Z".into(),
            context_length: 4096,
            ..Default::default()
        };
        let table = "NAME              ID              SIZE      PROCESSOR    CONTEXT    UNTIL              \n\
                     smollm2:latest    fd5f44c0b5af    209 MB    100% CPU     4096       4 minutes from now    \n";
        assert_eq!(loaded(std::slice::from_ref(&model), "smol", now()), table);
        let header = "NAME    ID    SIZE    PROCESSOR    CONTEXT    UNTIL \n";
        assert_eq!(loaded(&[model], "SMOL", now()), header);
        assert_eq!(until("2319-03-04T20:51:18.4Z", now()), "Forever");
        assert_eq!(until("2025-12-31T23:59:59Z", now()), "Stopping...");
    }

    #[test]
    fn processor_shares_are_rounded() {
        assert_eq!(processor(100, 100), "100% GPU");
        assert_eq!(processor(100, 101), "Unknown");
        assert_eq!(processor(1000, 666), "33%/67% CPU/GPU");
        assert_eq!(processor(0, 0), "100% CPU");
    }
}
