//! Answers of messages: each has a header that says whether its text is reasoning, content or the arguments of a call.

use super::dialects::{Dialect, Kind, MESSAGE, START};
use super::thinking::partial_tag;
use super::{Delta, ReasoningTags, Tool, ToolCall};

/// Where in the answer the next character lies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Header,
    Body,
    /// After the end of a message.
    Between,
}

/// Splits an answer into its messages' texts.
#[derive(Debug)]
pub struct HarmonyParser {
    dialect: &'static Dialect,
    tools: Vec<Tool>,
    place: Place,
    kind: Kind,
    held: String,
    arguments: String,
    n_calls: usize,
    /// Whether reasoning is given out at all.
    keeps_thinking: bool,
}

impl HarmonyParser {
    /// For an answer to `prompt`, which has begun a message: with `<|start|>assistant`, or with a whole header and words
    /// to be continued.
    pub fn new(
        dialect: &'static Dialect,
        prompt: &str,
        tools: &[Tool],
        keeps_thinking: bool,
    ) -> HarmonyParser {
        let mut parser = HarmonyParser {
            dialect,
            tools: tools.to_vec(),
            place: Place::Between,
            kind: Kind::Content,
            held: String::new(),
            arguments: String::new(),
            n_calls: 0,
            keeps_thinking,
        };
        match prompt.rfind(START) {
            // What these words say was said before.
            Some(at) => drop(parser.push(&prompt[at..])),
            None => parser.place = Place::Header,
        }
        if parser.place != Place::Header {
            parser.held.clear();
        }
        parser
    }

    /// How reasoning stands before the answer; none where the prompt has begun the answer itself.
    pub fn reasoning(&self) -> Option<ReasoningTags<'static>> {
        match (self.place, &self.kind) {
            (Place::Body, Kind::Thinking) => Some(ReasoningTags {
                open: None,
                ..self.dialect.reasoning
            }),
            (Place::Body, _) => None,
            _ => Some(self.dialect.reasoning),
        }
    }

    /// Whether the next text is reasoning.
    pub fn is_thinking(&self) -> bool {
        self.place == Place::Body && self.kind == Kind::Thinking
    }

    /// Takes a piece; returns what is decided.
    pub fn push(&mut self, piece: &str) -> Delta {
        self.held.push_str(piece);
        let mut delta = Delta::default();
        while self.step(&mut delta) {}
        delta
    }

    /// What was held back at the end. A call that lacks its end counts if its arguments are whole.
    pub fn finish(&mut self) -> Delta {
        let mut delta = Delta::default();
        let held = std::mem::take(&mut self.held);
        match self.place {
            Place::Body | Place::Between => self.give(&held, &mut delta),
            // A model that writes no headers has written its answer here.
            Place::Header if !held.contains(self.dialect.header) => {
                delta.content += held.strip_prefix("assistant").unwrap_or(&held);
            }
            Place::Header => {}
        }
        self.end_message(&mut delta);
        delta
    }

    /// Goes on to the next tag; false when more text is needed.
    fn step(&mut self, delta: &mut Delta) -> bool {
        let ends = self.dialect.ends.iter().copied();
        let tags: Vec<&str> = match self.place {
            Place::Header => [MESSAGE, START].into_iter().chain(ends).collect(),
            Place::Body => ends.chain([START]).collect(),
            Place::Between => [START].into_iter().chain(self.dialect.headless).collect(),
        };
        let found = tags
            .iter()
            .filter_map(|&tag| self.held.find(tag).map(|at| (at, tag)))
            .min();
        let Some((at, tag)) = found else {
            if self.place != Place::Header {
                let may_grow = tags.iter().map(|tag| partial_tag(&self.held, tag));
                let n_kept = may_grow.max().unwrap_or(0);
                let rest = self.held.split_off(self.held.len() - n_kept);
                let decided = std::mem::replace(&mut self.held, rest);
                self.give(&decided, delta);
            }
            return false;
        };
        let before: String = self.held.drain(..at + tag.len()).collect();
        let before = &before[..at];
        match (self.place, tag) {
            (Place::Header, MESSAGE) => {
                self.kind = (self.dialect.kind)(before);
                self.place = Place::Body;
                return true;
            }
            (Place::Header, _) => {}
            _ => self.give(before, delta),
        }
        self.end_message(delta);
        match tag {
            START => self.place = Place::Header,
            // A header without its beginning.
            tag if self.dialect.headless == Some(tag) => {
                self.held.insert_str(0, tag);
                self.place = Place::Header;
            }
            _ => self.place = Place::Between,
        }
        true
    }

    /// Text of the message at hand.
    fn give(&mut self, text: &str, delta: &mut Delta) {
        match &self.kind {
            Kind::Thinking if self.keeps_thinking => delta.thinking += text,
            Kind::Thinking => {}
            Kind::Content => delta.content += text,
            Kind::Call(_) => self.arguments += text,
        }
    }

    /// A call is made when its message ends; one whose arguments cannot be read is given out as text.
    fn end_message(&mut self, delta: &mut Delta) {
        let Kind::Call(name) = std::mem::replace(&mut self.kind, Kind::Content) else {
            return;
        };
        let text = std::mem::take(&mut self.arguments);
        let Some(calls) = (self.dialect.calls)(&name, &text, &self.tools) else {
            delta.content += &text;
            return;
        };
        for (name, arguments) in calls {
            delta.tool_calls.push(ToolCall {
                id: String::new(),
                index: self.n_calls,
                name,
                arguments,
            });
            self.n_calls += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dialects::dialect_of;
    use super::super::splits::both_ways;
    use super::*;
    use serde_json::{Value, json};

    /// Reasoning, content and calls of an answer to `prompt`.
    fn parsed(prompt: &str, text: &str) -> (String, String, Value) {
        both_ways(text, |pieces| {
            let mut parser = HarmonyParser::new(harmony(), prompt, &[], true);
            let mut deltas: Vec<Delta> = pieces.iter().map(|p| parser.push(p)).collect();
            deltas.push(parser.finish());
            let calls = deltas.iter().flat_map(|d| &d.tool_calls);
            (
                deltas.iter().map(|d| d.thinking.as_str()).collect(),
                deltas.iter().map(|d| d.content.as_str()).collect(),
                calls
                    .map(|c| json!([c.index, c.name, c.arguments]))
                    .collect(),
            )
        })
    }

    fn harmony() -> &'static Dialect {
        dialect_of("<|start|><|channel|><|message|>").unwrap()
    }

    const PROMPT: &str = "<|start|>user<|message|>Hi<|end|><|start|>assistant";

    #[test]
    fn channels_are_told_apart() {
        let cases = [
            (
                "<|channel|>analysis<|message|>So <b> it is.<|end|><|start|>assistant<|channel|>final<|message|>Yes < no",
                "So <b> it is.",
                "Yes < no",
            ),
            (
                "<|channel|>final<|message|>Yes<|return|>",
                "",
                "Yes<|return|>",
            ),
            (
                "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>final<|message|> So.",
                "",
                "I look. So.",
            ),
            // The end of a message is missing, or the beginning of the next.
            (
                "<|channel|>analysis<|message|>a<|start|>assistant<|channel|>final<|message|>b",
                "a",
                "b",
            ),
            (
                "<|channel|>analysis<|message|>a<|end|><|channel|>final<|message|>b",
                "a",
                "b",
            ),
            ("No header at all", "", "No header at all"),
            ("<|channel|>analysis<|message|>cut <|en", "cut <|en", ""),
            ("<|channel|>ana", "", ""),
            ("<|channel|>final <|constrain|>json<|message|>{}", "", "{}"),
            ("", "", ""),
        ];
        for (text, thinking, content) in cases {
            let expected = (thinking.to_owned(), content.to_owned(), json!([]));
            assert_eq!(parsed(PROMPT, text), expected, "{text}");
        }
    }

    #[test]
    fn a_recipient_makes_a_call() {
        let paris = json!([[0, "f", {"city": "Paris"}]]);
        for header in [
            "<|channel|>commentary to=functions.f <|constrain|>json<|message|>",
            "<|channel|>commentary to=functions.f<|message|>",
            " to=functions.f<|channel|>commentary json<|message|>",
            "<|channel|>analysis to=f code<|message|>",
        ] {
            let text = format!("<|channel|>analysis<|message|>hm<|end|><|start|>assistant{header}");
            let expected = ("hm".to_owned(), String::new(), paris.clone());
            for end in ["", "<|call|>", "<|end|>"] {
                let text = format!("{text}{{\"city\": \"Paris\"}}{end}");
                assert_eq!(parsed(PROMPT, &text), expected, "{text}");
            }
        }
        let two = "<|channel|>commentary to=functions.f<|message|><|call|><|start|>assistant<|channel|>commentary to=browser.open<|message|>{\"id\":1}";
        assert_eq!(
            parsed(PROMPT, two).2,
            json!([[0, "f", {}], [1, "browser.open", {"id": 1}]])
        );
        let broken = "<|channel|>commentary to=functions.f<|message|>{\"city\": <|call|>";
        assert_eq!(
            parsed(PROMPT, broken),
            (String::new(), "{\"city\": ".into(), json!([]))
        );
        let to_user = "<|channel|>final to=user<|message|>Hello";
        assert_eq!(parsed(PROMPT, to_user).1, "Hello");
    }

    #[test]
    fn a_prompt_may_have_begun_the_message() {
        let answer = |header: &str| parsed(&format!("{PROMPT}{header}"), " on<|end|>");
        let content = |text: &str| (String::new(), text.to_owned(), json!([]));
        assert_eq!(answer("<|channel|>final<|message|>Go"), content(" on"));
        assert_eq!(answer("<|channel|>analysis<|message|>Go").0, " on");
        let tags = |prompt: &str| HarmonyParser::new(harmony(), prompt, &[], true).reasoning();
        assert_eq!(tags(PROMPT), Some(harmony().reasoning));
        assert_eq!(tags(&format!("{PROMPT}{}", harmony().answer)), None);
        let open = format!("{PROMPT}<|channel|>analysis<|message|>");
        assert_eq!(tags(&open).expect("reasoning").open, None);
    }

    #[test]
    fn unwanted_reasoning_is_dropped() {
        let mut parser = HarmonyParser::new(harmony(), PROMPT, &[], false);
        let text = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>So";
        let delta = parser.push(text);
        assert_eq!(
            (delta.thinking.as_str(), delta.content.as_str()),
            ("", "So")
        );
    }
}
