//! Recognising a GGUF's chat template as one the server ships as a Go template.

use crate::chat::shipped::{self, Shipped};

/// Templates within this many edits are the same one in another wording, by Ollama's measure.
const MAX_EDITS: usize = 100;

/// ChatML as models write it in Jinja: plain, and with a system prompt of the model's own.
const CHATML: [&str; 2] = [
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
];

/// The shipped template that says the same as `jinja`, if there is one.
///
/// Ollama goes by the edit distance alone and takes some short templates with other marks for ChatML; here the marks
/// must be there too.
pub(super) fn recognise(jinja: &str) -> Option<Shipped> {
    let chatml = jinja.contains("<|im_start|>") && jinja.contains("<|im_end|>");
    let close = || {
        CHATML
            .iter()
            .any(|known| is_within(known, jinja.trim(), MAX_EDITS))
    };
    (chatml && close()).then(shipped::chatml)
}

/// Whether fewer than `limit` insertions, deletions and replacements of bytes turn `a` into `b` (Levenshtein).
fn is_within(a: &str, b: &str, limit: usize) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len().abs_diff(b.len()) >= limit {
        return false;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()] < limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chatml_with_another_system_prompt() {
        let smollm = CHATML[1].replace(
            "a helpful assistant",
            "a helpful AI assistant named SmolLM, trained by Hugging Face",
        );
        assert_eq!(recognise(&smollm).unwrap().name, "chatml");
        assert_eq!(recognise(CHATML[0]).unwrap().name, "chatml");
    }

    #[test]
    fn others_are_left_alone() {
        let llama3 = CHATML[0]
            .replace("<|im_start|>", "<|start_header_id|>")
            .replace("<|im_end|>", "<|eot_id|>");
        assert!(
            is_within(CHATML[0], &llama3, MAX_EDITS),
            "close, but with other marks"
        );
        assert!(recognise(&llama3).is_none());
        let with_tools = format!(
            "{{% if tools %}}{}{{% endif %}}{}",
            "x".repeat(100),
            CHATML[0]
        );
        assert!(recognise(&with_tools).is_none());
        assert!(recognise("").is_none());
    }

    #[test]
    fn edit_distance() {
        for (a, b, edits) in [
            ("", "", 0),
            ("kitten", "sitting", 3),
            ("abc", "", 3),
            ("ab", "ba", 2),
        ] {
            assert!(is_within(a, b, edits + 1), "{a} {b}");
            assert!(!is_within(a, b, edits), "{a} {b}");
        }
    }
}
