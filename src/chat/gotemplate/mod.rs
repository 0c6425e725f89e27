//! Go templates.
use super::Error;
use std::collections::BTreeSet;
#[derive(Debug)]
pub struct GoTemplate {
    text: String,
}
impl GoTemplate {
    pub fn parse(_: &str) -> Result<GoTemplate, Error> {
        Err(Error::Parse(
            "template: Go templates are not rendered yet".into(),
        ))
    }
    pub fn text(&self) -> &str {
        &self.text
    }
    pub fn identifiers(&self) -> BTreeSet<String> {
        BTreeSet::new()
    }
    pub fn tool_tag(&self) -> String {
        "{".into()
    }
    pub fn thinking_tags(&self) -> Option<(String, String)> {
        None
    }
}
