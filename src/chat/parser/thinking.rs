//! Reasoning between two tags at the start of an answer.

/// Where in the answer the next character lies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    BeforeTag,
    /// The prompt has opened it; a model may do so again.
    Opened,
    AfterOpening,
    Thinking,
    AfterClosing,
    Content,
}

/// Separates reasoning from the answer that follows. Blanks before the opening tag and after
/// either tag are dropped; text that does not begin with the tag is all content.
#[derive(Debug)]
pub struct ThinkingParser {
    open: String,
    close: String,
    state: State,
    held: String,
    /// Whether reasoning is given out at all.
    keep: bool,
    /// Another tag that ends the reasoning and stays in the text; empty for none.
    interrupt: String,
}

impl ThinkingParser {
    /// For an answer to `prompt`: one that ends with the opening tag began the reasoning itself.
    pub fn new(open: &str, close: &str, prompt: &str) -> ThinkingParser {
        let state = match prompt.trim_end().ends_with(open) {
            true => State::Opened,
            false => State::BeforeTag,
        };
        ThinkingParser {
            open: open.into(),
            close: close.into(),
            state,
            held: String::new(),
            keep: true,
            interrupt: String::new(),
        }
    }

    /// The same, with the reasoning dropped.
    pub fn dropping(self) -> ThinkingParser {
        ThinkingParser {
            keep: false,
            ..self
        }
    }

    /// The same, with a tag that ends reasoning which was never closed: that of a tool call.
    pub fn ended_by(self, tag: &str) -> ThinkingParser {
        ThinkingParser {
            interrupt: tag.into(),
            ..self
        }
    }

    /// Whether the next text belongs to the reasoning.
    pub fn is_thinking(&self) -> bool {
        matches!(
            self.state,
            State::Opened | State::AfterOpening | State::Thinking
        )
    }

    /// The tag that would begin the reasoning, unless it has begun, and the one that ends it.
    pub fn tags(&self) -> (Option<&str>, &str) {
        let open = (!self.is_thinking()).then_some(self.open.as_str());
        (open, &self.close)
    }

    /// Takes a piece; returns what is decided of (reasoning, content).
    pub fn push(&mut self, piece: &str) -> (String, String) {
        self.held.push_str(piece);
        let (mut thinking, mut content) = (String::new(), String::new());
        while self.step(&mut thinking, &mut content) {}
        if !self.keep {
            thinking.clear();
        }
        (thinking, content)
    }

    /// What was held back at the end of the answer.
    pub fn finish(&mut self) -> (String, String) {
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Opened | State::Thinking if self.keep => (held, String::new()),
            State::BeforeTag | State::Content => (String::new(), held),
            _ => Default::default(),
        }
    }

    /// Moves one state on; false when more text is needed.
    fn step(&mut self, thinking: &mut String, content: &mut String) -> bool {
        match self.state {
            State::BeforeTag => self.find_opening(State::Content),
            State::Opened => self.find_opening(State::AfterOpening),
            State::AfterOpening => self.skip_blanks(State::Thinking),
            State::Thinking => self.take_thinking(thinking),
            State::AfterClosing => self.skip_blanks(State::Content),
            State::Content => {
                content.push_str(&std::mem::take(&mut self.held));
                false
            }
        }
    }

    /// Goes on behind the opening tag, or to `otherwise` where none comes.
    fn find_opening(&mut self, otherwise: State) -> bool {
        let text = self.held.trim_start();
        if let Some(rest) = text.strip_prefix(&self.open) {
            self.held = rest.to_string();
            self.state = State::AfterOpening;
            return true;
        }
        if self.open.starts_with(text) {
            return false;
        }
        self.state = otherwise;
        true
    }

    fn skip_blanks(&mut self, next: State) -> bool {
        self.held = self.held.trim_start().to_string();
        if self.held.is_empty() {
            return false;
        }
        self.state = next;
        true
    }

    fn take_thinking(&mut self, thinking: &mut String) -> bool {
        let interrupt = match self.interrupt.as_str() {
            "" => None,
            tag => self.held.find(tag),
        };
        match self.held.find(&self.close) {
            Some(at) if interrupt.is_none_or(|other| at < other) => {
                thinking.push_str(&self.held[..at]);
                self.held.drain(..at + self.close.len());
                self.state = State::AfterClosing;
                return true;
            }
            _ => {}
        }
        if let Some(at) = interrupt {
            thinking.extend(self.held.drain(..at));
            self.state = State::Content;
            return true;
        }
        let keep =
            partial_tag(&self.held, &self.close).max(partial_tag(&self.held, &self.interrupt));
        let rest = self.held.split_off(self.held.len() - keep);
        thinking.push_str(&std::mem::replace(&mut self.held, rest));
        false
    }
}

/// Length of the longest end of `text` that is a beginning of `tag`.
pub fn partial_tag(text: &str, tag: &str) -> usize {
    let longest = tag.len().min(text.len());
    (1..=longest)
        .rev()
        .find(|&n| tag.is_char_boundary(n) && text.ends_with(&tag[..n]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::splits::both_ways;
    use super::*;

    /// Reasoning and content of an answer to `prompt`.
    fn parsed(prompt: &str, text: &str) -> (String, String) {
        both_ways(text, |pieces| {
            let mut parser = ThinkingParser::new("<think>", "</think>", prompt).ended_by("<call>");
            let mut out = (String::new(), String::new());
            let mut add = |(thinking, content): (String, String)| {
                out.0 += &thinking;
                out.1 += &content;
            };
            pieces.iter().for_each(|piece| add(parser.push(piece)));
            add(parser.finish());
            out
        })
    }

    #[test]
    fn reasoning_is_separated() {
        let cases = [
            ("<think> internal </think> world", "internal ", "world"),
            (" \n abc", "", " \n abc"),
            (
                "  <think>a<think>b</think>c</think>d",
                "a<think>b",
                "c</think>d",
            ),
            ("<think>never closed </thi", "never closed </thi", ""),
            ("<thin air", "", "<thin air"),
            ("<thi", "", "<thi"),
            ("<think></think>\n\nx", "", "x"),
            ("x <think>y</think>", "", "x <think>y</think>"),
            ("<think>hm <call>f</call>", "hm ", "<call>f</call>"),
            ("<think>a</think><call>", "a", "<call>"),
        ];
        for (text, thinking, content) in cases {
            assert_eq!(
                parsed("", text),
                (thinking.into(), content.into()),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_prompt_may_open_the_reasoning() {
        let prompt = "<|assistant|><think>\n";
        for (text, thinking, content) in [
            ("\nwhy</think>\n\nso", "why", "so"),
            ("\n<think>\nwhy</think>so", "why", "so"),
            ("<think><think>why</think>so", "<think>why", "so"),
            ("</think>\n\nso", "", "so"),
            ("<thi", "<thi", ""),
            ("why <call>f", "why ", "<call>f"),
        ] {
            let expected = (thinking.to_owned(), content.to_owned());
            assert_eq!(parsed(prompt, text), expected, "{text}");
        }
        // Words of the assistant's that the prompt ends with are no reasoning.
        let continued = parsed("<|assistant|><think>\nSure, ", "so");
        assert_eq!(continued, (String::new(), "so".into()));
    }

    #[test]
    fn unwanted_reasoning_is_dropped() {
        let mut parser = ThinkingParser::new("<think>", "</think>", "").dropping();
        assert_eq!(
            parser.push("<think>a</think>b"),
            (String::new(), "b".into())
        );
    }

    #[test]
    fn multi_byte_tags_are_held_back_whole() {
        assert_eq!(
            partial_tag("a<｜tool▁c", "<｜tool▁calls▁begin｜>"),
            "<｜tool▁c".len()
        );
        assert_eq!(partial_tag("é", "<x>"), 0);
    }
}
