//! Prompts as they are put together: messages that fit, marks of images, BOS, levels of thought.

use super::*;

/// The template of Ollama's tests of prompt assembly.
const THREE_BRANCHES: &str = "{{ if .System }}{{ .System }} {{ end }}{{ if .Prompt }}{{ .Prompt }} {{ end }}{{ if .Response }}{{ .Response }} {{ end }}";

#[test]
fn images_are_marked_in_the_order_of_the_messages_kept() {
    let template = Template::parse_go(THREE_BRANCHES).unwrap();
    let fitted = |messages: &[Message], n_ctx: usize| {
        let input = RenderInput {
            messages,
            tools: &[],
            think: None,
            now: now(),
        };
        let prompt = fit(&template, &input, Some(n_ctx), str::len).unwrap();
        (prompt.text, prompt.images)
    };
    let joined = [user("You're a test, Harry!", 0), user("", 1), user("", 1)];
    let expected = "You're a test, Harry!\n\n[img-0]\n\n[img-1] ".to_string();
    assert_eq!(fitted(&joined, 40), (expected, vec![(1, 0), (2, 0)]));
    assert_eq!(
        fitted(&joined, 39),
        ("[img-0]\n\n[img-1] ".into(), vec![(1, 0), (2, 0)])
    );
    assert_eq!(fitted(&joined, 16), ("[img-0] ".into(), vec![(2, 0)]));
    let placed = [user("You're a test, Harry! [img]", 1)];
    assert_eq!(fitted(&placed, 99).0, "You're a test, Harry! [img-0] ");
    assert_eq!(fitted(&[user("Look", 2)], 99).0, "[img-0][img-1]Look ");
}

#[test]
fn dropped_system_messages_move_to_the_front() {
    let template =
        Template::parse_go("{{ range .Messages }}{{ .Role }}:{{ .Content }};{{ end }}").unwrap();
    let say = |role: Role, text: &str| Message::new(role, text);
    let messages = [
        say(Role::User, "a"),
        say(Role::System, "s"),
        say(Role::Assistant, "b"),
        say(Role::User, "c"),
    ];
    let input = RenderInput {
        messages: &messages,
        tools: &[],
        think: None,
        now: now(),
    };
    let text = |n_ctx| fit(&template, &input, n_ctx, str::len).unwrap().text;
    assert_eq!(text(None), "user:a;system:s;assistant:b;user:c;");
    assert_eq!(text(Some(30)), "system:s;assistant:b;user:c;");
    assert_eq!(text(Some(20)), "system:s;user:c;");
    assert_eq!(text(Some(1)), "system:s;user:c;");
}

/// The rows of Ollama's tests of prompt assembly that are about messages; a character stands for a token.
#[test]
fn messages_are_kept_from_the_end() {
    let template = Template::parse_go(THREE_BRANCHES).unwrap();
    let say = |role: Role, text: &str| Message::new(role, text);
    let in_the_middle = [
        user("You're a test, Harry!", 0),
        say(Role::Assistant, "I-I'm a what?"),
        say(Role::System, "You are the Test Who Lived."),
        user("A test. And a thumping good one at that, I'd wager.", 0),
    ];
    let whole = "You're a test, Harry! I-I'm a what? You are the Test Who Lived. A test. And a thumping good one at that, I'd wager. ";
    let rest = &whole["You're a test, Harry! ".len()..];
    let last = "You are the Test Who Lived. A test. And a thumping good one at that, I'd wager. ";
    let tool = [
        user("a", 0),
        Message {
            n_images: 1,
            ..say(Role::Tool, "b")
        },
    ];
    let by_message = "{{ range .Messages }}{{ .Role }}:{{ .Content }};{{ end }}";
    let by_message = Template::parse_go(by_message).unwrap();
    for (template, messages, n_ctx, expected) in [
        (&template, &in_the_middle[..], Some(2048), whole),
        (&template, &in_the_middle, Some(whole.len() - 1), rest),
        (&template, &in_the_middle, Some(1), last),
        (&template, &in_the_middle, None, whole),
        (&by_message, &tool, Some(2048), "user:a;tool:[img-0]b;"),
    ] {
        let input = RenderInput {
            messages,
            tools: &[],
            think: None,
            now: now(),
        };
        let mut n_counted = 0;
        let prompt = fit(template, &input, n_ctx, |text| {
            n_counted += 1;
            text.len()
        });
        assert_eq!(prompt.unwrap().text, expected, "{n_ctx:?}");
        // What fits is counted once, what may be of any length never.
        if n_ctx.is_none_or(|n| n == 2048) {
            assert_eq!(n_counted, usize::from(n_ctx.is_some()));
        }
    }
}

/// A tokenizer that adds BOS gets none from the template: a GGUF's own, or `<bos>` of a Go template.
#[test]
fn bos_is_not_doubled() {
    let jinja = Template::parse_jinja("{{ messages }}", "<s>", "</s>").unwrap();
    let go = Template::parse_go("{{ .Prompt }}").unwrap();
    for (template, prompt, expected) in [
        (&jinja, "<s>a", "a"),
        (&jinja, "<s><s>a", "<s>a"),
        (&jinja, "<bos>a", "<bos>a"),
        (&go, "<bos>a", "a"),
        (&go, "<|begin_of_text|>a", "<|begin_of_text|>a"),
        (&go, "a<bos>", "a<bos>"),
    ] {
        assert_eq!(template.without_bos(prompt), expected);
    }
}

/// gpt-oss knows three levels.
#[test]
fn max_is_high_for_gpt_oss() {
    let level = |template: Template, think| {
        let input = RenderInput {
            messages: &[],
            tools: &[],
            think: Some(think),
            now: now(),
        };
        let prompt = template.render(&input).unwrap();
        prompt.split('|').next_back().unwrap().to_owned()
    };
    let go = |marks: &str| {
        let text = format!("{marks}{{{{ range .Messages }}}}{{{{ end }}}}|{{{{ .ThinkLevel }}}}");
        Template::parse_go(&text).unwrap()
    };
    let jinja = |marks: &str| {
        let text = format!("{marks}|{{{{ reasoning_effort }}}}");
        Template::parse_jinja(&text, "", "").unwrap()
    };
    let marks = "<|start|><|channel|><|message|>";
    for (think, of_gpt_oss, of_others) in [(Think::Max, "high", "max"), (Think::Low, "low", "low")]
    {
        assert_eq!(level(go(marks), think), of_gpt_oss);
        assert_eq!(level(jinja(marks), think), of_gpt_oss);
        assert_eq!(level(go(""), think), of_others);
        assert_eq!(level(jinja(""), think), of_others);
    }
    assert_eq!(level(go(marks), Think::Off), "");
    assert_eq!(level(go(marks), Think::On), "medium");
}
