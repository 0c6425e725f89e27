//! What callers may change: everything on one's own machine, next to nothing on a public server.

use super::error::ApiError;
use crate::store::ModelName;
use warp::http::StatusCode;

/// What callers may change.
#[derive(Debug, Clone, Default)]
pub enum Changes {
    /// All models.
    #[default]
    All,
    /// Nothing, but for models pulled from these registries (`HOST` or `HOST:PORT`).
    PullsFrom(Vec<String>),
}

impl Changes {
    /// # Errors
    /// 403 where callers may not make, copy, remove or send models.
    pub fn any(&self) -> Result<(), ApiError> {
        match self {
            Changes::All => Ok(()),
            Changes::PullsFrom(_) => Err(forbidden(
                "this server lets nobody change its models; serve --allow-changes would".into(),
            )),
        }
    }

    /// # Errors
    /// 403 where callers may not pull from this model's registry.
    pub fn pull(&self, name: &ModelName) -> Result<(), ApiError> {
        let Changes::PullsFrom(listed) = self else {
            return Ok(());
        };
        let host = name.host();
        if listed.iter().any(|own| own.eq_ignore_ascii_case(host)) {
            return Ok(());
        }
        Err(forbidden(format!(
            "this server pulls from the registries in OLLAMA_WGPU_REGISTRIES alone, and {host} is none of them"
        )))
    }
}

fn forbidden(why: String) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulls_are_of_listed_registries_alone() {
        let changes = Changes::PullsFrom(vec!["hub.example:5000".into(), "hf.co".into()]);
        for (name, is_listed) in [
            ("hf.co/user/repo:Q4_K_M", true),
            ("HF.CO/user/repo", true),
            ("hub.example:5000/a/b", true),
            ("hub.example/a/b", false),
            ("hub.example:5001/a/b", false),
            ("evil.hf.co/a/b", false),
            ("llama3.2", false),
        ] {
            let name = ModelName::parse(name).unwrap();
            assert!(Changes::All.pull(&name).is_ok());
            let pulled = changes.pull(&name);
            assert_eq!(pulled.is_ok(), is_listed, "{name}");
            if let Err(e) = pulled {
                assert_eq!(e.status, StatusCode::FORBIDDEN);
                assert!(e.message.contains(name.host()), "{}", e.message);
            }
        }
        assert!(Changes::All.any().is_ok());
        assert_eq!(changes.any().unwrap_err().status, StatusCode::FORBIDDEN);
    }
}
