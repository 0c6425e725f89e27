//! Vocabularies made for a test, good and bad.

use proptest::prelude::*;

use super::super::*;
use super::any_text;

/// A GGUF file with a vocabulary and nothing else, key by key.
#[derive(Default)]
struct File {
    keys: u64,
    bytes: Vec<u8>,
}

impl File {
    fn key(&mut self, key: &str, kind: u32, value: &[u8]) -> &mut File {
        self.keys += 1;
        self.bytes.extend(string(key.as_bytes()));
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend(value);
        self
    }

    fn text(&mut self, key: &str, value: &str) -> &mut File {
        self.key(key, 8, &string(value.as_bytes()))
    }

    fn id(&mut self, name: &str, id: u32) -> &mut File {
        let key = format!("tokenizer.ggml.{name}_token_id");
        self.key(&key, 4, &id.to_le_bytes())
    }

    fn flag(&mut self, key: &str, value: bool) -> &mut File {
        self.key(&format!("tokenizer.ggml.{key}"), 7, &[value.into()])
    }

    fn list(&mut self, key: &str, kind: u32, items: &[Vec<u8>]) -> &mut File {
        let mut value = kind.to_le_bytes().to_vec();
        value.extend((items.len() as u64).to_le_bytes());
        value.extend(items.concat());
        self.key(&format!("tokenizer.ggml.{key}"), 9, &value)
    }

    fn tokens(&mut self, texts: &[&[u8]]) -> &mut File {
        let items: Vec<_> = texts.iter().map(|t| string(t)).collect();
        self.list("tokens", 8, &items)
    }

    fn types(&mut self, types: &[i32]) -> &mut File {
        let items: Vec<_> = types.iter().map(|t| t.to_le_bytes().to_vec()).collect();
        self.list("token_type", 5, &items)
    }

    fn scores(&mut self, scores: &[f32]) -> &mut File {
        let items: Vec<_> = scores.iter().map(|s| s.to_le_bytes().to_vec()).collect();
        self.list("scores", 6, &items)
    }

    fn merges(&mut self, merges: &[&[u8]]) -> &mut File {
        let items: Vec<_> = merges.iter().map(|t| string(t)).collect();
        self.list("merges", 8, &items)
    }

    fn load(&self) -> Result<Tokenizer, Error> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend(0u64.to_le_bytes());
        bytes.extend((self.keys + 1).to_le_bytes());
        bytes.extend(string(b"general.architecture"));
        bytes.extend(8u32.to_le_bytes());
        bytes.extend(string(b"llama"));
        bytes.extend(&self.bytes);
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), bytes).expect("written");
        Tokenizer::from_gguf(&Gguf::open(file.path()).expect("a valid file"))
    }

    fn built(&self) -> Tokenizer {
        self.load().expect("a usable vocabulary")
    }

    fn refusal(&self) -> String {
        let refused = self.load().err().expect("the vocabulary is refused");
        refused.to_string()
    }
}

fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text].concat()
}

/// A byte-level vocabulary of these tokens and merges, in GPT-2's way of cutting words.
fn bpe(tokens: &[&[u8]], merges: &[&[u8]]) -> File {
    let mut file = File::default();
    file.text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", "gpt-2")
        .tokens(tokens)
        .merges(merges);
    file
}

/// A scored vocabulary: `<unk>`, `<s>` and `</s>`, then these normal entries.
fn spm(entries: &[(&str, f32)]) -> File {
    let heads = [&b"<unk>"[..], b"<s>", b"</s>"];
    let tokens = heads
        .into_iter()
        .chain(entries.iter().map(|e| e.0.as_bytes()));
    let scores = [0.0; 3].into_iter().chain(entries.iter().map(|e| e.1));
    let kind = |text: &str| if text.starts_with("<0x") { 6 } else { 1 };
    let types = [2, 3, 3]
        .into_iter()
        .chain(entries.iter().map(|e| kind(e.0)));
    let mut file = File::default();
    file.text("tokenizer.ggml.model", "llama")
        .tokens(&tokens.collect::<Vec<_>>())
        .scores(&scores.collect::<Vec<_>>())
        .types(&types.collect::<Vec<_>>());
    file
}

/// A WordPiece vocabulary: these entries behind its own four.
fn wordpiece(entries: &[&str]) -> File {
    let own = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let texts = own.iter().chain(entries).map(|e| e.as_bytes());
    let types: Vec<_> = (0..4 + entries.len())
        .map(|i| if i < 4 { 3 } else { 1 })
        .collect();
    let mut file = File::default();
    file.text("tokenizer.ggml.model", "bert")
        .tokens(&texts.collect::<Vec<_>>())
        .types(&types)
        .id("unknown", 0)
        .id("bos", 1)
        .id("seperator", 2);
    file
}

fn texts(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let text = |&id| tokenizer.token_text(id).unwrap_or_default().to_owned();
    ids.iter().map(text).collect()
}

#[test]
fn what_is_missing_or_unknown_is_named() {
    let none = File::default().refusal();
    assert!(none.contains("`tokenizer.ggml.model`"), "{none}");
    let other = File::default()
        .text("tokenizer.ggml.model", "rwkv")
        .refusal();
    assert!(
        other.contains("tokenizer model `rwkv` is not supported"),
        "{other}"
    );
    let mut file = File::default();
    file.text("tokenizer.ggml.model", "gpt2");
    assert!(file.refusal().contains("`tokenizer.ggml.tokens`"));
    file.tokens(&[b"a"]);
    assert!(file.refusal().contains("`tokenizer.ggml.merges`"));
    file.merges(&[]).text("tokenizer.ggml.pre", "nonesuch");
    let pre = file.refusal();
    assert!(
        pre.contains("pre-tokenizer `nonesuch` is not supported"),
        "{pre}"
    );
    assert!(pre.contains("llama-bpe, "), "{pre}");
}

#[test]
fn arrays_of_another_length_are_refused() {
    let types = bpe(&[b"a", b"b"], &[]).types(&[1]).refusal();
    assert!(types.contains("`tokenizer.ggml.token_type` has 1 entries for a vocabulary of 2"));
    assert!(
        bpe(&[], &[])
            .refusal()
            .contains("`tokenizer.ggml.tokens` has 0")
    );
    let mut file = File::default();
    file.text("tokenizer.ggml.model", "llama")
        .tokens(&[b"a", b"b"]);
    assert!(file.refusal().contains("no `tokenizer.ggml.scores`"));
    assert!(
        file.scores(&[0.0])
            .refusal()
            .contains("`tokenizer.ggml.scores` has 1")
    );
}

#[test]
fn a_flag_without_its_token_is_refused() {
    let refusal = bpe(&[b"a"], &[]).flag("add_bos_token", true).refusal();
    assert!(
        refusal.contains("(`tokenizer.ggml.add_bos_token`)"),
        "{refusal}"
    );
    let outside = bpe(&[b"a"], &[])
        .id("eos", 7)
        .flag("add_eos_token", true)
        .refusal();
    assert!(
        outside.contains("`tokenizer.ggml.eos_token_id`"),
        "{outside}"
    );
}

#[test]
fn odd_entries_are_harmless() {
    let tokens: &[&[u8]] = &[b"a", b"", b"a", b"\xFF\xFE", b"b", b"ab"];
    let merges: &[&[u8]] = &[b"a b", b"", b" ", b"a", b"x y", b"a \xFF", b"b a"];
    let tokenizer = bpe(tokens, merges).id("eos", 4_000_000).built();
    assert_eq!(tokenizer.n_vocab(), 6);
    assert_eq!(tokenizer.encode("abba", true, true), [5, 4, 0]);
    assert_eq!(tokenizer.token_id("a"), Some(0));
    assert_eq!(tokenizer.token_text(1), Some("[EMPTY_1]"));
    assert_eq!(tokenizer.token_text(3), None);
    assert_eq!(tokenizer.token_bytes(3), b"\xFF\xFE");
    assert_eq!(
        tokenizer.decode(&[3, 5, 4_000_000_000], true),
        "\u{FFFD}\u{FFFD}ab"
    );
    assert_eq!(tokenizer.eos(), None);
    assert!(!tokenizer.is_end_of_generation(4_000_000));
    assert_eq!(tokenizer.token_text(6), None);
}

#[test]
fn nothing_merges_across_a_byte_without_an_entry() {
    let tokenizer = bpe(&[b"a", b"b", b"ab"], &[b"a b"]).built();
    assert_eq!(tokenizer.encode("ab", false, false), [2]);
    assert_eq!(tokenizer.encode("acb", false, false), [0, 1]);
}

#[test]
fn the_longest_special_token_is_found_first() {
    let tokenizer = bpe(&[b"a", b"b", b"c", b"d", b"ab", b"bcd", b"bc"], &[])
        .types(&[1, 1, 1, 1, 4, 4, 4])
        .built();
    let find = |text| texts(&tokenizer, &tokenizer.encode(text, false, false));
    assert_eq!(find("abcd"), ["a", "bcd"]);
    assert_eq!(find("abc"), ["ab", "c"]);
    assert_eq!(find("abcabcd"), ["ab", "c", "a", "bcd"]);
    assert_eq!(find("bcbcd"), ["bc", "bcd"]);
}

#[test]
fn control_tokens_are_only_parsed_when_asked() {
    let tokenizer = bpe(&[b"<", b"s", b">", b"<s>"], &[])
        .types(&[1, 1, 1, 3])
        .built();
    assert_eq!(tokenizer.encode("s<s>", false, true), [1, 3]);
    assert_eq!(tokenizer.encode("s<s>", false, false), [1, 0, 1, 2]);
    assert_eq!(tokenizer.decode(&[1, 3], true), "s<s>");
    assert_eq!(tokenizer.decode(&[1, 3], false), "s");
}

#[test]
fn ends_are_known_by_id_and_by_text() {
    let tokens: &[&[u8]] = &[
        b"a",
        b"b",
        b"<|im_end|>",
        b"<|file_sep|>",
        b"<|fim_prefix|>",
    ];
    let tokenizer = bpe(tokens, &[]).id("eos", 0).id("eot", 1).built();
    let is_end = |id| tokenizer.is_end_of_generation(id);
    assert_eq!(
        [0, 1, 2, 3, 4, 5].map(is_end),
        [true, true, true, true, false, false]
    );
    // The file does not say so, but its text makes it markup.
    assert_eq!(
        [0, 1, 2, 3, 4].map(|id| tokenizer.is_control(id)),
        [false, false, true, true, true]
    );
}

#[test]
fn an_inner_end_does_not_end_the_answer() {
    let tokens: &[&[u8]] = &[b"<|end|>", b"<|return|>", b"<|call|>", b"<|channel|>"];
    let tokenizer = bpe(tokens, &[]).types(&[3, 3, 3, 3]).built();
    let is_end = |id| tokenizer.is_end_of_generation(id);
    assert_eq!([0, 1, 2, 3].map(is_end), [false, true, true, false]);
    assert_eq!(tokenizer.decode(&[3, 0, 1], false), "<|channel|><|end|>");
    let alone = bpe(&[b"<|end|>"], &[]).built();
    assert!(alone.is_end_of_generation(0));
}

#[test]
fn the_best_score_merges_first_and_the_left_of_equals() {
    let tokenizer = spm(&[
        ("a", 0.0),
        ("b", 0.0),
        ("ab", -2.0),
        ("ba", -1.0),
        ("aa", -1.0),
    ])
    .flag("add_space_prefix", false)
    .built();
    let merge = |text| texts(&tokenizer, &tokenizer.encode(text, false, false));
    assert_eq!(merge("ab"), ["ab"]);
    assert_eq!(merge("aba"), ["a", "ba"]);
    assert_eq!(merge("aaa"), ["aa", "a"]);
}

#[test]
fn words_are_made_plain_and_covered_from_the_left() {
    let entries = [
        "\u{2581}cafe",
        "s",
        "\u{2581}!",
        "\u{2581}\u{1112}",
        "\u{1161}",
        "\u{11AB}",
        "\u{2581}a",
    ];
    let tokenizer = wordpiece(&entries).built();
    let words = |text| texts(&tokenizer, &tokenizer.encode(text, false, true));
    assert_eq!(tokenizer.encode("", true, true), [1, 2]);
    assert_eq!(words("Caf\u{E9}s!"), ["\u{2581}cafe", "s", "\u{2581}!"]);
    assert_eq!(words("ca\u{AD}f\0es"), ["\u{2581}cafe", "s"]);
    assert_eq!(
        words("\u{D55C}"),
        ["\u{2581}\u{1112}", "\u{1161}", "\u{11AB}"]
    );
    assert_eq!(words("cafex a[MASK]"), ["[UNK]", "\u{2581}a", "[MASK]"]);
    assert_eq!(words("\u{4E00}a"), ["[UNK]", "\u{2581}a"]);
    let s = "s".repeat(96);
    assert_eq!(
        tokenizer.encode(&format!("cafe{s}"), false, false).len(),
        97
    );
    assert_eq!(words(&format!("cafe{s}s")), ["[UNK]"]);
    assert_eq!(tokenizer.decode(&[4, 5, 6], false), " cafes !");
}

#[test]
fn cased_words_keep_their_accents() {
    let tokenizer = wordpiece(&["\u{2581}\u{C9}t", "\u{E9}"])
        .flag("normalizer.lowercase", false)
        .built();
    assert_eq!(tokenizer.encode("\u{C9}t\u{E9}", true, false), [1, 4, 5, 2]);
}

#[test]
fn the_beginning_is_added_as_the_file_says_or_its_pre_tokenizer() {
    let rows = [
        ("gpt2", "gpt-2", [false, false, true]),
        ("gpt2", "llama-bpe", [true, false, true]),
        ("gpt2", "lfm2", [true, false, true]),
        // Files of gemma 4 deny what their model needs.
        ("gpt2", "gemma4", [true, true, true]),
        ("gemma4", "", [true, true, true]),
        ("llama", "", [true, false, true]),
    ];
    for (model, pre, expected) in rows {
        for (flag, expected) in [None, Some(false), Some(true)].into_iter().zip(expected) {
            let mut file = File::default();
            file.text("tokenizer.ggml.model", model)
                .tokens(&[b"<s>", b"a"])
                .types(&[3, 1])
                .scores(&[0.0, 0.0])
                .merges(&[])
                .id("bos", 0);
            if !pre.is_empty() {
                file.text("tokenizer.ggml.pre", pre);
            }
            if let Some(flag) = flag {
                file.flag("add_bos_token", flag);
            }
            let tokenizer = file.built();
            assert_eq!(tokenizer.adds_bos(), expected, "{model} {pre} {flag:?}");
            let ids = tokenizer.encode("<s>", true, true);
            assert_eq!(
                ids.len(),
                1 + usize::from(expected),
                "{model} {pre} {flag:?}"
            );
        }
    }
}

#[test]
fn a_space_is_put_in_front_of_text_behind_special_tokens() {
    let tokenizer = spm(&[("\u{2581}", -1.0), ("a", -1.0), ("\u{2581}a", 0.0)]).built();
    assert!(tokenizer.adds_bos());
    assert_eq!(tokenizer.encode("", true, true), [1]);
    assert_eq!(tokenizer.encode("a a", true, true), [1, 5, 5]);
    assert_eq!(tokenizer.encode(" a", false, true), [3, 5]);
    assert_eq!(tokenizer.encode("a</s>a", false, true), [5, 2, 5]);
    assert_eq!(tokenizer.decode(&[1, 5, 5], false), " a a");
}

#[test]
fn bytes_stand_for_characters_without_an_entry() {
    let tokenizer = spm(&[
        ("<0xC3>", 0.0),
        ("<0xA9>", 0.0),
        ("<0xZZ>", 0.0),
        ("a", 0.0),
    ])
    .flag("add_space_prefix", false)
    .built();
    assert_eq!(tokenizer.encode("\u{E9}a", false, false), [3, 4, 6]);
    assert_eq!(tokenizer.decode(&[3, 4, 6], false), "\u{E9}a");
    assert_eq!(tokenizer.token_bytes(3), [0xC3]);
    assert_eq!(tokenizer.token_bytes(5), b"<0xZZ>");
    // No byte entry: the unknown token.
    assert_eq!(tokenizer.encode("b", false, false), [0]);
}

#[test]
fn phi3_swallows_the_white_space_behind_markup() {
    let tokens: &[&[u8]] = &[
        b"a",
        "\u{120}".as_bytes(),
        "\u{10A}".as_bytes(),
        b"<|end|>",
        b"<s>",
    ];
    let mut file = bpe(tokens, &[]);
    file.types(&[1, 1, 1, 3, 3]);
    assert_eq!(
        file.built().encode("<|end|>\n a", false, true),
        [3, 2, 1, 0]
    );
    file.text("general.name", "Phi-3 Mini");
    assert_eq!(file.built().encode("<|end|>\n a", false, true), [3, 0]);
    assert_eq!(file.built().encode("<s> a", false, true), [4, 1, 0]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Whatever the file holds, building a tokenizer ends in a tokenizer or an error.
    #[test]
    fn any_vocabulary_is_built_or_refused(
        is_spm in any::<bool>(),
        tokens in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'a'), Just(b'<'), any::<u8>()], 0..5), 1..20),
        types in prop::collection::vec(-1i32..8, 20),
        scores in prop::collection::vec(any::<f32>(), 20),
        merges in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'a'), Just(b' '), any::<u8>()], 0..6), 0..10),
        ids in prop::collection::vec(0u32..30, 4),
        input in any_text(),
    ) {
        let refs = |list: &[Vec<u8>]| list.iter().map(|t| string(t)).collect::<Vec<_>>();
        let mut file = File::default();
        file.text("tokenizer.ggml.model", if is_spm { "llama" } else { "gpt2" })
            .list("tokens", 8, &refs(&tokens))
            .list("merges", 8, &refs(&merges))
            .types(&types[..tokens.len()])
            .scores(&scores[..tokens.len()])
            .id("bos", ids[0])
            .id("eos", ids[1])
            .id("eot", ids[2])
            .id("fim_pad", ids[3]);
        if let Ok(tokenizer) = file.load() {
            for id in tokenizer.encode(&format!("{input}a<aa<"), true, true) {
                prop_assert!((id as usize) < tokens.len());
            }
        }
    }
}
