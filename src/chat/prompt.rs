//! A conversation fitted into a context: the oldest messages go first.

use super::{Error, Message, RenderInput, Role, Template};

/// A rendered conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    pub text: String,
    /// Messages at the front that were dropped for lack of room.
    pub n_dropped: usize,
    /// Images of the messages kept, in the order of their marks `[img-0]`, `[img-1]`...: index of
    /// the message in the conversation and of the image in it.
    pub images: Vec<(usize, usize)>,
}

/// Renders as much of the end of a conversation as fits into `n_ctx` tokens. System messages are
/// kept, in front; the last message is kept even if it is too long alone. `n_ctx` absent: nothing
/// is dropped. `count_tokens` tokenises a prompt.
///
/// Fewer messages are taken to need fewer tokens, so that the number to drop is found by halves:
/// thousands of messages take a dozen renderings.
pub fn fit(
    template: &Template,
    input: &RenderInput,
    n_ctx: Option<usize>,
    mut count_tokens: impl FnMut(&str) -> usize,
) -> Result<Prompt, Error> {
    let mut fits = |prompt: &Prompt| n_ctx.is_none_or(|n_ctx| count_tokens(&prompt.text) <= n_ctx);
    let whole = render_without(template, input, 0)?;
    let most = input.messages.len().saturating_sub(1);
    if most == 0 || fits(&whole) {
        return Ok(whole);
    }
    // Dropping `too_few` is not enough; `best` drops the fewest known to do.
    let mut too_few = 0;
    let mut best = render_without(template, input, most)?;
    while best.n_dropped - too_few > 1 {
        let tried = render_without(template, input, too_few.midpoint(best.n_dropped))?;
        match fits(&tried) {
            true => best = tried,
            false => too_few = tried.n_dropped,
        }
    }
    Ok(best)
}

fn render_without(
    template: &Template,
    input: &RenderInput,
    n_dropped: usize,
) -> Result<Prompt, Error> {
    let (messages, images) = kept(input.messages, n_dropped);
    let text = template.render(&RenderInput {
        messages: &messages,
        ..*input
    })?;
    Ok(Prompt {
        text,
        n_dropped,
        images,
    })
}

/// The conversation without its first `n_dropped` messages except system ones, image marks written.
fn kept(messages: &[Message], n_dropped: usize) -> (Vec<Message>, Vec<(usize, usize)>) {
    let (dropped, rest) = messages.split_at(n_dropped.min(messages.len()));
    let systems = dropped
        .iter()
        .enumerate()
        .filter(|(_, m)| m.role == Role::System);
    let rest = rest.iter().enumerate().map(|(i, m)| (i + dropped.len(), m));
    let mut images = Vec::new();
    let messages = systems.chain(rest).map(|(i, message)| {
        let mut message = message.clone();
        message.content = mark_images(&message, images.len());
        images.extend((0..message.n_images).map(|image| (i, image)));
        message
    });
    let messages = messages.collect();
    (messages, images)
}

/// The content with a mark for each image: in place of the next `[img]`, else in front.
fn mark_images(message: &Message, first: usize) -> String {
    let mut content = message.content.clone();
    let mut in_front = String::new();
    for number in first..first + message.n_images {
        let mark = format!("[img-{number}]");
        match content.contains("[img]") {
            true => content = content.replacen("[img]", &mark, 1),
            false => in_front.push_str(&mark),
        }
    }
    in_front + &content
}
