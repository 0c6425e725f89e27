//! A conversation laid out as the data of a Go template.
use super::{Error, RenderInput, gotemplate::GoTemplate};
pub fn parse(text: &str) -> Result<GoTemplate, Error> {
    GoTemplate::parse(text)
}
pub fn render(t: &GoTemplate, _: &RenderInput) -> Result<String, Error> {
    Err(Error::Render(t.text().into()))
}
pub fn render_insert(t: &GoTemplate, _: &str, _: &str, _: &RenderInput) -> Result<String, Error> {
    Err(Error::Render(t.text().into()))
}
